"""Measure the CPU time of a request to a server whose plugin wraps no handler: ``wraps.py [PAIRS]``.

It is relative to a server without that plugin, in pairs of processes, as two processes of one program differ by up to
4 %. A wrap that only awaits the handler is measured, too.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from pathlib import Path

from load import FRAMES, Load, run
from processes import Peer, serving

PROGRAM = Path(__file__).parent / "servers" / "asyncapy_wraps.py"
LOADS = (Load("32 connections, 1 in flight", 32, 1), Load("4 connections, 32 in flight", 4, 32))
WRAPS = ("none", "unused", "used")
ROUNDS = 6
SECONDS = 0.25
LIMIT = 1.02


def measure_pair() -> dict[tuple[Load, str], float]:
    """Return the median ratio of each load and wrap to the same load without one, with new processes."""
    peer = Peer("AsyncAPY", PROGRAM.name, FRAMES)
    ratios: dict[tuple[Load, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        servers = {
            wrap: stack.enter_context(serving(PROGRAM, sys.executable, tls=False, environment={"WRAP": wrap}))
            for wrap in WRAPS
        }
        for _ in range(ROUNDS):
            for load in LOADS:
                cpu = {wrap: run(server, peer.protocol, load, SECONDS).cpu for wrap, server in servers.items()}
                for wrap in WRAPS[1:]:
                    ratios.setdefault((load, wrap), []).append(cpu[wrap] / cpu["none"])
    return {key: statistics.median(values) for key, values in ratios.items()}


def main() -> int:
    """Print the figures; return 1 if a wrap that is unused costs more than the limit."""
    pairs = [measure_pair() for _ in range(int(sys.argv[1]) if sys.argv[1:] else 8)]
    status = 0
    for load in LOADS:
        for wrap in WRAPS[1:]:
            found = sorted(pair[load, wrap] for pair in pairs)
            ratio = statistics.median(found)
            print(f"{load.title:30} {wrap:7} {ratio:.3f} ({found[0]:.2f} to {found[-1]:.2f})")
            status |= wrap == "unused" and ratio > LIMIT
    return status


if __name__ == "__main__":
    sys.exit(main())
