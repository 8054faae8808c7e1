"""A server and its clients in one program, without a port: for tests, also with a clock that jumps.

They talk over pairs of connected sockets, which the kernel keeps in memory; so all that a server does is what it does
elsewhere. What is sent is there at once, so that a clock that jumps does not jump while something is under way, with
one exception: trio knows nothing of threads, so it jumps while a handler waits for one (`Server.run_sync_task`, or a
key store on a disk). Such handlers are tested with the real clock.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import trio
import trio.testing

from asyncapy_core.addresses import is_unix
from asyncapy_core.client import AsyncClient

if TYPE_CHECKING:
    from asyncapy_core.client.settings import SessionSettings
    from asyncapy_core.server.server import Server


class ServerInMemory:
    """A server that serves, and ways to talk to it; `serving` and the fixture ``asyncapy_server`` make it.

    Attributes:
        server: the server.
        log: the lines that it has logged, each with its level: ``"[INFO] {Client handler} …"``.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.log: list[str] = []
        self._streams: list[trio.SocketStream] = []
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def client(self, *, address: str = "127.0.0.1", **settings: Unpack[SessionSettings]) -> AsyncClient:
        """Return a client of the server, to be used with ``async with``.

        Args:
            address: the IP address that it seems to come from.
            settings: the further arguments of `AsyncClient`; ``header_size``, ``byteorder`` and ``tls`` are those of
                the server unless given. Where it speaks TLS, ``ca_file`` has to say whom to trust.
        """
        _check_address(address)
        config = self.server.config
        settings.setdefault("header_size", config.header_size)
        settings.setdefault("byteorder", config.byteorder)
        settings.setdefault("tls", config.tls_cert is not None)
        return AsyncClient("localhost", 0, open_stream=functools.partial(self.connect, address), **settings)

    async def connect(self, address: str = "127.0.0.1") -> trio.SocketStream:
        """Connect, and return the stream of bytes; it is closed at the end with the server, if not before.

        Args:
            address: the IP address that it seems to come from, or ``unix:`` with a path.

        Raises:
            ValueError: it is neither.
        """
        _check_address(address)
        ours, theirs = socket.socketpair()
        try:
            self.server.admit(theirs, address)
        except RuntimeError as error:
            ours.close()
            theirs.close()
            raise ConnectionRefusedError(str(error)) from error  # as a port would that nobody listens on
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._streams.append(stream)
        return stream

    async def serve(self, *, task_status: trio.TaskStatus[ServerInMemory] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called; ``await nursery.start(this.serve)`` returns this, when it serves."""
        lines = LogLines(self.log)
        self.server.log.addFilter(lines)
        try:
            with self._scope:
                await self.server.serve(listeners=(), task_status=_Started(self, task_status))
        finally:
            self.server.log.removeFilter(lines)
            for stream in self._streams:
                await trio.aclose_forcefully(stream)
            self._ended.set()

    async def stop(self) -> None:
        """Let the server end in order, with all clients having said their last, and wait until it has."""
        if not self._ended.is_set():
            self._begin_to_stop()
            await self._ended.wait()

    async def ended(self) -> None:
        """Wait until the server has ended."""
        await self._ended.wait()

    async def cut(self) -> None:
        """Let the server end in order, but cut off the handlers that wait for something; no clock is waited for."""
        if not self._ended.is_set():
            self._begin_to_stop()
            await trio.testing.wait_all_tasks_blocked()
            self._scope.cancel()
            await self._ended.wait()

    def _begin_to_stop(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):  # this one has left before
                stream.socket.shutdown(socket.SHUT_WR)
        self.server.stop()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[ServerInMemory]:
    """Have a server serve for the length of an ``async with`` block: plugins and setup before, shutdown behind it.

    Handlers that are still at work at the end are cut off. What the block raises comes out as it is; what the server
    raises while it serves, in an ExceptionGroup.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            running: ServerInMemory = await nursery.start(ServerInMemory(server).serve)
        except Exception as error:  # raised again, outside of the nursery
            failure = error
        else:
            try:
                yield running
            except (trio.Cancelled, GeneratorExit):
                raise
            except BaseException as error:  # as above; pytest's own failures are no Exceptions
                failure = error
            await running.cut()
    if failure is not None:
        raise failure


def _check_address(address: str) -> None:
    if not is_unix(address):
        ipaddress.ip_address(address)


class _Started(trio.TaskStatus[Any]):
    """Tells who waits for a server to serve, and gives it what the server is wrapped in."""

    def __init__(self, running: ServerInMemory, task_status: trio.TaskStatus[ServerInMemory]) -> None:
        self._running = running
        self._task_status = task_status

    def started(self, value: Any = None) -> None:
        self._task_status.started(self._running)


class LogLines(logging.Filter):
    """Keeps the lines of a logger, each with its level, in the moment in which they are logged."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def filter(self, record: logging.LogRecord) -> bool:
        self._lines.append(f"[{record.levelname}] {record.getMessage()}")
        return True
