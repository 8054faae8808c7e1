"""Contests: one load on several servers in interleaved rounds, judged by the ratios within each round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from load import Load, run
from processes import Peer, Process


@dataclass(frozen=True)
class Contest:
    """A load, our server, and the servers to compare it with, each with the limit of the ratio.

    Attributes:
        latency: judge by the median latency instead of the server's CPU time per request.
    """

    load: Load
    ours: Peer
    others: dict[Peer, float | None]
    latency: bool = False

    @property
    def peers(self) -> list[Peer]:
        """All servers that take part."""
        return [self.ours, *self.others]

    def at_home(self) -> Contest:
        """Return the contest without the foreign servers, which need an environment of their own."""
        return replace(self, others={peer: most for peer, most in self.others.items() if not peer.foreign})


SECONDS: Final = 0.25
"""Seconds for which each server is measured in a round. They are few, as the speed of the machine changes over time."""


def hold(
    contest: Contest, servers: dict[Peer, Process], count: int, before_each: Callable[[], object] = lambda: None
) -> list[dict[str, Any]]:
    """Run the rounds, print the figures and return them; ``before_each`` is called before each round."""
    rounds = []
    for _ in range(count):
        before_each()
        rounds.append({peer: run(servers[peer], peer.protocol, contest.load, SECONDS) for peer in contest.peers})
    measured = "latency" if contest.latency else "cpu"
    print(f"\n{contest.load.title}{', by latency' if contest.latency else ''}")
    rows = []
    for peer in contest.peers:
        cpu = statistics.median(each[peer].cpu for each in rounds)
        latencies = [value for each in rounds if (value := each[peer].latency) is not None]
        latency = statistics.median(latencies) if latencies else None
        told = f"{latency:8.1f} us p50" if latency is not None else " " * 15
        ratios = sorted(getattr(each[contest.ours], measured) / getattr(each[peer], measured) for each in rounds)
        ratio, target = statistics.median(ratios), contest.others.get(peer)
        print(
            f"  {peer.name:22} {cpu:7.1f} us CPU  {told}   ours/theirs {ratio:5.2f}"
            f" ({ratios[0]:.2f} to {ratios[-1]:.2f}){verdict(ratio, target)}"
        )
        rows.append(
            {
                "what": contest.load.title,
                "server": peer.name,
                "cpu_us": cpu,
                "p50_us": latency,
                "ratio": ratio,
                "spread": [ratios[0], ratios[-1]],
                "target": target,
            }
        )
    return rows


def verdict(value: float, target: float | None) -> str:
    """Return whether a figure is within its limit, as text."""
    if target is None:
        return ""
    return f"  at most {target:g}: {'met' if value <= target else 'MISSED'}"
