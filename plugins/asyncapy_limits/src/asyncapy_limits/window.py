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

    __slots__ = ("_only", "_subjects", "_terms")

    def __init__(self, limits: Sequence[Limit], most: int) -> None:
        self._terms = tuple((limit.rate, limit.count - 1.0, limit.count - 1.0 + SLACK) for limit in limits)
        self._only = self._terms[0] if len(self._terms) == 1 else None  # without a loop, it takes half as long
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
        if self._only is None:
            return self._take_all(entry, elapsed, now)
        rate, room, most = self._only
        level = entry[1] - elapsed * rate
        if level > most:
            return (level - room) / rate
        entry[0], entry[1] = now, level + 1.0 if level > 0.0 else 1.0
        return 0.0

    def _take_all(self, entry: list[float], elapsed: float, now: float) -> float:
        """Do the same for several limits."""
        wait = 0.0
        levels = [now]
        for index, (rate, room, most) in enumerate(self._terms, 1):
            level = entry[index] - elapsed * rate
            if level > most:
                wait = max(wait, (level - room) / rate)
            levels.append(level + 1.0 if level > 0.0 else 1.0)
        if not wait:
            entry[:] = levels
        return wait

    def __len__(self) -> int:
        """The number of subjects in memory."""
        return len(self._subjects)
