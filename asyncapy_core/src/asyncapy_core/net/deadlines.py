"""Deadlines of equal length for many holders, kept by one task instead of a cancel scope for each wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls ``expired(holder)`` for each holder that was started ``period`` seconds ago and not stopped since.

    All deadlines are equally long: the first to start is the first to expire, and one that starts while the task sleeps
    expires after the task wakes. So starting and stopping cost no wake-up.
    """

    __slots__ = ("_due", "_expired", "period")

    def __init__(self, period: float, expired: Callable[[T], None]) -> None:
        self.period: float = period
        self._expired = expired
        self._due: OrderedDict[T, float] = OrderedDict()

    def start(self, holder: T) -> None:
        """Start a deadline of ``period`` seconds; a holder with a deadline keeps it."""
        if holder not in self._due:
            self._due[holder] = trio.current_time() + self.period

    def stop(self, holder: T) -> None:
        """Stop the deadline of a holder, if it has one."""
        self._due.pop(holder, None)

    def shorten(self, period: float) -> None:
        """Shorten the period, and restart the running deadlines. Start another task of `run` afterwards."""
        self.period = min(period, self.period)
        for holder in self.stop_all():
            self.start(holder)

    def stop_all(self) -> list[T]:
        """Stop all deadlines, and return their holders."""
        holders = list(self._due)
        self._due.clear()
        return holders

    def __contains__(self, holder: T) -> bool:
        return holder in self._due

    def __len__(self) -> int:
        return len(self._due)

    async def run(self) -> None:
        """Watch the deadlines until cancelled."""
        while True:
            next_check = self._expire_due()
            await trio.sleep_until(next_check)

    def _expire_due(self) -> float:
        """Expire the holders whose time has come; return the time of the next check. Keeps no holder referenced."""
        now = trio.current_time()
        while self._due:
            holder, due = next(iter(self._due.items()))
            if due > now:
                return due
            del self._due[holder]
            self._expired(holder)
        return now + self.period
