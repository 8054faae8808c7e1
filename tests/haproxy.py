"""A real HAProxy with a given configuration, and the states in which it sees its servers."""

from __future__ import annotations

import contextlib
import csv
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from installed import HAPROXY
from installs.pages import blocks
from ports import free_port

DOCS = Path(__file__).parents[1] / "docs"
DEADLINE = 20.0


class Haproxy:
    """Runs HAProxy in the foreground, with a port for questions about its state.

    Args:
        folder: the folder for its configuration.
        text: the configuration.
        port: a port of a frontend; the start waits until it is open.
    """

    def __init__(self, folder: Path, text: str, port: int) -> None:
        self.port = port
        self._questions = free_port()
        self._path = folder / "haproxy.cfg"
        self._path.write_text(f"{text}\nglobal\n    stats socket ipv4@127.0.0.1:{self._questions}\n", "utf-8")
        self._process: subprocess.Popen[str] | None = None

    def servers(self) -> dict[str, dict[str, str]]:
        """Return the statistics of each server by its name."""
        with socket.create_connection(("127.0.0.1", self._questions), DEADLINE) as connection:
            connection.sendall(b"show stat\n")
            text = connection.makefile(encoding="utf-8").read()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["svname"] not in {"FRONTEND", "BACKEND"}}

    def wait_for(self, column: str = "status", **values: str) -> None:
        """Wait until these servers have these values in a column of the statistics.

        Args:
            column: the column; by default, the state of a server: UP, DOWN, or a step from one to the other.
            values: the value by the name of the server.
        """
        deadline = time.monotonic() + DEADLINE
        while True:
            found = {name: statistics[column] for name, statistics in self.servers().items()}
            if values.items() <= found.items():
                return
            assert time.monotonic() < deadline, f"HAProxy has {found}, and not {values}"
            time.sleep(0.01)

    def __enter__(self) -> Self:
        assert HAPROXY is not None
        self._process = subprocess.Popen([HAPROXY, "-f", str(self._path), "-db"], stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + DEADLINE
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    return self
                assert self._process.poll() is None, self._process.communicate()[1]
                assert time.monotonic() < deadline, "HAProxy did not open its port"
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.communicate()


def documented(certificate: Path, port: int, servers: list[int]) -> str:
    """Return the configuration of the documentation, with other ports and another certificate."""
    (block,) = (block for block in blocks(DOCS / "operating.md") if block.caption == "haproxy.cfg")
    ports = dict(zip(("1500", "1501", "8443"), map(str, (*servers, port)), strict=True))
    text = re.sub(r":(\d{4})\b", lambda found: f":{ports[found[1]]}", block.text)
    return text.replace("/etc/haproxy/api.pem", str(certificate))
