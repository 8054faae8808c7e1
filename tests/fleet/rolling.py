"""Two servers that are restarted one after the other, while many callers send requests to them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import trio
from program import Program, running

from asyncapy.client import Pool
from asyncapy.errors import RemoteError

CALLERS = 20
BETWEEN = 0.3
"""The seconds of requests before the first restart, and after each one."""

SERVER = """
import os

port, records, *proxies = sys.argv[1:]
server = Server(port=int(port), proxy_protocol_from=proxies)
file = os.open(records, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@server.add_handler()
async def handle(client, packet):
    await trio.sleep(0.002)
    os.write(file, f"{packet['id']}\\n".encode())  # a line is one write, as the servers share the file
    return {"id": packet["id"]}


server.start()
"""


class Fleet:
    """Two servers with a common record of the requests that they have handled.

    Args:
        folder: the folder for the record, and for the program of the servers.
        ports: the port of each server by its name.
        proxies: the trusted proxies.
    """

    def __init__(self, folder: Path, ports: dict[str, int], *proxies: str) -> None:
        self._folder = folder
        self._proxies = proxies
        self._records = folder / "records"
        self._programs: dict[str, Program] = {}
        self._stack = ExitStack()
        self.ports = ports

    def handled(self) -> Counter[int]:
        """Return how often each request was handled."""
        return Counter(map(int, self._records.read_text("ascii").split()))

    def restart(self, name: str) -> float:
        """Stop a server with SIGTERM, wait for its end, and start it again; return the seconds until its end."""
        began = time.monotonic()
        program = self._programs[name]
        status = program.end(signal.SIGTERM)
        seconds = time.monotonic() - began
        assert (status, [line for line in program.err if not line.startswith("[INFO]")]) == (0, [])
        self._start(name)
        return seconds

    def _start(self, name: str) -> None:
        arguments = (str(self.ports[name]), str(self._records), *self._proxies)
        self._programs[name] = program = self._stack.enter_context(running(self._folder, SERVER, *arguments))
        assert program.port == self.ports[name]

    def __enter__(self) -> Self:
        with self._stack:
            for name in self.ports:
                self._start(name)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass
class Calls:
    """Numbered requests of many callers.

    Attributes:
        number: the number of requests so far.
        answered: the requests with their own answer.
        failed: the error of each other request.
        pending: the requests that have no outcome yet.
        ending: whether no more requests are sent.
    """

    pool: Pool
    number: int = 0
    answered: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    ending: bool = False

    async def call(self) -> None:
        """Send one request after the other."""
        while not self.ending:
            self.number += 1
            number = self.number
            self.pending.add(number)
            try:
                answer = await self.pool.request({"id": number}, timeout=10)
            except RemoteError as error:
                self.failed[number] = repr(error)
            else:
                if answer == {"id": number}:
                    self.answered += 1
                else:
                    self.failed[number] = f"the answer is {answer}"
            self.pending.remove(number)


@dataclass
class Restart:
    """A restart of one server.

    Attributes:
        server: its name.
        first: the first request without an outcome when the restart began; of the first restart, request 1.
        drain: the seconds from SIGTERM to the end of the process.
        requests: the number of requests from the first one to the first one of the next restart.
        lost: the number of these requests that have no answer of their own.
        twice: the number of these requests that were handled twice.
    """

    server: str
    first: int
    drain: float
    requests: int = 0
    lost: int = 0
    twice: int = 0


async def roll(fleet: Fleet, pool: Pool, count: int, until_up: Callable[[str], object]) -> tuple[Calls, list[Restart]]:
    """Restart the servers in turn while all callers send requests.

    Args:
        fleet: the servers.
        pool: the client of the callers.
        count: the number of restarts.
        until_up: waits until clients can reach a server again.

    Returns:
        The calls, and the restarts; each request belongs to one restart.
    """
    calls = Calls(pool)
    restarts: list[Restart] = []
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(calls.call)
        await trio.sleep(BETWEEN)
        for number in range(count):
            name = list(fleet.ports)[number % len(fleet.ports)]
            first = min(calls.pending) if restarts else 1
            drain = await trio.to_thread.run_sync(fleet.restart, name)
            await trio.to_thread.run_sync(until_up, name)
            await trio.sleep(BETWEEN)
            restarts.append(Restart(name, first, drain))
        calls.ending = True
    handled = fleet.handled()
    ends = [each.first for each in restarts[1:]] + [calls.number + 1]
    for restart, end in zip(restarts, ends, strict=True):
        numbers = range(restart.first, end)
        restart.requests = len(numbers)
        restart.lost = sum(number in calls.failed or not handled[number] for number in numbers)
        restart.twice = sum(handled[number] > 1 for number in numbers)
    return calls, restarts
