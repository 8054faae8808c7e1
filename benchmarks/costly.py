"""Measure the CPU time that the costliest packets of 1 MiB take to be decoded and encoded again.

The packets are those of the fuzz target ``costs``, whose search found them.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rounds import verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzz"))

from costs import CORPUS, FORMS, LIMIT, cpu_seconds, echo

SLOW_NUMBERS = 1.5
"""The limit for numbers that msgspec converts slowly, relative to `json.loads`."""

SHOWN = 5


def measure_costly() -> list[dict[str, Any]]:
    """Print and return milliseconds of CPU, and the ratio for numbers that msgspec converts slowly."""
    items = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
    costs = {
        f"{name}, {codec.name}": cpu_seconds(partial(echo, codec, form(item)))
        for name, item in items.items()
        for codec, form in FORMS
    }
    rows: list[dict[str, Any]] = []
    print("\nthe costliest packets of 1 MiB, decoded and encoded")
    for name in sorted(costs, key=lambda name: -costs[name])[:SHOWN]:
        print(f"  {name:28} {costs[name] * 1e3:6.1f} ms of CPU{verdict(costs[name] * 1e3, LIMIT * 1e3)}")
        rows.append({"what": "costly packet", "server": name, "ms": costs[name] * 1e3, "target": LIMIT * 1e3})
    codec, form = FORMS[0]
    payload = form(items["large-floats"])
    ratio = costs["large-floats, json"] / cpu_seconds(partial(json.loads, payload))
    print(f"  {'large-floats':28} {ratio:6.2f} times json.loads{verdict(ratio, SLOW_NUMBERS)}")
    rows.append({"what": "large floats", "server": codec.name, "ratio": ratio, "target": SLOW_NUMBERS})
    return rows
