"""A cache of key records, for stores on a disk or a network: a key in use costs no round trip.

A store that a server notifies of changes can confirm the cached records, which are then kept for longer. The cache does
not know how a store learns of changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.forking import ForkAware, watch_forks
from asyncapy_core.keys.store import KeyRecord, copied

log: logging.Logger = logging.getLogger("asyncapy.keys")

NEVER: Final = float("-inf")


class RecordCache(ForkAware):
    """The last ``size`` records read from a store, each for ``seconds`` from the start of its read.

    The start of the read, not its end, bounds the time for which a key that was revoked elsewhere still passes. Missing
    records are not cached, so a new key is never refused. Thread-safe.

    Args:
        seconds: how long a record is cached; 0 turns the cache off.
        size: the number of cached records.

    Raises:
        KeyStoreError: a number is out of its range.
    """

    def __init__(self, seconds: float, size: int = 10_000) -> None:
        if not 0 <= seconds < float("inf"):
            raise KeyStoreError(f"recall_seconds is {seconds!r}; it must be 0 or more seconds")
        if size < 1:
            raise KeyStoreError(f"a recall of {size!r} records; it must hold 1 or more")
        self.seconds = seconds
        self._size = size
        self._records: OrderedDict[str, tuple[float, KeyRecord]] = OrderedDict()
        self._confirmed = (0.0, NEVER)
        self._reads: dict[str, _Reads] = {}
        self._watchers: dict[object, Callable[[str | None], object]] = {}
        self._lock = threading.Lock()
        watch_forks(self)

    def get(self, digest: str) -> KeyRecord | None:
        """Return the cached record, or None. Do not change it."""
        cached = self._records.get(digest)
        if cached is None:
            return None
        began, record = cached
        oldest = time.monotonic() - self.seconds
        if began >= oldest:
            return record
        since, confirmed = self._confirmed
        return record if confirmed >= oldest and began >= since else None

    def was_read(self, digest: str) -> bool:
        """Return whether the cache has this record, also if it is too old for `get`."""
        return digest in self._records

    def read(self, digest: str, ask: Callable[[], KeyRecord | None]) -> KeyRecord:
        """Read a record from the store, and cache it unless the cache was told meanwhile to forget it.

        Args:
            digest: the digest of the record's key.
            ask: reads the record from the store; returns None if there is none.

        Raises:
            KeyError: the store has no such record.
        """

        def ask_for(_: Sequence[str]) -> Mapping[str, KeyRecord]:
            record = ask()
            return {} if record is None else {digest: record}

        return self.read_many([digest], ask_for)[digest]

    def read_many(
        self, digests: Sequence[str], ask: Callable[[Sequence[str]], Mapping[str, KeyRecord]]
    ) -> dict[str, KeyRecord]:
        """Read records from the store, and cache each unless the cache was told meanwhile to forget it.

        Args:
            digests: the digests of the records' keys.
            ask: reads the records with these digests from the store; leaves out those that it does not have.
        """
        with self._lock:
            reads = {digest: self._reads.setdefault(digest, _Reads()) for digest in digests}
            for each in reads.values():
                each.number += 1
        began = time.monotonic()
        answers: Mapping[str, KeyRecord] | None = None
        try:
            answers = ask(digests)
        finally:
            with self._lock:
                for digest, each in reads.items():
                    self._end(digest, each, began, answers)
        return {digest: copied(record) for digest, record in answers.items()}

    def forget(self, *digests: str) -> None:
        """Drop these records from the cache, do not cache the reads of them under way, and call the watchers."""
        with self._lock:
            for digest in digests:
                self._reads.pop(digest, None)
                self._records.pop(digest, None)
        for digest in digests:
            self._notify(digest)

    def clear(self) -> None:
        """Drop all records from the cache, do not cache the reads under way, and call the watchers with None."""
        with self._lock:
            self._reads.clear()
            self._records.clear()
        self._notify(None)

    def confirm(self, since: float, at: float) -> None:
        """Cache the records read from ``since`` on for ``seconds`` from ``at`` at least.

        Call this only if `forget` or `clear` was called for every change of the store between the two times.

        Args:
            since: the first time of which every change is known, by `time.monotonic`.
            at: the last such time.
        """
        self._confirmed = since, at

    def distrust(self) -> None:
        """Cache each record from its own read only, as changes may be missed, and call the watchers with None."""
        self._confirmed = 0.0, NEVER
        self._notify(None)

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        """Call a function with the digest of each record that `forget` drops, and with None if any may have changed.

        Args:
            changed: called in any thread; it must not wait. An exception is logged.

        Returns:
            A function that ends this.
        """
        token = object()
        with self._lock:
            self._watchers[token] = changed

        def end() -> None:
            with self._lock:
                self._watchers.pop(token, None)

        return end

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._reads = {}
        self._confirmed = 0.0, NEVER

    def _end(self, digest: str, reads: _Reads, began: float, answers: Mapping[str, KeyRecord] | None) -> None:
        """End a read: cache its record, and the time at which it began, unless the record was forgotten since."""
        reads.number -= 1
        if self._reads.get(digest) is not reads:
            return
        if not reads.number:
            del self._reads[digest]
        if answers is None:
            return
        record = answers.get(digest)
        if record is None:
            self._records.pop(digest, None)
        elif self.seconds:
            self._records[digest] = began, record
            self._records.move_to_end(digest)
            if len(self._records) > self._size:
                self._records.popitem(last=False)

    def _notify(self, digest: str | None) -> None:
        if not self._watchers:
            return
        with self._lock:
            watchers = list(self._watchers.values())
        for changed in watchers:
            try:
                changed(digest)
            except Exception:  # the code of a user
                log.exception("{Key store} a function that watches for changed keys failed")


@dataclass(slots=True, eq=False)
class _Reads:
    """The reads of one record that are under way, as long as the record is not forgotten."""

    number: int = 0
