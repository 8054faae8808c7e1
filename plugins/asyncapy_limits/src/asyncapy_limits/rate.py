"""`Rate`, the filter that limits packets."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Hashable
from typing import Any, Final

import trio

from asyncapy_core import Client, Failure, Filter, Packet
from asyncapy_core.errors import ErrorCode
from asyncapy_limits.limit import parse_limits
from asyncapy_limits.sharing import Sharing
from asyncapy_limits.stores import StoreUnavailable
from asyncapy_limits.subject import By, is_async, name_of, subject_function
from asyncapy_limits.window import Window

MOST_SUBJECTS: Final = 100_000
"""The most subjects of one filter, unless it has its own number."""


class Rate(Filter):
    """Passes packets up to a rate. A packet beyond it is answered with ERR_RATE_LIMITED and ``retry_after``.

    All limits must hold. A packet that is refused counts for none of them, and a packet that is checked several times
    by one `Rate` counts once. One `Rate` that several handlers or servers share counts together; two of them count
    apart. In memory, it counts in one run of trio at a time.

    The packets are counted by the generic cell rate algorithm, see `asyncapy_limits.window.Window`: after a pause,
    ``100/second`` passes 100 packets at once, then one every 10 milliseconds.

    Args:
        limits: such as ``"100/second; 5000/hour"`` or ``"20/10 seconds"``: packets for a ``second``, ``minute``,
            ``hour`` or ``day``, or a number of these.
        by: the subject of the limits. ``"address"``: each IPv4 address, and each /64 network of IPv6; all peers of a
            Unix domain socket together. ``"key"``: each API key, found by a `Filters.APIFactory` before this filter.
            Or a function of client and packet, plain or ``async``, which returns a subject with a hash; a packet for
            which it returns None is not limited.
        max_subjects: the most subjects in memory, each of about 250 bytes. If there are more, those that were not seen
            for the longest time are forgotten, and may send as if they were new.
        shared: the name under which servers count together, in a store. Each packet then waits for the store; of
            limits of at least 100 packets for each server, only few do, see `asyncapy_limits.leases.SharedWindow`.
            Subjects are compared by their ``repr()``.
        store: the URL of the store, a Redis or Valkey, such as ``"redis://localhost"``. Without it, the store is the
            option ``store`` of the plugin.
        fail_open: whether packets pass that cannot be counted in the store: then each server counts by itself, in
            memory. Otherwise they are answered with ERR_UNAVAILABLE.

    Raises:
        TypeError: an argument is of another type.
        ValueError: the limits or ``by`` have another form, or a number is out of range. A ConfigError is one, too: the
            URL is wrong, or redis-py is not installed.
    """

    def __init__(
        self,
        limits: str,
        by: By = "address",
        *,
        max_subjects: int = MOST_SUBJECTS,
        shared: str | None = None,
        store: str | None = None,
        fail_open: bool = True,
    ) -> None:
        self.limits: str = limits
        self.shared: str | None = _checked_name(shared, store)
        self._by = by
        self._subject: Any = subject_function(by)
        self._is_async = is_async(self._subject)
        self._window = Window(parse_limits(limits), _checked_number(max_subjects))
        self._take = self._window.take
        if shared is not None:
            self._sharing = Sharing(parse_limits(limits), shared, max_subjects, store)
            self._fail_open = fail_open
            self.check = self._check_shared  # type: ignore[method-assign]  # decided once, not for each packet
        elif self._is_async:
            self.check = self._check_async  # type: ignore[method-assign]  # as above

    @property
    def needs_store(self) -> bool:
        """Whether the servers that use this filter need the option ``store`` of the plugin."""
        return self.shared is not None and self._sharing.needs_store

    def schema(self) -> dict[str, Any]:
        """Return a schema of any packet, with the codes of the failures."""
        errors = [ErrorCode.RATE_LIMITED.value]
        if self.shared is not None and not self._fail_open:
            errors.append(ErrorCode.UNAVAILABLE.value)
        return {"x-errors": errors}

    def check(self, c: Client, p: Packet) -> bool | Awaitable[bool]:
        """Return True, or raise a `Failure` for a packet beyond a limit."""
        memo = p.memo
        if self not in memo:
            subject = self._subject(c, p)
            if subject is not None and (wait := self._take(subject, trio.current_time())):  # `_count`, without its call
                raise limited(wait)
            memo[self] = True
        return True

    async def _check_async(self, c: Client, p: Packet) -> bool:
        memo = p.memo
        if self not in memo:
            self._count(await self._subject(c, p))
            memo[self] = True
        return True

    async def _check_shared(self, c: Client, p: Packet) -> bool:
        memo = p.memo
        if self not in memo:
            subject: Hashable = self._subject(c, p)
            if self._is_async:
                subject = await subject  # type: ignore[misc]  # of an async function
            await self._count_shared(c, subject)
            memo[self] = True
        return True

    def _count(self, subject: Hashable) -> None:
        if subject is not None:
            wait = self._window.take(subject, trio.current_time())
            if wait:
                raise limited(wait)

    async def _count_shared(self, client: Client, subject: Hashable) -> None:
        if subject is None:
            return
        try:
            wait = await self._sharing.take(client.server, subject)
        except StoreUnavailable as error:
            if not self._fail_open:
                raise Failure(ErrorCode.UNAVAILABLE) from error
            self._count(subject)
            return
        if wait:
            raise limited(wait)

    def __repr__(self) -> str:
        shared = "" if self.shared is None else f", shared={self.shared!r}"
        return f"Rate({self.limits!r}, by={name_of(self._by)}{shared})"


def limited(wait: float) -> Failure:
    """Return the failure for a packet that may pass after some seconds, which are rounded up to milliseconds."""
    return Failure(ErrorCode.RATE_LIMITED, retry_after=max(1, math.ceil(wait * 1000)) / 1000)


def _checked_name(shared: str | None, store: str | None) -> str | None:
    if shared is None:
        if store is not None:
            raise ValueError("Filters.Rate(store=...): give shared='NAME' too, under which servers count together")
        return None
    if not isinstance(shared, str):
        raise TypeError(f"Filters.Rate(shared={shared!r}): give a text, the name under which servers count together")
    if not shared:
        raise ValueError("Filters.Rate(shared=''): give a name, under which servers count together")
    return shared


def _checked_number(most: int) -> int:
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"Filters.Rate(max_subjects={most!r}): it must be a whole number, 2 or more")
    if most < 2:
        raise ValueError(f"Filters.Rate(max_subjects={most}): it must be 2 or more")
    return most
