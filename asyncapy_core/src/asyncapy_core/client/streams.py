"""`connect`: opens a stream of trio to a server. Knows nothing of packets, and sets no limit on the time."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from asyncapy_core.client.connecting import handshake_failed, server_name, unreachable

if TYPE_CHECKING:
    from asyncapy_core.client.connecting import TlsOptions


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
