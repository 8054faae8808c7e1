"""`Subjects`: a value for each subject of a limit, in bounded memory.

It does not know the meaning of subjects and values.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Subjects(Generic[V]):
    """A table of values that expire if they are not used.

    It has two generations. A value that is used is in the new one. After ``seconds``, or when half of the places are
    taken, the old one is dropped and the new one becomes the old one. So a value that was not used for ``seconds`` may
    be dropped, and before that only if the table is full: then the values that were not used for the longest time go,
    and at least half of ``most`` stay.

    Args:
        most: the most values.
        seconds: the seconds after which a value that was not used means nothing.
    """

    __slots__ = ("_began", "_half", "_new", "_old", "_seconds", "_until")

    def __init__(self, most: int, seconds: float) -> None:
        self._half = most // 2
        self._seconds = seconds
        self._new: dict[Hashable, V] = {}
        self._old: dict[Hashable, V] = {}
        self._began = math.inf
        self._until = math.inf

    def find(self, subject: Hashable, now: float) -> V | None:
        """Return the value of a subject, or None.

        Args:
            subject: the subject.
            now: the time, in seconds of trio's clock. It may go back: another run of trio has another clock.
        """
        if not self._began <= now < self._until:
            self._turn(now)
        value = self._new.get(subject)
        if value is None and self._old:
            value = self._old.pop(subject, None)
            if value is not None:
                self.add(subject, value, now)
        return value

    def add(self, subject: Hashable, value: V, now: float) -> None:
        """Add the value of a subject that has none."""
        if len(self._new) >= self._half:
            self._turn(now)
        self._new[subject] = value

    def _turn(self, now: float) -> None:
        """Drop the old generation."""
        self._old, self._new = self._new, {}
        self._began, self._until = now, now + self._seconds

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
