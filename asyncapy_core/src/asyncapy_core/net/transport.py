"""Bytes to and from one peer, over a plain TCP socket.

Knows nothing of packets. Works on a non-blocking socket of the standard library with trio's lowest waits, which is what
makes the server fast; whoever uses it keeps the deadlines and ends a wait with `wake` or `abort`.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

import trio
from trio.lowlevel import notify_closing, wait_readable, wait_writable

from asyncapy_core.errors import AsyncAPYError, ConnectionLost


class Woken(AsyncAPYError):
    """`Transport.wake` ended a wait; nothing has been read and nothing is broken."""


class Transport(Protocol):
    """One connection, as `asyncapy_core.server.connection` sees it. One task reads, one at a time writes."""

    async def receive(self, size: int) -> bytes:
        """Wait for bytes and return at most ``size`` of them, ``b""`` at the end of the stream.

        Raises:
            Woken: `wake` was called meanwhile.
            ConnectionLost: the connection broke, or was aborted.
        """

    def receive_now(self, size: int) -> bytes | None:
        """Return bytes that are here already, ``b""`` at the end of the stream, None when there are none.

        Raises:
            ConnectionLost: the connection broke.
        """

    def send_now(self, data: bytes) -> int:
        """Hand over as many bytes as are taken without waiting, and return their number.

        Raises:
            ConnectionLost: the connection broke.
        """

    async def send(self, data: bytes | memoryview) -> None:
        """Hand over all bytes. When this is cancelled, some of them may be sent: abort the connection then.

        Raises:
            ConnectionLost: the connection broke, or was aborted.
        """

    def send_eof(self) -> None:
        """Tell the peer that nothing more will come."""

    def wake(self) -> None:
        """Make a `receive` that waits raise `Woken`; do nothing when none does."""

    def abort(self) -> None:
        """Close at once; who waits gets `ConnectionLost`. May be called twice."""


class SocketTransport:
    """`Transport` over a connected, non-blocking stream socket, which it owns from then on."""

    __slots__ = ("_closed", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._closed = False

    async def receive(self, size: int) -> bytes:
        while True:
            await self.wait_readable()
            data = self.receive_now(size)
            if data is not None:
                return data

    async def wait_readable(self) -> None:
        """Wait until something has come; `receive` without receiving."""
        await self._wait(wait_readable)

    async def wait_writable(self) -> None:
        """Wait until something is taken again; a wake is meant for the reader, and may let this return early."""
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
        with contextlib.suppress(OSError):  # the peer has gone: it needs no telling
            self._socket.shutdown(socket.SHUT_WR)

    def wake(self) -> None:
        if not self._closed:
            notify_closing(self._socket)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            notify_closing(self._socket)
            with contextlib.suppress(OSError):  # the peer has gone; the descriptor is closed all the same
                self._socket.close()

    async def _wait(self, ready: object) -> None:
        if self._closed:
            raise ConnectionLost("the connection was closed")
        try:
            await ready(self._socket)  # type: ignore[operator]  # one of trio's two waits
        except trio.ClosedResourceError as error:
            if self._closed:
                raise ConnectionLost("the connection was closed") from error
            raise Woken("woken") from error
