"""Measure the cost of a request on AsyncAPY and on other servers: `make bench`, or the shorter `make bench-quick`.

Each server is a short program in ``servers/``, described by its docstring. It runs in one process on core 0, the load
on core 1. The rounds of all servers are interleaved, so that other load on the machine affects all of them alike; the
medians of their ratios are printed with the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from costly import measure_costly
from durations import measure_durations
from idle import measure_idle
from imports import measure_imports
from large import measure_large
from limits import measure_limits
from load import FRAMES, HTTP, LARGE_JSON, LARGE_ZIPROTO, MAP_JSON, MAP_ZIPROTO, Load
from metrics import measure_metrics
from neighbours import measure_neighbours
from numbered import REQUESTS, measure_numbered
from operations import measure_operations
from plot import draw
from processes import Peer, certificates, pin, serving
from pushes import measure_pushes
from rounds import Contest, hold
from typed import measure_typed

HERE = Path(__file__).parent

OURS = Peer("AsyncAPY", "asyncapy_echo.py", FRAMES)
TRIO = Peer("bare trio", "trio_echo.py", FRAMES)
UVICORN = Peer("uvicorn, bare ASGI", "asgi_echo.py", HTTP, foreign=True)
FASTAPI = Peer("FastAPI", "fastapi_echo.py", HTTP, foreign=True)
OURS_TLS = Peer("AsyncAPY, TLS", "asyncapy_echo.py", FRAMES, tls=True)
TRIO_TLS = Peer("bare trio, SSLStream", "trio_echo.py", FRAMES, tls=True)
OURS_JSON = Peer("AsyncAPY, JSON map", "asyncapy_echo.py", MAP_JSON)
OURS_ZIPROTO = Peer("AsyncAPY, ZiProto map", "asyncapy_echo.py", MAP_ZIPROTO)

MANY = Load("32 connections, 1 in flight", 32, 1)
CONTESTS = [
    Contest(MANY, OURS, {TRIO: 0.85, UVICORN: 0.5, FASTAPI: 0.13}),
    Contest(Load("4 connections, 32 in flight", 4, 32), OURS, {TRIO: 0.22, UVICORN: None, FASTAPI: None}),
    Contest(Load("1 connection, 1 in flight", 1, 1), OURS, {TRIO: 1.25, UVICORN: None, FASTAPI: None}, latency=True),
    Contest(
        Load("a new connection for each request", 1, 1, reconnect=True),
        OURS,
        {TRIO: 2.0, UVICORN: None, FASTAPI: None},
    ),
    Contest(Load("32 connections, TLS", 32, 1), OURS_TLS, {TRIO_TLS: 1.2}),
    Contest(Load("32 connections, a map of 110 bytes", 32, 1), OURS_ZIPROTO, {OURS_JSON: 1.0}),
]


def main() -> None:
    """Start the servers, run the rounds, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="leave out foreign servers and the long measurements")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python with FastAPI and uvicorn")
    options = parser.parse_args()
    rounds = 5 if options.quick else options.rounds
    contests = [contest.at_home() for contest in CONTESTS] if options.quick else CONTESTS
    with ExitStack() as stack:
        folder = stack.enter_context(certificates())
        servers = {}
        for peer in {peer: None for contest in contests for peer in contest.peers}:
            python = options.peers_python if peer.foreign else sys.executable
            servers[peer] = stack.enter_context(serving(HERE / "servers" / peer.program, python, peer.tls and folder))
        pin(1)
        rows: list[dict[str, Any]] = []
        for contest in contests:
            rows += hold(contest, servers, rounds)
        rows += measure_large(servers[OURS], (LARGE_JSON, LARGE_ZIPROTO), 3 if options.quick else 7)
        rows += measure_neighbours(servers[OURS], 1 if options.quick else 3)
    rows += measure_operations(rounds)
    rows += measure_numbered(rounds)
    rows += measure_durations(3 if options.quick else 7, 4)
    rows += measure_metrics(3 if options.quick else 7, 2)
    rows += measure_pushes(rounds)
    rows += measure_limits(rounds)
    rows += measure_typed(rounds)
    rows += measure_costly()
    rows += measure_imports(5)
    if not options.quick:
        REQUESTS.begin()
        program = HERE / "servers" / OURS.program
        rows += measure_idle(
            {
                OURS.name: (program, FRAMES.request * 1),
                f"{OURS.name}, version 23": (program, REQUESTS * 1),
                TRIO.name: (HERE / "servers" / TRIO.program, FRAMES.request * 1),
            }
        )
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    results = HERE / "results" / ("quick.json" if options.quick else "full.json")
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"\nWritten to {results.relative_to(HERE.parent)}")
    if not options.quick:
        draw(rows, HERE / "results" / "full.svg")


if __name__ == "__main__":
    main()
