"""`Outcomes`: the counters of one handler. `asyncapy_core.statistics` has their values at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from asyncapy_core.statistics import Durations

SUCCEEDED: Final = "ok"
"""The outcome of a request whose handler has not failed."""

DISCONNECTED: Final = "disconnected"
"""The outcome of a request whose client has left before its handler could answer."""

CANCELLED: Final = "cancelled"
"""The outcome of a request of version 23 that its client has cancelled."""

OTHER: Final = "other"
"""Takes the place of further outcomes, if a handler has more than `MAX_OUTCOMES`."""

MAX_OUTCOMES: Final = 64
"""The most outcomes of one handler: the codes of failures may be any text."""

_TOTAL: Final = 64
"""The index of the sum of durations in a histogram. At a lower index n, a histogram has the number of durations of less
than 2 to the n nanoseconds, and at least half of it. A plain list, as this is on the packet path."""


class Outcomes:
    """The counters of one handler.

    Attributes:
        succeeded: the number of requests that have succeeded.
    """

    __slots__ = ("_durations", "_others", "succeeded")

    def __init__(self) -> None:
        self.succeeded: int = 0
        self._others: dict[str, int] = {}
        self._durations: dict[str, list[int]] = {}

    def count(self, outcome: str) -> None:
        """Count a request."""
        if outcome == SUCCEEDED:
            self.succeeded += 1
        else:
            increase(self._others, outcome)

    def measure(self, outcome: str, nanoseconds: int) -> None:
        """Note the duration of a request, after it was counted."""
        histogram = self._durations.get(outcome) or self._histogram(outcome)
        histogram[nanoseconds.bit_length()] += 1
        histogram[_TOTAL] += nanoseconds

    def _histogram(self, outcome: str) -> list[int]:
        name = outcome if outcome == SUCCEEDED or outcome in self._others else OTHER
        return self._durations.setdefault(name, [0] * (_TOTAL + 1))

    def counts(self) -> Mapping[str, int]:
        """Return the number of requests by outcome, without outcomes that no request had."""
        return MappingProxyType({**({SUCCEEDED: self.succeeded} if self.succeeded else {}), **self._others})

    def durations(self) -> Mapping[str, Durations]:
        """Return the durations of requests by outcome."""
        return MappingProxyType({name: _read(histogram) for name, histogram in self._durations.items()})


def _read(histogram: list[int]) -> Durations:
    *numbers, total = histogram
    buckets = {2**index / 1e9: number for index, number in enumerate(numbers) if number}
    return Durations(sum(numbers), total / 1e9, MappingProxyType(buckets))


def increase(counts: dict[str, int], name: str) -> None:
    """Count an outcome; further ones than `MAX_OUTCOMES` are counted as `OTHER`."""
    name = str(name)
    if name not in counts and len(counts) >= MAX_OUTCOMES:
        name = OTHER
    counts[name] = counts.get(name, 0) + 1
