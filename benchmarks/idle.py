"""Measure the memory of an idle connection: the growth of the server's resident memory with thousands of them."""

from __future__ import annotations

import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from load import FRAMES, connected
from processes import allow_files, serving
from rounds import verdict

WANTED = 10_000
KIBI = 1024
TARGETS = {"AsyncAPY": 7.5, "AsyncAPY, version 23": 9.0}


def measure_idle(programs: dict[str, tuple[Path, bytes]]) -> list[dict[str, Any]]:
    """Print and return the KiB of each connection, after it has been served once.

    Args:
        programs: the program of each server, and a request.
    """
    allow_files()
    count = min(WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    rows = []
    print(f"\n{count} idle connections, each served once")
    for name, (program, request) in programs.items():
        with ExitStack() as stack:
            process = stack.enter_context(serving(program, sys.executable, tls=False))
            before = process.resident_bytes()
            for _ in range(count):
                sock = stack.enter_context(connected(process))
                sock.sendall(request)
                assert FRAMES.split(sock.recv(4096))[0]
            each = (process.resident_bytes() - before) / count / KIBI
        print(f"  {name:22} {each:5.1f} KiB each{verdict(each, TARGETS.get(name))}")
        rows.append({"what": "idle connection", "server": name, "KiB": each, "target": TARGETS.get(name)})
    return rows
