"""What a client needs to reach a server, whichever way it waits: the arguments, and what faults mean."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import NoReturn

from asyncapy_core.errors import NotConnected, RemoteError
from asyncapy_core.wire import ByteOrder, WireFormat


@dataclass(frozen=True, slots=True)
class Trust:
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
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is {timeout!r}; it must be more than 0 seconds, or None to wait for ever")


def client_wire(header_size: int, byteorder: ByteOrder, max_packet: int | None) -> WireFormat:
    """Return the wire format of a client, which takes replies as large as the header can say unless told otherwise."""
    largest = 256 ** min(max(header_size, 1), 8) - 1
    return WireFormat(header_size, byteorder, largest if max_packet is None else max_packet)


def refuse_handshake(error: OSError, hostname: str, port: int) -> NoReturn:
    """Say why there is no TLS connection, and what to do.

    Raises:
        RemoteError: always.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        raise RemoteError(
            f"the certificate of {hostname}:{port} is not to be trusted: {error.verify_message}; "
            "give its CA as ca_file=, or connect by the name that it is for"
        ) from error
    raise RemoteError(
        f"no TLS connection with {hostname}:{port}: {error}; if the server speaks plain TCP, use tls=False"
    ) from error


def unreachable(error: Exception, hostname: str, port: int) -> NotConnected:
    """Return what is to be raised when there is no TCP connection."""
    return NotConnected(f"cannot connect to {hostname}:{port}: {error}; is the server running there?")
