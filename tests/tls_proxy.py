"""A TLS proxy in front of a server without TLS."""

from __future__ import annotations

import contextlib
import ssl
import threading
from typing import Self

import trio

TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection."""


class TlsProxy:
    """Forwards its port to the port of a server, and decrypts the connections of clients that use TLS."""

    def __init__(self, port: int, target: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._target = target
        self._context = context
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), name="tls-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(10)
        assert self._token is not None, "the TLS proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the TLS proxy hangs"

    async def _serve(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, self._forward, listeners)
                self._token = trio.lowlevel.current_trio_token()
                self._started.set()

    async def _forward(self, client: trio.SocketStream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with client, await trio.open_tcp_stream("127.0.0.1", self._target) as server:
                begin = await client.socket.recv(1, trio.socket.MSG_PEEK)
                stream: trio.abc.Stream = client
                if begin == TLS_HANDSHAKE:
                    stream = trio.SSLStream(client, self._context, server_side=True, https_compatible=True)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, stream, server, nursery.cancel_scope)
                    nursery.start_soon(self._pump, server, stream, nursery.cancel_scope)

    async def _pump(self, source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        both.cancel()
