"""Measure the CPU time of a request for the last of 200 operations, relative to one for the first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from load import Load, operation
from processes import Peer, serving
from rounds import Contest, hold

PROGRAM = "asyncapy_operations.py"
FIRST = Peer("AsyncAPY, the first", PROGRAM, operation("operation_000"))
LAST = Peer("AsyncAPY, the last", PROGRAM, operation("operation_199"))
CONTEST = Contest(Load("200 operations, 4 connections, 32 in flight", 4, 32), LAST, {FIRST: 1.2})


def measure_operations(rounds: int) -> list[dict[str, Any]]:
    """Print and return the figures of both operations, which one process serves."""
    with serving(Path(__file__).parent / "servers" / PROGRAM, sys.executable, tls=False) as process:
        return hold(CONTEST, dict.fromkeys(CONTEST.peers, process), rounds)
