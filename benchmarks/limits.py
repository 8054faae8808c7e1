"""Measure the CPU time that `Filters.Rate` takes for a packet, in memory, at 10,000 addresses: ``limits.py``."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import trio
from rounds import verdict

from asyncapy_core import Client, Packet
from asyncapy_core.routing.filter import Filter
from asyncapy_core.testing import Detached
from asyncapy_limits import Rate

LIMITS = ("1000000/second", "1000000/second; 500000000/hour")
SUBJECTS = 10_000
"""More than the CPU's caches hold."""
PEERS = {"IPv4": "10.{}.{}.1", "IPv6": "2001:db8:{:x}:{:x}::1"}
TARGET = 1.0


class Unlimited(Filter):
    """Passes all packets, to measure the call of a filter."""

    def check(self, c: Client, p: Packet) -> bool:
        return True


def measure_limits(rounds: int) -> list[dict[str, Any]]:
    """Print and return microseconds of CPU."""
    return trio.run(_measure, rounds)


async def _measure(rounds: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print("\na packet at Filters.Rate, in memory, in excess of a filter that passes everything")
    for family, pattern in PEERS.items():
        clients = [Detached(pattern.format(*divmod(number, 256))).client for number in range(SUBJECTS)]
        for text in LIMITS:
            spent = [_microseconds(Rate(text), clients) - _microseconds(Unlimited(), clients) for _ in range(rounds)]
            value = statistics.median(spent)
            print(
                f"  {family}, {text:32} {value:5.2f} µs ({min(spent):.2f} to {max(spent):.2f}){verdict(value, TARGET)}"
            )
            rows.append({"what": "rate limit", "server": f"{family}, {text}", "us": value, "target": TARGET})
    return rows


def _microseconds(filter: Filter, clients: Sequence[Client]) -> float:
    """Return the CPU time of a check, with a new packet for each, after one check for each client."""
    packets = [Packet({}) for _ in clients]
    for client in clients:
        filter.check(client, Packet({}))
    check = filter.check
    began = time.process_time()
    for client, packet in zip(clients, packets, strict=True):
        check(client, packet)
    return (time.process_time() - began) / len(clients) * 1e6


if __name__ == "__main__":
    failed = [row for row in measure_limits(25) if row["us"] > row["target"]]
    sys.exit(bool(failed))
