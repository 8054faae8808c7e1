"""A server and its clients in one program, without a port: for tests, also with trio's autojump clock.

They communicate over pairs of connected sockets, which the kernel keeps in memory, so the server runs the same code as
on a network. Sent data arrives immediately, so the clock does not jump while data is in transit. It does jump while a
handler waits for a thread (`Server.run_sync_task`, or a key store on a disk), as trio does not take threads into
account. Test such handlers with the real clock.
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
from asyncapy_core.event_loops import require_trio

if TYPE_CHECKING:
    from asyncapy_core.client.settings import SessionSettings
    from asyncapy_core.server.server import Server


class ServerInMemory:
    """A running server and the means to connect to it; `serving` and the fixture ``asyncapy_server`` create it.

    Attributes:
        server: the server.
        log: the lines that the server has logged, each with its level: ``"[INFO] {Client handler} …"``.
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
            address: the IP address of the client, as the server sees it.
            settings: further arguments of `AsyncClient`; ``header_size``, ``byteorder`` and ``tls`` are those of the
                server by default. With TLS, ``ca_file`` has to name the CA of the server's certificate.
        """
        _check_address(address)
        config = self.server.config
        settings.setdefault("header_size", config.header_size)
        settings.setdefault("byteorder", config.byteorder)
        settings.setdefault("tls", config.tls_cert is not None)
        return AsyncClient("localhost", 0, open_stream=functools.partial(self.connect, address), **settings)

    async def connect(self, address: str = "127.0.0.1") -> trio.SocketStream:
        """Connect, and return the byte stream. It is closed when the server ends, if not before.

        Args:
            address: the IP address of the client, as the server sees it, or ``unix:`` with a path.

        Raises:
            ValueError: the address is neither.
            ConnectionRefusedError: the server does not serve.
        """
        _check_address(address)
        ours, theirs = socket.socketpair()
        try:
            self.server.admit(theirs, address)
        except RuntimeError as error:
            ours.close()
            theirs.close()
            raise ConnectionRefusedError(str(error)) from error  # as for a port without a listener
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._streams.append(stream)
        return stream

    async def serve(self, *, task_status: trio.TaskStatus[ServerInMemory] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called. ``await nursery.start(running.serve)`` returns ``running`` once it serves."""
        lines, threaded = LogLines(self.log), self.server.log.threaded
        self.server.log.threaded = False  # a test sees a record when it is logged
        self.server.log.addFilter(lines)
        try:
            with self._scope:
                await self.server.serve(listeners=(), task_status=_Started(self, task_status))
        finally:
            self.server.log.removeFilter(lines)
            self.server.log.threaded = threaded
            for stream in self._streams:
                await trio.aclose_forcefully(stream)
            self._ended.set()

    async def stop(self) -> None:
        """End the sending side of all clients, stop the server in order, and wait until it has ended."""
        if not self._ended.is_set():
            self._begin_to_stop()
            await self._ended.wait()

    async def ended(self) -> None:
        """Wait until the server has ended."""
        await self._ended.wait()

    async def cut(self) -> None:
        """Do as `stop`, but cancel the handlers that still wait for something; no clock has to advance."""
        if not self._ended.is_set():
            self._begin_to_stop()
            await trio.testing.wait_all_tasks_blocked()
            self._scope.cancel()
            await self._ended.wait()

    def _begin_to_stop(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):  # the client has left before
                stream.socket.shutdown(socket.SHUT_WR)
        self.server.stop()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[ServerInMemory]:
    """Run a server for the length of an ``async with`` block, with plugins and setup before it and shutdown after it.

    Handlers that are still running at the end are cancelled. An exception from the block is raised unchanged; one from
    the running server is raised in an ExceptionGroup.
    """
    require_trio("serving")
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
            except BaseException as error:  # as above; pytest's own failures are not Exceptions
                failure = error
            await running.cut()
    if failure is not None:
        raise failure


def _check_address(address: str) -> None:
    if not is_unix(address):
        ipaddress.ip_address(address)


class _Started(trio.TaskStatus[Any]):
    """Makes ``nursery.start`` return the `ServerInMemory` when the server serves."""

    def __init__(self, running: ServerInMemory, task_status: trio.TaskStatus[ServerInMemory]) -> None:
        self._running = running
        self._task_status = task_status

    def started(self, value: Any = None) -> None:
        self._task_status.started(self._running)


class LogLines(logging.Filter):
    """Stores the lines of a logger, each with its level, when they are logged."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def filter(self, record: logging.LogRecord) -> bool:
        self._lines.append(f"[{record.levelname}] {record.getMessage()}")
        return True
