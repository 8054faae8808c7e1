"""A server program in a process of its own, and a blocking client for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from peer import JSON, json_packet

HEAD = """
import signal, sys, time
import trio
from asyncapy import Server

def note(*words):
    print(*words, flush=True)
"""

ECHO = """
server = Server(port=0)

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)
"""


class Program:
    """A program in a process of its own, and the lines that it has written so far."""

    def __init__(self, path: Path, text: str, *arguments: str) -> None:
        script = path / "program.py"
        script.write_text(HEAD + text, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *arguments],
            cwd=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={name: value for name, value in os.environ.items() if not name.startswith("ASYNCAPY_")},
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, lines: list[str] | None = None, *, count: int = 1) -> re.Match[str]:
        """Wait for this number of lines, by default on standard error, and return the match of the last."""
        lines = self.err if lines is None else lines
        found: list[re.Match[str]] = []

        def there() -> bool:
            found[:] = [match for line in lines if (match := re.search(pattern, line))]
            return len(found) >= count or not any(reader.is_alive() for reader in self._readers)

        with self._changed:
            self._changed.wait_for(there, 20)
        assert len(found) >= count, f"{count} lines with {pattern!r} are not in {self.out} and {self.err}"
        return found[count - 1]

    @property
    def port(self) -> int:
        return self.port_of()

    def port_of(self, *, start: int = 1) -> int:
        """Return the port of the server after its start number ``start``, counted from 1."""
        return int(self.wait_for(r"Serving on 127\.0\.0\.1:(\d+)", count=start)[1])

    def connect(self) -> Caller:
        return Caller(self.port)

    def end(self, *signals: signal.Signals) -> int:
        """Send signals, wait for the end of the process, and return its exit status."""
        for number in signals:
            self.process.send_signal(number)
        status = self.process.wait(20)
        for reader in self._readers:
            reader.join()
        return status


class Caller:
    """A blocking client written to docs/protocol.md."""

    def __init__(self, where: int | socket.socket) -> None:
        self.socket = socket.create_connection(("127.0.0.1", where), 10) if isinstance(where, int) else where
        self.file = self.socket.makefile("rb")

    def send(self, **fields: Any) -> None:
        self.socket.sendall(json_packet(**fields))

    def receive(self) -> Any:
        header = self.file.read(6)
        if not header:
            return None
        length, version, encoding = struct.unpack(">IBB", header)
        assert (version, encoding) == (22, JSON)
        return json.loads(self.file.read(length - 2))

    def ask(self, **fields: Any) -> Any:
        self.send(**fields)
        return self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


@contextlib.contextmanager
def running(path: Path, text: str, *arguments: str) -> Iterator[Program]:
    program = Program(path, text, *arguments)
    try:
        yield program
    finally:
        program.process.kill()
        program.end()
        assert program.process.stdout is not None
        assert program.process.stderr is not None
        program.process.stdout.close()
        program.process.stderr.close()


def connected(path: Path, process: subprocess.Popen[str]) -> socket.socket:
    """Connect to a Unix domain socket once the server of a process listens at it."""
    for _ in range(400):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            assert process.poll() is None
            time.sleep(0.05)
        else:
            sock.settimeout(20)
            return sock
    raise AssertionError("the server does not listen")
