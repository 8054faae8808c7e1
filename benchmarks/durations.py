"""Measure the CPU time of a request with ``measure`` set, relative to one without.

Both servers are started several times, as two processes of one program differ by some per cent.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from load import FRAMES, run
from processes import serving
from ratios import LOAD, PROGRAM, measure_ratio
from rounds import SECONDS

TARGET = 1.15


def measure_durations(starts: int, rounds: int) -> list[dict[str, Any]]:
    """Print and return the ratio."""
    title = "a request with measure=True, 4 connections, 32 in flight: {} times one without"
    return measure_ratio("durations", title, TARGET, starts, lambda: _ratio(rounds))


def _ratio(rounds: int) -> float:
    """Return the median of the ratios of some rounds, for two processes."""
    with (
        serving(PROGRAM, sys.executable, tls=False) as plain,
        serving(PROGRAM, sys.executable, tls=False, environment={"ASYNCAPY_MEASURE": "true"}) as measuring,
    ):
        return statistics.median(
            run(measuring, FRAMES, LOAD, SECONDS).cpu / run(plain, FRAMES, LOAD, SECONDS).cpu for _ in range(rounds)
        )
