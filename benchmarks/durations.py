"""Measure the CPU time of a request with ``measure`` set, relative to one without.

Both servers are started several times, as two processes of one program differ by some per cent.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from load import FRAMES, Load, run
from processes import serving
from rounds import SECONDS, verdict

PROGRAM = Path(__file__).parent / "servers" / "asyncapy_echo.py"
LOAD = Load("", 4, 32)
TARGET = 1.15


def measure_durations(starts: int, rounds: int) -> list[dict[str, Any]]:
    """Print and return the ratio."""
    medians = sorted(_ratio(rounds) for _ in range(starts))
    ratio = statistics.median(medians)
    print(
        f"\na request with measure=True, 4 connections, 32 in flight: {ratio:.2f} times one without"
        f" ({medians[0]:.2f} to {medians[-1]:.2f}){verdict(ratio, TARGET)}"
    )
    spread = [medians[0], medians[-1]]
    return [{"what": "durations", "server": "AsyncAPY", "ratio": ratio, "spread": spread, "target": TARGET}]


def _ratio(rounds: int) -> float:
    """Return the median of the ratios of some rounds, for two processes."""
    with (
        serving(PROGRAM, sys.executable, tls=False) as plain,
        serving(PROGRAM, sys.executable, tls=False, environment={"ASYNCAPY_MEASURE": "true"}) as measuring,
    ):
        return statistics.median(
            run(measuring, FRAMES, LOAD, SECONDS).cpu / run(plain, FRAMES, LOAD, SECONDS).cpu for _ in range(rounds)
        )
