"""Measure the cost of a byte in an echo of 1 MiB and of 128 KiB, and the copies of it if `perf` is installed."""

from __future__ import annotations

import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load import Load, Protocol, resized, run
from processes import Process
from rounds import verdict

MEBI = 1024 * 1024
SMALLER = 8
"""The ratio of the two sizes. A byte should cost the same in both packets."""

COPIES = 6
"""The limit of copies in memory of a packet on its way in, and on its way out, including the kernel's own."""

LINEAR = 1.6
"""The limit of the cost of a byte in the large packet relative to the small one, whose buffers stay in the cache."""

COPYING = re.compile(r"^ +([0-9.]+)%.*(?:memmove|memcpy|_copy_from_iter|_copy_to_iter|copy_user)", re.MULTILINE)


def measure_large(process: Process, protocols: tuple[Protocol, Protocol], rounds: int) -> list[dict[str, Any]]:
    """Print and return the CPU time of an echo of 1 MiB, its ratio to that of 128 KiB per byte, and the copies."""
    rows = []
    print("\n1 packet of 1 MiB, echoed")
    for protocol in protocols:
        whole, part = [], []
        for _ in range(rounds):
            whole.append(_cost(process, protocol))
            part.append(_cost(process, resized(protocol, MEBI // SMALLER)) * SMALLER)
        cpu = statistics.median(whole)
        linear = statistics.median(all_ / parts for all_, parts in zip(whole, part, strict=True))
        copies = _copies_each_way(process, protocol)
        print(
            f"  {protocol.name:8} {cpu * 1e6:6.0f} us CPU   per byte {linear:.2f} times that of 128 KiB"
            f"{verdict(linear, LINEAR)}",
            end="",
        )
        print("" if copies is None else f"   {copies:.1f} copies each way{verdict(copies, COPIES)}")
        rows.append({"what": "1 MiB", "server": protocol.name, "us": cpu * 1e6, "linear": linear, "copies": copies})
    return rows


def _cost(process: Process, protocol: Protocol, seconds: float = 0.2) -> float:
    return run(process, protocol, Load("", 1, 1), seconds).cpu / 1e6


def _copies_each_way(process: Process, protocol: Protocol) -> float | None:
    """Return the time that the server spends on copying memory, divided by that of one copy; None without `perf`."""
    if shutil.which("perf") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder, "perf.data")
        with _recording(process, recorded):
            cost = _cost(process, protocol, 1.0)
        command = ["perf", "report", "-i", str(recorded), "--no-children", "--sort", "symbol", "-g", "none"]
        report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    share = sum(float(percent) for percent in COPYING.findall(report)) / 100
    return share * cost / _copy_seconds() / 2 if share else None


@contextmanager
def _recording(process: Process, path: Path) -> Iterator[None]:
    command = ["perf", "record", "-e", "cpu-clock", "-F", "5000", "-o", str(path), "-p", str(process.pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recorder:
        time.sleep(0.5)  # perf does not report that it has begun
        yield
        recorder.send_signal(signal.SIGINT)


def _copy_seconds() -> float:
    """Return the seconds for copying 1 MiB that is in no cache, as received data is not."""
    buffers = [bytearray(MEBI) for _ in range(64)]
    count = 4 * len(buffers)
    started = time.perf_counter()
    for turn in range(count):
        buffers[turn % 64][:] = buffers[(turn + 32) % 64]
    return (time.perf_counter() - started) / count
