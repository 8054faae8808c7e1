"""Measure the CPU time that asyncapy-typed takes for a request, in excess of the same work by hand: ``typed.py``."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any, Final

from load import Load, operation, run
from processes import serving
from rounds import SECONDS, verdict

PROGRAM = Path(__file__).parent / "servers" / "asyncapy_models.py"
LOAD: Final = Load("", 4, 32)
PAIRS: Final = {
    "a model of pydantic": ("pydantic", "pydantic_by_hand", 0.7),
    "a struct of msgspec": ("msgspec", "msgspec_by_hand", 0.7),
    "a cached dependency": ("dependency", "usual", 3.0),
}
"""The two operations to compare, and the most microseconds of the difference."""


def measure_typed(rounds: int) -> list[dict[str, Any]]:
    """Print and return the differences, in microseconds; one process serves all operations."""
    rows: list[dict[str, Any]] = []
    print("\na request of a handler with models, 4 connections, 32 in flight, in excess of the same by hand")
    with serving(PROGRAM, sys.executable, tls=False) as process:
        for title, (ours, by_hand, target) in PAIRS.items():
            pairs = [
                [run(process, operation(name), LOAD, SECONDS).cpu for name in (ours, by_hand)] for _ in range(rounds)
            ]
            spent = sorted(own - other for own, other in pairs)
            value = statistics.median(spent)
            print(f"  {title:22} {value:5.2f} µs ({spent[0]:.2f} to {spent[-1]:.2f}){verdict(value, target)}")
            rows.append({"what": "typed", "server": title, "us": value, "target": target})
    return rows


if __name__ == "__main__":
    measure_typed(9)
