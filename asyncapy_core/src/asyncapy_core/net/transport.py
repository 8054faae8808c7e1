"""`Transport`, the bytes to and from one peer, and `SocketTransport` over a plain socket.

It uses a non-blocking socket of the standard library with trio's low-level waits, which is faster than trio's streams.
The caller keeps the deadlines, and ends a wait with `wake` or `abort`.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

from asyncapy_core.errors import AsyncAPYError, ConnectionLost


class Woken(AsyncAPYError):
    """`Transport.wake` ended a wait. No data was read, and the connection is intact."""


class Transport(Protocol):
    """One connection, for `Server.admit`. One task reads; one task at a time writes. All calls are in the trio loop."""

    async def receive(self, size: int) -> bytes:
        """Wait for data and return at most ``size`` bytes, ``b""`` at the end of the stream.

        Raises:
            Woken: `wake` was called during the wait.
            ConnectionLost: the connection broke, or was aborted.
        """

    def receive_now(self, size: int) -> bytes | None:
        """Return received data without waiting, ``b""`` at the end of the stream, None if there is none.

        Raises:
            ConnectionLost: the connection broke.
        """

    def send_now(self, data: bytes) -> int:
        """Send as many bytes as possible without waiting, and return their number.

        Raises:
            ConnectionLost: the connection broke.
        """

    async def send(self, data: bytes | memoryview) -> None:
        """Send all bytes. After a cancellation some may have been sent: abort the connection then.

        Raises:
            ConnectionLost: the connection broke, or was aborted.
        """

    def send_eof(self) -> None:
        """Half-close the connection: the peer receives the end of the stream."""

    def fileno(self) -> int:
        """Return the file descriptor of the socket; -1 after `abort`, and if there is none."""

    def wake(self) -> None:
        """Make a waiting `receive` raise `Woken`; do nothing if none waits."""

    def abort(self) -> None:
        """Close at once; waiting calls raise `ConnectionLost`. Aborting twice does nothing."""


class SocketTransport:
    """`Transport` over a connected, non-blocking stream socket, which it owns."""

    __slots__ = ("_closed", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._closed = False

    async def receive(self, size: int) -> bytes:
        while True:
            if self._closed:
                raise ConnectionLost("the connection was closed")
            try:
                await wait_readable(self._socket)  # without a coroutine between, which would take 200 bytes of memory
            except trio.ClosedResourceError as error:
                raise self._ended() from error
            data = self.receive_now(size)
            if data is not None:
                return data

    async def wait_readable(self) -> None:
        """Wait until there is data to receive."""
        await self._wait(wait_readable)

    async def wait_writable(self) -> None:
        """Wait until data can be sent. A `wake` is for the reader, and may end this wait early."""
        with contextlib.suppress(Woken):
            await self._wait(wait_writable)

    def receive_now(self, size: int) -> bytes | None:
        try:
            return self._socket.recv(size)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error}") from error

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error}") from error

    async def send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            sent = self.send_now(rest)
            rest = rest[sent:]
            if rest:
                await self.wait_writable()

    def send_eof(self) -> None:
        with contextlib.suppress(OSError):  # the peer has left
            self._socket.shutdown(socket.SHUT_WR)

    def fileno(self) -> int:
        return self._socket.fileno()

    def wake(self) -> None:
        if not self._closed:
            notify_closing(self._socket)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            notify_closing(self._socket)
            with contextlib.suppress(OSError):  # the peer has left; the descriptor is closed all the same
                self._socket.close()

    async def _wait(self, ready: object) -> None:
        if self._closed:
            raise ConnectionLost("the connection was closed")
        try:
            await ready(self._socket)  # type: ignore[operator]  # one of trio's two waits
        except trio.ClosedResourceError as error:
            raise self._ended() from error

    def _ended(self) -> AsyncAPYError:
        """Return the exception for a wait that was ended."""
        return ConnectionLost("the connection was closed") if self._closed else Woken("woken")
