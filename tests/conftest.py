"""Servers for tests: real ones, on free ports, checked for leaks when a test ends."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from peer import Peer

from asyncapy import Server


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything can be installed (ASYNCAPY_NO_SKIPS=1), a skipped test is a failed run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("ASYNCAPY_NO_SKIPS") == "1" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"[{record.levelname}] {record.getMessage()}")


@dataclass
class Running:
    """A server that serves on a free loopback port, and what it has logged."""

    server: Server
    port: int
    lines: list[str] = field(default_factory=list)

    async def connect(self) -> Peer:
        return await Peer.connect(self.port)

    @property
    def connections(self) -> int:
        """How many connections the server holds."""
        service = self.server._service
        return 0 if service is None else len(service.connections)

    async def settle(self, connections: int = 0) -> None:
        """Wait until the server holds so many connections."""
        with trio.fail_after(5):
            while self.connections != connections:
                await trio.sleep(0.005)

    def logged(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return ``await serve(server_or_settings)``: starts a server with an echo handler unless it has handlers."""
    started: list[Running] = []
    async with trio.open_nursery() as nursery:

        async def start(server: Server | None = None, **settings: Any) -> Running:
            server = server or Server(port=0, **settings)
            if not server.handlers:

                @server.add_handler()
                async def echo(client: Any, packet: Any) -> None:
                    await client.send(packet)

            lines: list[str] = []
            server.log.handlers[:] = [_Lines(lines)]
            addresses = await nursery.start(server.serve)
            running = Running(server, addresses[0][1], lines)
            started.append(running)
            return running

        yield start
        for running in started:
            running.server.stop()
    for running in started:
        assert running.connections == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncapy")]
