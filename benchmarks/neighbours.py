"""Measure the 99th percentile of a client's latency, alone and beside a client that pipelines without end."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from typing import Any

from load import FRAMES, connected
from processes import Process
from rounds import verdict

REPLIES = 2_000
TARGET = 5.0


def measure_neighbours(process: Process, rounds: int) -> list[dict[str, Any]]:
    """Print and return the ratio of the two."""
    ratios, alone, beside = [], [], []
    for _ in range(rounds):
        alone.append(_percentile(process))
        with connected(process) as greedy:
            threading.Thread(target=_pipeline, args=[greedy], daemon=True).start()
            threading.Thread(target=_swallow, args=[greedy], daemon=True).start()
            time.sleep(0.3)
            beside.append(_percentile(process))
            greedy.shutdown(socket.SHUT_RDWR)
        ratios.append(beside[-1] / alone[-1])
    ratio = statistics.median(ratios)
    print(
        f"\np99 of a client: {statistics.median(alone) * 1e6:.0f} us alone, {statistics.median(beside) * 1e6:.0f} us "
        f"beside one that pipelines without end, {ratio:.1f} times{verdict(ratio, TARGET)}"
    )
    return [{"what": "p99 beside a greedy client", "server": "AsyncAPY", "ratio": ratio, "target": TARGET}]


def _percentile(process: Process) -> float:
    times = []
    with connected(process) as sock:
        for _ in range(REPLIES):
            began = time.perf_counter()
            sock.sendall(FRAMES.request)
            data = b""
            while not FRAMES.split(data)[0]:
                data += sock.recv(4096)
            times.append(time.perf_counter() - began)
    return statistics.quantiles(times, n=100)[98]


def _pipeline(sock: socket.socket) -> None:
    try:
        while True:
            sock.sendall(FRAMES.request * 500)
    except OSError:
        return


def _swallow(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:
        return
