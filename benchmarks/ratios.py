"""`measure_ratio`: the CPU time of a request to one process of a server, relative to another one.

Both are started several times, as two processes of one program differ by some per cent.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from load import Load
from rounds import verdict

PROGRAM: Final = Path(__file__).parent / "servers" / "asyncapy_echo.py"
LOAD: Final = Load("", 4, 32)


def measure_ratio(
    what: str, title: str, target: float, starts: int, ratio: Callable[[], float]
) -> list[dict[str, Any]]:
    """Print and return the median of some ratios.

    Args:
        what: the name of the row.
        title: the line to print, with ``{}`` in the place of the ratio.
        target: the limit of the ratio.
        starts: how often both processes are started.
        ratio: starts both, and returns the median of the ratios of some rounds.
    """
    medians = sorted(ratio() for _ in range(starts))
    median = statistics.median(medians)
    shown = f"({medians[0]:.2f} to {medians[-1]:.2f}){verdict(median, target)}"
    print(f"\n{title.format(f'{median:.2f}')} {shown}")
    spread = [medians[0], medians[-1]]
    return [{"what": what, "server": "AsyncAPY", "ratio": median, "spread": spread, "target": target}]
