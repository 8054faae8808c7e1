"""Measure version 23 of the protocol, relative to version 22 on the same server."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from load import BODY, FRAMES, Load, Protocol, connected, count_frames
from processes import Peer, Process, serving
from rounds import SECONDS, Contest, hold, verdict

SERVERS = Path(__file__).parent / "servers"
WAITING = Load("1 connection, 100 in flight, handlers that wait 1 ms", 1, 100)
BUSY = "100 pipelined requests that wait, beside other work of 2 ms a turn"
SOON = 20.0
"""The most milliseconds from the start of the first handler to that of the last."""
LEAST = 8.0
"""The least ratio of the requests in a second."""


class Requests:
    """Requests with increasing numbers; ``requests * n`` returns the bytes of the next ``n``.

    They are made before the measurement, as the load must not be slower than the server.

    Args:
        body: the payload of each.
        number: how many there are.
    """

    def __init__(self, body: bytes, number: int = 1_500_000) -> None:
        length = (len(body) + 7).to_bytes(4, "big")
        head = length + bytes((23, 0, 0))
        self._data = b"".join(head + each.to_bytes(4, "big") + body for each in range(1, number + 1))
        self._size = len(head) + 4 + len(body)
        self._at = 0

    def __mul__(self, number: int) -> bytes:
        if self._at + number * self._size > len(self._data):
            self._at = 0  # the sessions of one round end before this
        start, self._at = self._at, self._at + number * self._size
        return self._data[start : self._at]

    def begin(self) -> None:
        """Begin with the first number again, for new connections."""
        self._at = 0


REQUESTS = Requests(BODY)
NUMBERED = Protocol(REQUESTS, count_frames)
OLD = Peer("version 22", "asyncapy_echo.py", FRAMES)
NEW = Peer("version 23", "asyncapy_echo.py", NUMBERED)
CONTESTS = [
    Contest(Load("version 23: 32 connections, 1 in flight", 32, 1), NEW, {OLD: 1.05}),
    Contest(Load("version 23: 4 connections, 32 in flight", 4, 32), NEW, {OLD: 1.25}),
]


def measure_numbered(rounds: int) -> list[dict[str, Any]]:
    """Print and return the figures of both versions, which one process serves."""
    rows: list[dict[str, Any]] = []
    with serving(SERVERS / OLD.program, sys.executable, tls=False) as process:
        for contest in CONTESTS:
            rows += hold(contest, dict.fromkeys(contest.peers, process), rounds, before_each=REQUESTS.begin)
    with serving(SERVERS / "asyncapy_waiting.py", sys.executable, tls=False) as process:
        ratios = sorted(_throughput(process, NUMBERED) / _throughput(process, FRAMES) for _ in range(rounds))
    ratio = statistics.median(ratios)
    print(
        f"\n{WAITING.title}: {ratio:.1f} times the requests a second of version 22"
        f" ({ratios[0]:.1f} to {ratios[-1]:.1f})  at least {LEAST:g}: {'met' if ratio >= LEAST else 'MISSED'}"
    )
    spread = [ratios[0], ratios[-1]]
    rows.append({"what": WAITING.title, "server": "version 23", "ratio": ratio, "spread": spread, "target": LEAST})
    return [*rows, measure_starts(rounds)]


def measure_starts(rounds: int) -> dict[str, Any]:
    """Print and return the time from the start of the first of 100 requests to that of the last."""
    with serving(SERVERS / "asyncapy_starts.py", sys.executable, tls=False) as process:
        times = sorted(_spread(process) * 1000 for _ in range(rounds))
    last = statistics.median(times)
    print(
        f"\n{BUSY}: the last one starts {last:.1f} ms after the first ({times[0]:.1f} to {times[-1]:.1f})"
        f"{verdict(last, SOON)}"
    )
    return {"what": BUSY, "server": "version 23", "ms": last, "spread": [times[0], times[-1]], "target": SOON}


def _spread(process: Process) -> float:
    """Return the seconds between the starts of the handlers of pipelined requests."""
    with connected(process) as sock:
        sock.sendall(b"".join(_request(number, {}) for number in range(1, WAITING.in_flight + 1)))
        _read(sock, WAITING.in_flight)
        sock.sendall(_request(WAITING.in_flight + 1, {"spread": 1}))
        seconds: float = _read(sock, 1)[0]["seconds"]
    return seconds


def _request(number: int, fields: dict[str, int]) -> bytes:
    payload = json.dumps(fields).encode()
    return (len(payload) + 7).to_bytes(4, "big") + bytes((23, 0, 0)) + number.to_bytes(4, "big") + payload


def _read(sock: socket.socket, count: int) -> list[dict[str, float]]:
    """Return the fields of this number of answers."""
    answers: list[dict[str, float]] = []
    data = b""
    while len(answers) < count:
        data += sock.recv(1 << 16)
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            if payload := data[11:end]:
                answers.append(json.loads(payload))
            data = data[end:]
    return answers


def _throughput(process: Process, protocol: Protocol) -> float:
    """Return the requests a second on one connection."""
    REQUESTS.begin()
    began = time.perf_counter()
    with connected(process) as sock:
        sock.sendall(protocol.request * WAITING.in_flight)
        rest, replies = b"", 0
        while time.perf_counter() - began < SECONDS:
            count, rest = protocol.split(rest + sock.recv(1 << 16))
            replies += count
            if count:
                sock.sendall(protocol.request * count)
        return replies / (time.perf_counter() - began)
