"""The parts of connecting that both clients share: checks of arguments, TLS options, and error messages."""

from __future__ import annotations

import os
import ssl
import threading
from dataclasses import dataclass
from typing import Final

from asyncapy_core.addresses import endpoint
from asyncapy_core.defaults import MAX_REPLY
from asyncapy_core.errors import NotConnected, RemoteError
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.wire import ByteOrder, WireFormat

LONGEST_WAIT: Final = threading.TIMEOUT_MAX
"""The longest timeout that sockets accept, in seconds; about 292 years."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The TLS options of a client.

    Attributes:
        tls: use TLS, and verify the server's certificate and name.
        ssl_context: a context to use instead of one with the system's CA certificates.
        ca_file: a PEM file of CA certificates to use instead of the system's.

    Raises:
        TypeError: ``ssl_context`` or ``ca_file`` is of another type.
        ValueError: one of them is given without TLS.
    """

    tls: bool
    ssl_context: ssl.SSLContext | None
    ca_file: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context is {self.ssl_context!r}; it must be an ssl.SSLContext")
        if self.ca_file is not None and not isinstance(self.ca_file, (str, os.PathLike)):
            raise TypeError(f"ca_file is {self.ca_file!r}; it must be the path of a file in PEM form")
        if not self.tls and (self.ssl_context is not None or self.ca_file is not None):
            raise ValueError("an ssl_context or a ca_file has no effect with tls=False; leave it out, or set tls=True")

    def context(self) -> ssl.SSLContext:
        """Return the context for a connection.

        Raises:
            RemoteError: the CA certificates cannot be read.
        """
        try:
            return self.ssl_context or ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise RemoteError(
                f"cannot read CA certificates from {self.ca_file}: {error}; give a file in PEM form"
            ) from error


def check_timeout(timeout: float | None) -> None:
    """Raise TypeError or ValueError unless a timeout is None, or more than 0 and at most `LONGEST_WAIT` seconds."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout is {timeout!r}; it must be a number of seconds, or None to wait for ever")
    if timeout is not None and not 0 < timeout <= LONGEST_WAIT:
        raise ValueError(f"timeout is {timeout!r}; it must be more than 0 seconds, or None to wait for ever")


def within(seconds: float | None) -> str:
    """Return a timeout for messages, such as ``"within 5 s"``; without one, another limit than the client's applied."""
    return "in time" if seconds is None else f"within {seconds:g} s"


def check_hostname(hostname: str) -> None:
    """Raise TypeError or ValueError unless a host name is a text that is not empty."""
    if not isinstance(hostname, str):
        raise TypeError(f"hostname is {hostname!r}; it must be a text, such as 'localhost' or '192.0.2.1'")
    if not hostname:
        raise ValueError("hostname is empty; give a name or an IP address, such as 'localhost'")


def check_port(port: int) -> None:
    """Raise TypeError or ValueError unless a port is an integer from 1 to 65535."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is {port!r}; it must be a number, such as 8081")
    if not 0 < port < 65536:
        raise ValueError(f"port is {port}; a TCP port is 1 to 65535")


def server_name(hostname: str) -> str:
    """Return the name to request and to verify in a TLS handshake: a host name without its final dot.

    The dot makes a name absolute in DNS; certificates do not have it, and RFC 6066 forbids it in a handshake.
    """
    return hostname.removesuffix(".")


def client_encodings(
    plugins: PluginManager | None, header_size: int, byteorder: ByteOrder, max_packet: int | None = MAX_REPLY
) -> EncodingRegistry:
    """Return the encodings of a client. With ``max_packet=None`` it accepts all lengths that the header can express.

    Raises:
        TypeError: an argument is no whole number.
        ValueError: a number is out of its range.
        PluginError: two plugins provide the same codec.
    """
    for name, number in {"header_size": header_size, "max_packet": max_packet}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise TypeError(f"{name} is {number!r}; it must be a whole number of bytes")
    largest = 256 ** min(max(header_size, 1), 8) - 1
    wire = WireFormat(header_size, byteorder, largest if max_packet is None else max_packet)
    return EncodingRegistry((plugins or default_manager()).codecs(), wire)


def handshake_failed(error: OSError | ValueError, hostname: str, port: int) -> RemoteError:
    """Return the exception for a failed TLS handshake: `NotConnected` if another attempt may succeed."""
    where = endpoint(hostname, port)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteError(
            f"the certificate of {where} is not trusted: {error.verify_message}; "
            "give its CA as ca_file=, or connect by the name that it is for"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return RemoteError(f"no TLS connection with {where}: {error}; if the server speaks plain TCP, use tls=False")
    return NotConnected(f"the connection to {where} broke before TLS was set up: {error}; does it speak TLS?")


def unreachable(error: Exception, hostname: str, port: int) -> NotConnected:
    """Return the exception for a failed connection attempt."""
    reasons: BaseException | None = error.__cause__  # trio tries each address of a name
    if isinstance(reasons, BaseExceptionGroup):
        text = " and ".join(dict.fromkeys(str(reason) for reason in reasons.exceptions))
    else:
        text = str(reasons or error)
    return NotConnected(f"cannot connect to {endpoint(hostname, port)}: {text}; is the server running there?")
