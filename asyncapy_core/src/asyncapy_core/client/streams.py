"""`Connector`: opens streams of trio to a server. Knows nothing of packets."""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.addresses import endpoint
from asyncapy_core.client.connecting import handshake_failed, server_name, unreachable, within
from asyncapy_core.errors import RemoteError

if TYPE_CHECKING:
    from asyncapy_core.client.connecting import TlsOptions


IMPATIENCE: Final = 5.0
"""The most seconds to connect if requests can be sent to another host instead."""


class Connector:
    """Opens streams to one server.

    Args:
        open_stream, tls, hostname, port: as for `connect`.
        timeout: the most seconds to connect; None for no limit.

    Attributes:
        timeout: as given.
        patient: whether requests wait for another attempt if no connection can be made; if not, an attempt is limited
            by `IMPATIENCE`.
        failed_at: the time at which the last attempt failed; in the distant past if it succeeded.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[trio.abc.Stream]],
        tls: TlsOptions,
        hostname: str,
        port: int,
        timeout: float | None,
    ) -> None:
        self._open_stream = open_stream
        self._tls = tls
        self._hostname = hostname
        self._port = port
        self.timeout: float | None = timeout
        self.patient: bool = True
        self.failed_at: float = -math.inf

    @property
    def where(self) -> str:
        """The address of the server, for messages."""
        return endpoint(self._hostname, self._port)

    async def connect(self) -> trio.abc.Stream:
        """Connect in time; see `connect`.

        Raises:
            NotConnected, RemoteError: as for `connect`.
        """
        seconds = self.timeout  # it may be changed meanwhile
        if not self.patient:
            seconds = IMPATIENCE if seconds is None else min(seconds, IMPATIENCE)
        with trio.move_on_after(math.inf if seconds is None else seconds):
            try:
                stream = await connect(self._open_stream, self._tls, self._hostname, self._port)
            except RemoteError:
                self.failed_at = trio.current_time()
                raise
            self.failed_at = -math.inf
            return stream
        self.failed_at = trio.current_time()
        raise unreachable(TimeoutError(f"no answer {within(seconds)}"), self._hostname, self._port)


async def connect(
    open_stream: Callable[[], Awaitable[trio.abc.Stream]], tls: TlsOptions, hostname: str, port: int
) -> trio.abc.Stream:
    """Connect to a server, and verify its certificate if TLS is on.

    Args:
        open_stream: opens the stream without TLS.
        tls: the options of TLS.
        hostname: the name to verify, and for messages.
        port: the TCP port, for messages.

    Raises:
        NotConnected: the stream cannot be opened, or it broke during the TLS handshake.
        RemoteError: the TLS handshake failed.
    """
    try:
        plain = await open_stream()
    except (OSError, ValueError, trio.BrokenResourceError) as error:  # ValueError: the host name is not valid
        raise unreachable(error, hostname, port) from error
    if not tls.tls:
        return plain
    try:
        name = server_name(hostname)
        stream = trio.SSLStream(plain, tls.context(), server_hostname=name, https_compatible=True)
        await stream.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError, ValueError) as error:  # ValueError: not a name for a certificate
        await trio.aclose_forcefully(plain)
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))
        raise handshake_failed(cause, hostname, port) from cause
    except BaseException:  # raised again; the connection does not stay open
        await trio.aclose_forcefully(plain)
        raise
    return stream
