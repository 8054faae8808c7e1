"""`Window`: counts the packets of each subject against limits, in memory."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Final

from asyncapy_limits.limit import Limit
from asyncapy_limits.subjects import Subjects

SLACK: Final = 1e-3
"""The part of a packet by which a limit may be exceeded, so that rounding refuses nobody who has waited."""


class Window:
    """Counts packets by the generic cell rate algorithm, in its form as a leaky bucket (ITU-T I.371, annex A).

    Each limit has a level for each subject. A packet adds 1, and the level falls by ``count`` in each ``period``. A
    packet passes if no level would be above ``count``. So ``count`` packets may come at once, then one in each
    ``period / count``: never more than ``2 * count`` in any period, and ``count`` in each on average. A packet that is
    refused changes nothing.

    Args:
        limits: the limits, all of which must hold.
        most: the most subjects. If there are more, those that were not seen for the longest time are forgotten, and may
            send as if they were new.
    """

    __slots__ = ("_subjects", "_terms")

    def __init__(self, limits: Sequence[Limit], most: int) -> None:
        self._terms = tuple((index, limit.rate, limit.count - 1.0 + SLACK) for index, limit in enumerate(limits, 1))
        self._subjects: Subjects[list[float]] = Subjects(most, max(limit.period for limit in limits))

    def take(self, subject: Hashable, now: float) -> float:
        """Count a packet, and return 0; or count nothing, and return the seconds until a packet may pass.

        Args:
            subject: the subject.
            now: the time of trio's clock.
        """
        entry = self._subjects.find(subject, now)
        if entry is None:
            self._subjects.add(subject, [now, *(1.0 for _ in self._terms)], now)
            return 0.0
        elapsed = now - entry[0]
        if elapsed < 0:  # the entry is that of another run of trio, whose clock was ahead
            elapsed = math.inf
        entry[0] = now
        for index, rate, most in self._terms:
            level = entry[index] - elapsed * rate
            if level > most:
                return self._refuse(entry, index, elapsed)
            entry[index] = level + 1.0 if level > 0.0 else 1.0
        return 0.0

    def _refuse(self, entry: list[float], refusing: int, elapsed: float) -> float:
        """Remove a packet from the limits before the one that refuses it, and return the seconds to wait."""
        wait = 0.0
        for index, rate, most in self._terms:
            level = entry[index] - 1.0 if index < refusing else max(0.0, entry[index] - elapsed * rate)
            entry[index] = level
            if level > most:
                wait = max(wait, (level - most + SLACK) / rate)
        return wait

    def __len__(self) -> int:
        """The number of subjects in memory."""
        return len(self._subjects)
