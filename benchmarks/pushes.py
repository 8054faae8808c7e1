"""Measure the CPU time of a packet to 10,000 sessions, relative to one `send` of ready bytes to each of their sockets.

One server does both in turn, over the same sockets. The load reads when all is sent, so that no `send` wakes it.
"""

from __future__ import annotations

import resource
import socket
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from load import FRAMES, connected, operation
from processes import Process, allow_files, serving
from rounds import verdict

PROGRAM = Path(__file__).parent / "servers" / "asyncapy_push.py"
WANTED = 10_000
TARGET = 2.0


def measure_pushes(rounds: int) -> list[dict[str, Any]]:
    """Print and return the microseconds of CPU for a session, and the ratio."""
    allow_files()
    count = min(WANTED, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    with ExitStack() as stack:
        process = stack.enter_context(serving(PROGRAM, sys.executable, tls=False))
        asking, *others = [stack.enter_context(_served(process)) for _ in range(count + 1)]
        costs = [[_cost(process, asking, others, name) for name in ("push", "write")] for _ in range(rounds + 1)]
    pushed, written = zip(*costs[1:], strict=True)  # the first round is slower
    ratios = sorted(push / write for push, write in costs[1:])
    cpu, bare, ratio = statistics.median(pushed), statistics.median(written), statistics.median(ratios)
    print(
        f"\na packet to {count} sessions: {cpu:.1f} us CPU each, a send of ready bytes {bare:.1f} us, {ratio:.2f} times"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}){verdict(ratio, TARGET)}"
    )
    spread = [ratios[0], ratios[-1]]
    return [
        {"what": "push", "server": "AsyncAPY", "us": cpu, "bare_us": bare, "ratio": ratio, "spread": spread}
        | {"sessions": count, "target": TARGET}
    ]


def _served(process: Process) -> socket.socket:
    """Return a connection that the server has served once."""
    sock = connected(process)
    _ask(sock, "enter")
    return sock


def _ask(sock: socket.socket, name: str) -> None:
    sock.sendall(operation(name).request)
    reply = sock.recv(4096)
    assert FRAMES.split(reply) == (1, b""), reply
    assert b"failure" not in reply, reply


def _cost(process: Process, asking: socket.socket, others: list[socket.socket], name: str) -> float:
    """Return the microseconds of CPU for a session."""
    before = process.cpu_seconds()
    _ask(asking, name)
    for sock in others:
        assert FRAMES.split(sock.recv(4096)) == (1, b"")
    return (process.cpu_seconds() - before) / len(others) * 1e6  # the server is idle by now
