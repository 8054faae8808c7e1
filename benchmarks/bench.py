"""Server CPU a request, ours and others', in one interleaved run: `make bench`, or `make bench-quick`.

Each server is a program of a few lines in ``servers/``, which says what it does; it runs in one process on core 0, the
load on core 1. Rounds of all servers follow one another, and the medians of their ratios are shown with the spread, so
that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import FRAMES, HTTP, Load, Protocol, run

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peer:
    """A server program, what it speaks, and whether it needs the environment of the others."""

    name: str
    program: str
    protocol: Protocol
    foreign: bool = False


OURS = Peer("AsyncAPY", "asyncapy_echo.py", FRAMES)
PEERS = [
    OURS,
    Peer("bare trio", "trio_echo.py", FRAMES),
    Peer("uvicorn, bare ASGI", "asgi_echo.py", HTTP, foreign=True),
    Peer("FastAPI", "fastapi_echo.py", HTTP, foreign=True),
]
LOADS = [
    Load("32 connections, 1 in flight", 32, 1, 12_000),
    Load("4 connections, 32 in flight", 4, 32, 24_000),
    Load("1 connection, 1 in flight", 1, 1, 4_000),
    Load("a new connection for each request", 1, 1, 1_500, reconnect=True),
]
TARGETS = {
    ("32 connections, 1 in flight", "bare trio"): 0.85,
    ("32 connections, 1 in flight", "uvicorn, bare ASGI"): 0.5,
    ("32 connections, 1 in flight", "FastAPI"): 0.13,
    ("4 connections, 32 in flight", "bare trio"): 0.2,
    ("1 connection, 1 in flight", "bare trio"): 1.25,
    ("a new connection for each request", "bare trio"): 2.0,
}
BY_LATENCY = "1 connection, 1 in flight"
"""The load that is judged by the median time of a reply; all others are judged by the server's CPU."""


@dataclass(frozen=True)
class Sample:
    """One round: microseconds of server CPU a request, and of the median reply."""

    cpu: float
    latency: float


@contextmanager
def serving(peer: Peer, python: str) -> Iterator[tuple[int, int]]:
    """Run a server on core 0; give its process id and its port."""
    command = [python, str(HERE / "servers" / peer.program)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_on_core_0) as process:  # noqa: PLW1509  # no thread runs yet that could hold a lock
        try:
            assert process.stderr is not None
            found = None
            while found is None:
                line = process.stderr.readline()
                if not line:
                    sys.exit(f"{peer.program} did not start")
                found = re.search(r"Serving on 127\.0\.0\.1:(\d+)", line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process.pid, int(found[1])
        finally:
            process.kill()


def _on_core_0() -> None:
    pin(0)


def pin(core: int) -> None:
    """Keep this process on one core, where there are two."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(servers: dict[str, tuple[int, int]], peers: list[Peer], load: Load) -> dict[str, Sample]:
    """One round of one load over all servers."""
    samples = {}
    for peer in peers:
        if load.in_flight > 1 and peer.protocol is HTTP:
            continue  # their pipelining is of no use to anyone
        pid, port = servers[peer.name]
        before = cpu_seconds(pid)
        latency = run(port, peer.protocol, load)
        used = cpu_seconds(pid) - before
        samples[peer.name] = Sample(used / load.requests * 1e6, latency * 1e6)
    return samples


def report(load: Load, rounds: list[dict[str, Sample]]) -> list[dict[str, Any]]:
    """Print a load's figures and return them."""
    rows = []
    print(f"\n{load.title}")
    for name in rounds[0]:
        cpu = statistics.median(each[name].cpu for each in rounds)
        latency = statistics.median(each[name].latency for each in rounds)
        measured = "latency" if load.title == BY_LATENCY else "cpu"
        ratios = sorted(getattr(each[OURS.name], measured) / getattr(each[name], measured) for each in rounds)
        ratio = statistics.median(ratios)
        target = TARGETS.get((load.title, name))
        verdict = "" if target is None else f"  at most {target}: {'met' if ratio <= target else 'MISSED'}"
        print(
            f"  {name:20} {cpu:7.1f} us CPU  {latency:8.1f} us p50   ours/theirs {ratio:5.2f}"
            f" ({ratios[0]:.2f} to {ratios[-1]:.2f}){verdict}"
        )
        rows.append(
            {"load": load.title, "server": name, "cpu_us": cpu, "p50_us": latency, "ratio": ratio, "target": target}
        )
    return rows


def main() -> None:
    """Start the servers, run the rounds, print and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="bare trio only, 5 rounds")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has FastAPI and uvicorn")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if not (options.quick and peer.foreign)]
    rows = []
    with ExitStack() as stack:
        servers = {
            peer.name: stack.enter_context(serving(peer, options.peers_python if peer.foreign else sys.executable))
            for peer in peers
        }
        pin(1)
        for load in LOADS:
            rounds = [measure(servers, peers, load) for _ in range(5 if options.quick else options.rounds)]
            rows += report(load, rounds)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    results = HERE / "results" / ("quick.json" if options.quick else "full.json")
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"\nWritten to {results.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
