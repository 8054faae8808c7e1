"""What a client needs to reach a server, whichever way it waits: the arguments, and what faults mean."""

from __future__ import annotations

import os
import ssl
import threading
from dataclasses import dataclass
from typing import Final

from asyncapy_core.addresses import endpoint
from asyncapy_core.errors import NotConnected, RemoteError
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.wire import ByteOrder, WireFormat

LONGEST_WAIT: Final = threading.TIMEOUT_MAX
"""Seconds, about 292 years; sockets take no more."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How far a server is trusted.

    Attributes:
        tls: speak TLS, and verify the server's certificate and name.
        ssl_context: what to verify with, in place of the system's certificates.
        ca_file: a file of CA certificates in PEM form, in place of the system's.
    """

    tls: bool
    ssl_context: ssl.SSLContext | None
    ca_file: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        if not self.tls and (self.ssl_context is not None or self.ca_file is not None):
            raise ValueError("an ssl_context or a ca_file is of no use with tls=False; leave it out, or set tls=True")

    def context(self) -> ssl.SSLContext:
        """Return what to verify with.

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
    """Raise ValueError for what is no time to wait."""
    if timeout is not None and not 0 < timeout <= LONGEST_WAIT:
        raise ValueError(f"timeout is {timeout!r}; it must be more than 0 seconds, or None to wait for ever")


def check_port(port: int) -> None:
    """Raise TypeError or ValueError for what is no TCP port to connect to."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is {port!r}; it must be a number, such as 8081")
    if not 0 < port < 65536:
        raise ValueError(f"port is {port}; a TCP port is 1 to 65535")


def client_encodings(
    plugins: PluginManager | None, header_size: int, byteorder: ByteOrder, max_packet: int | None
) -> EncodingRegistry:
    """Return what a client speaks; it takes replies as large as the header can say unless told otherwise.

    Raises:
        ValueError: a number is out of its range.
        PluginError: two plugins claim the same codec.
    """
    largest = 256 ** min(max(header_size, 1), 8) - 1
    wire = WireFormat(header_size, byteorder, largest if max_packet is None else max_packet)
    return EncodingRegistry((plugins or default_manager()).codecs(), wire)


def handshake_failed(error: OSError, hostname: str, port: int) -> RemoteError:
    """Return what is to be raised when there is no TLS connection: `NotConnected` where trying again may help."""
    where = endpoint(hostname, port)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteError(
            f"the certificate of {where} is not to be trusted: {error.verify_message}; "
            "give its CA as ca_file=, or connect by the name that it is for"
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return RemoteError(f"no TLS connection with {where}: {error}; if the server speaks plain TCP, use tls=False")
    return NotConnected(f"the connection to {where} broke before TLS was set up: {error}; does it speak TLS?")


def unreachable(error: Exception, hostname: str, port: int) -> NotConnected:
    """Return what is to be raised when there is no TCP connection."""
    reasons: BaseException | None = error.__cause__  # of trio's, which tries each address of a name
    if isinstance(reasons, BaseExceptionGroup):
        told = " and ".join(dict.fromkeys(str(reason) for reason in reasons.exceptions))
    else:
        told = str(reasons or error)
    return NotConnected(f"cannot connect to {endpoint(hostname, port)}: {told}; is the server running there?")
