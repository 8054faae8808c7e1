"""`Outcomes`, the counters of one handler, and `HandlerStatistics`, their values at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations of requests, counted in buckets.

    Attributes:
        count: the number of requests.
        total: the sum of their durations, in seconds.
        buckets: the number of requests by the upper bound of their duration, in seconds. The bounds are nanoseconds
            times a power of two; a request is in one bucket, and buckets without a request are left out.
    """

    count: int
    total: float
    buckets: Mapping[float, int]

    def quantile(self, fraction: float) -> float:
        """Return a duration in seconds that is not exceeded by this fraction of the requests; 0 without requests.

        Args:
            fraction: 0 to 1; 0.5 for the median. The result is the bound of a bucket, up to twice the exact value.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is 0 to 1, such as 0.99; got {fraction!r}")
        left = self.count * fraction
        for bound, number in self.buckets.items():
            left -= number
            if left <= 0:
                return bound
        return 0.0


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """The requests of one handler.

    Attributes:
        name: the name of its function.
        group: its group.
        outcomes: the number of its requests by outcome: ``"ok"``, the code of a failure, or ``"disconnected"`` for a
            client that left before it could be answered. A packet for handlers of several groups counts for the last
            one.
        durations: the durations of these requests by outcome, if ``measure`` is set, from the search for a handler to
            its end.
    """

    name: str
    group: int
    outcomes: Mapping[str, int]
    durations: Mapping[str, Durations]

    @property
    def requests(self) -> int:
        """The number of requests."""
        return sum(self.outcomes.values())


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
