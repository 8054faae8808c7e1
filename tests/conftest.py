"""Fixtures with real servers on free ports, checked for leaks at the end of each test."""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from dispositions import give_programs_default_signals
from hypothesis import settings
from peer import Peer

from asyncapy import Server
from asyncapy_core.testing import ServerInMemory
from asyncapy_core.testing.memory import LogLines

CHECKOUT = Path(__file__).parents[1]

settings.register_profile("asyncapy", deadline=None)  # a busy machine is no failure
settings.load_profile("asyncapy")


def pytest_configure(config: pytest.Config) -> None:
    """Give the programs that tests start default signals, and exclude them from the coverage."""
    starts_workers = config.getoption("numprocesses", None)
    if not starts_workers:
        give_programs_default_signals()
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped and ASYNCAPY_NO_SKIPS is 1, as on machines that have all optional programs."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("ASYNCAPY_NO_SKIPS") == "1" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def without_checkout(line: str) -> str:
    """Remove the folder of the repository from a log line; its name may contain any characters."""
    return line.replace(str(CHECKOUT), "")


@dataclass
class Running:
    """A running server on a free loopback port, and its log lines."""

    server: Server
    port: int
    lines: list[str] = field(default_factory=list)

    async def connect(self) -> Peer:
        return await Peer.connect(self.port)

    @property
    def connections(self) -> int:
        """The number of open connections, including refused ones that are not closed yet."""
        statistics = self.server.statistics()
        return statistics.connections + statistics.refused

    async def settle(self, connections: int = 0) -> None:
        """Wait until the server has this number of connections."""
        with trio.fail_after(5):
            while self.connections != connections:  # noqa: ASYNC110  # the server has no event for this
                await trio.sleep(0.005)

    def logged(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    @property
    def footprint(self) -> dict[str, int]:
        """The number of resources that the server holds; it is the same before and after a session."""
        statistics = self.server.statistics()
        return {
            "sessions": statistics.sessions,
            "connections": self.connections,
            "queued": statistics.bytes_queued,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }

    def grown_since(self, before: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Return the resources that have grown, as (before, now); some may shrink, by garbage of earlier tests."""
        return {name: (before[name], now) for name, now in self.footprint.items() if now > before[name]}

    @asynccontextmanager
    async def undisturbed(self, *, within: float = 5, **fields: Any) -> AsyncIterator[None]:
        """Check that a client at another address is served during the block, and that the block leaks no resources.

        Args:
            within: seconds in which the footprint has to be the same as before.
            fields: the request of the other client.
        """
        done = trio.Event()
        fields = fields or {"bystander": 1}

        async def go_on(bystander: Peer) -> None:
            while not done.is_set():
                assert await bystander.ask(**fields) == usual
                await trio.sleep(0.01)
            assert await bystander.ask(**fields) == usual

        async with await Peer.connect_from("127.0.0.9", self.port) as bystander:
            usual = await bystander.ask(**fields)
            assert usual is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_on, bystander)
                before = self.footprint
                yield
                with trio.move_on_after(within):
                    while self.grown_since(before):  # noqa: ASYNC110  # the closing of a descriptor has no event
                        await trio.sleep(0.005)
                assert not self.grown_since(before)
                done.set()
        assert not self.logged("Traceback")
        odd = [line for line in self.lines if re.search(r"[^ -~]", without_checkout(line))]
        assert not odd, "a log line has a character that is not printable ASCII"


Serve = Callable[..., Awaitable[Running]]
Start = Callable[[Server], Awaitable[ServerInMemory]]
"""The type of the fixture ``asyncapy_server``."""


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return ``await serve(server, **settings)``, which starts a server; one without handlers gets an echo handler."""
    started: list[Running] = []
    async with trio.open_nursery() as nursery:

        async def start(server: Server | None = None, **settings: Any) -> Running:
            server = server or Server(port=0, **settings)
            if not server.handlers:

                @server.add_handler()
                async def echo(client: Any, packet: Any) -> None:
                    await client.send(packet)

            lines: list[str] = []
            server.log.handlers.clear()
            server.log.addFilter(LogLines(lines))
            addresses = await nursery.start(server.serve)
            running = Running(server, addresses[0][1], lines)
            started.append(running)
            return running

        yield start
        for running in started:
            running.server.stop()
    for running in started:
        assert running.connections == 0
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("asyncapy") and "redis" not in name]  # a store may be open


@dataclass
class Certificates:
    """A CA, and a folder with the certificates that it has issued."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.ca_file = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.server = self.issue("server.pem")

    def issue(self, name: str, **subject: Any) -> Path:
        """Write a certificate for 127.0.0.1 and localhost, with its key, into a file."""
        path = self.folder / name
        self.ca.issue_cert("127.0.0.1", "localhost", **subject).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def client_context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts the CA and has this certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
