"""The command ``asyncapy`` in processes of its own, and programs for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from asyncapy.client import Client

COMMAND: Final = (sys.executable, "-m", "asyncapy_cli")

APP = """
from asyncapy import Server
from asyncapy.filters import Filters

server = Server(port=0)
other = Server(port=0)


@server.guard
def no_root(client, packet):
    return packet.get("user") != "root"


@server.add_handler(Filters.Fields(foo=r"\\d+", bar=None), Filters.Ip("10.0.0.0/8"))
async def numbers(client, packet):
    await client.send({"by": "numbers"})


@server.add_handler(Filters.HasFields(foo=None))
async def any_foo(client, packet):
    await client.send(packet)


@server.add_handler(group=1)
async def everything(client, packet):
    pass
"""

SLOW = """
import trio
from asyncapy import Server

server = Server(port=0)


@server.add_handler()
async def slow(client, packet):
    await trio.sleep(1)
    await client.send(packet)
"""


def run(folder: Path, *arguments: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        input=text,
        timeout=60,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("ASYNCAPY_")}, **environ},
    )


class Serving:
    """A running ``asyncapy serve``, and its lines on standard error."""

    def __init__(self, folder: Path, *arguments: str, command: Sequence[str] = COMMAND) -> None:
        self.process = subprocess.Popen(
            [*command, "serve", *arguments],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def wait_for(self, pattern: str, *, count: int = 1, within: float = 20) -> re.Match[str]:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.02)
        raise AssertionError(f"{count} lines with {pattern!r} are not in {self.lines}")

    @property
    def port(self) -> int:
        return int(self.wait_for(r"Serving on 127\.0\.0\.1:(\d+)")[1])

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


@contextmanager
def serving(folder: Path, *arguments: str, command: Sequence[str] = COMMAND) -> Iterator[Serving]:
    server = Serving(folder, *arguments, command=command)
    try:
        yield server
    finally:
        running = server.process.poll() is None
        status = server.end()
        assert status == 0 or not running


def ask(port: int, **fields: object) -> dict[str, object]:
    with Client(tls=False, timeout=10) as client:
        client.connect("127.0.0.1", port)
        client.send(fields)
        return client.receive()
