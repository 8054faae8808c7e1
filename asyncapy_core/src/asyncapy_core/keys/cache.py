"""A cache of key records, for stores on a disk or a network: a key in use costs no round trip."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.forking import ForkAware, watch_forks
from asyncapy_core.keys.store import KeyRecord, copied


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
        self._generation = 0
        self._lock = threading.Lock()
        watch_forks(self)

    def get(self, digest: str) -> KeyRecord | None:
        """Return the cached record, or None. Do not change it."""
        cached = self._records.get(digest)
        if cached is None or cached[0] < time.monotonic():
            return None
        return cached[1]

    def read(self, digest: str, ask: Callable[[], KeyRecord | None]) -> KeyRecord:
        """Read a record from the store, and cache it unless `forget` was called meanwhile.

        Args:
            digest: the digest of the record's key.
            ask: reads the record from the store; returns None if there is none.

        Raises:
            KeyError: the store has no such record.
        """
        until, generation = time.monotonic() + self.seconds, self._generation
        record = ask()
        if record is None:
            raise KeyError(digest)
        if self.seconds:
            with self._lock:
                if generation == self._generation:
                    self._records[digest] = until, record
                    self._records.move_to_end(digest)
                    if len(self._records) > self._size:
                        self._records.popitem(last=False)
        return copied(record)

    def forget(self, *digests: str) -> None:
        """Drop these records from the cache, and do not cache the reads that are under way."""
        with self._lock:
            self._generation += 1
            for digest in digests:
                self._records.pop(digest, None)

    def clear(self) -> None:
        """Drop all records from the cache, and do not cache the reads that are under way."""
        with self._lock:
            self._generation += 1
            self._records.clear()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
