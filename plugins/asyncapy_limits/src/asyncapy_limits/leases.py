"""`SharedWindow`: counts the packets of each subject against limits, together with other servers."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_limits import scripts
from asyncapy_limits.batching import Batcher
from asyncapy_limits.limit import Limit
from asyncapy_limits.stores import StoreUnavailable
from asyncapy_limits.subject import digest
from asyncapy_limits.subjects import Subjects

if TYPE_CHECKING:
    from asyncapy_limits.store import Command

FEWEST: Final = 100
"""The packets of a limit for each server, in a period, from which on leases are taken."""

PART: Final = 20
"""All servers together hold leases of at most one in so many packets of a limit, which is 5 %."""


class SharedWindow:
    """Counts packets as `asyncapy_limits.window.Window`, in a store, in one run of trio.

    A subject has a lease: packets that the store has counted in advance. It is renewed in the background when half of
    it is used. All servers together hold leases of at most 5 % of a limit, so that in a period at most 5 % too many
    packets pass, or 5 % too few. If a limit has fewer than 100 packets for each server, nothing is counted in advance:
    each packet waits for the store, and the limits are exact.

    When the store has named the time at which a packet may pass, it is not asked before.

    Args:
        limits: the limits.
        name: the beginning of the names in the store, without its prefix.
        most: the most subjects.
        batcher: asks the store.
    """

    def __init__(self, limits: Sequence[Limit], name: str, most: int, batcher: Batcher) -> None:
        self.terms: tuple[int, ...] = tuple(term for limit in limits for term in (limit.count, limit.period))
        self.period: int = max(limit.period for limit in limits)
        self.batcher = batcher
        self._name = name
        self._fewest = min(limit.count for limit in limits)
        self._leases: Subjects[_Lease] = Subjects(most, self.period)
        batcher.keep(self.period)

    @property
    def size(self) -> int:
        """The packets of a lease; 0 if each packet has to ask the store."""
        servers = self.batcher.servers
        return self._fewest // (PART * servers) if 0 < servers * FEWEST <= self._fewest else 0

    async def take(self, subject: Hashable) -> float:
        """Count a packet, and return 0; or count nothing, and return the seconds until a packet may pass.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        now = trio.current_time()
        lease = self._leases.find(subject, now)
        if lease is None:
            lease = _Lease(self, f"{self._name}:{digest(subject)}")
            self._leases.add(subject, lease, now)
        return await lease.take()

    def __len__(self) -> int:
        """The number of subjects in memory."""
        return len(self._leases)


class _Lease:
    """The packets of a subject that may pass without a question. It is a `Question` for more of them."""

    __slots__ = ("_asking", "_expires", "_key", "_packets", "_refused_until", "_waiting", "_window")

    def __init__(self, window: SharedWindow, key: str) -> None:
        self._window = window
        self._key = key
        self._packets = 0
        self._expires = 0.0
        self._refused_until = 0.0
        self._waiting = 0
        self._asking: _Asking | None = None

    async def take(self) -> float:
        while True:
            now = trio.current_time()
            if self._packets and now < self._expires:
                self._packets -= 1
                self._renew(now)
                return 0.0
            if now < self._refused_until:
                return self._refused_until - now
            await self._wait()

    def command(self) -> Command:
        wanted = self._waiting + max(0, self._window.size - self._packets)
        key = f"{self._window.batcher.prefix}:{self._key}"
        return ("EVAL", scripts.TAKE, 1, key, wanted, *self._window.terms)

    def answer(self, reply: Any, asked: float) -> None:
        granted = int(reply[0])
        if granted:
            self._packets = granted + (self._packets if asked < self._expires else 0)
            self._expires = asked + self._window.period
        else:
            self._refused_until = asked + float(reply[1])
        self._end(None)

    def fail(self, error: StoreUnavailable) -> None:
        self._end(error)

    def _renew(self, now: float) -> None:
        """Ask for more packets in the background if half of the lease is used."""
        window = self._window
        size = window.size
        if size and self._packets * 2 <= size and self._asking is None and now >= self._refused_until:
            with contextlib.suppress(StoreUnavailable):  # packets that need an answer notice it
                self._ask()

    def _ask(self) -> _Asking:
        self._window.batcher.ask(self)
        self._asking = _Asking()
        return self._asking

    async def _wait(self) -> None:
        """Wait for the answer to the question under way, or to a new one."""
        asking = self._asking or self._ask()
        self._waiting += 1
        try:
            await asking.ended.wait()
        finally:
            self._waiting -= 1
        if asking.error is not None:
            raise StoreUnavailable(str(asking.error)) from asking.error

    def _end(self, error: StoreUnavailable | None) -> None:
        asking, self._asking = self._asking, None
        assert asking is not None
        asking.error = error
        asking.ended.set()


class _Asking:
    """A question under way."""

    __slots__ = ("ended", "error")

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.error: StoreUnavailable | None = None
