"""A short memory in front of a slow key store, so that a key in use costs no disk and no network.

Knows nothing of the store. Only records that are there are remembered: a key that was just issued is never refused.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from asyncapy_core.keystore import KeyRecord


class Recall:
    """Remembers records for ``seconds`` from the moment they were asked for, the ``size`` last of them.

    That moment, and not the one at which the answer came, is what bounds how long a key that was revoked elsewhere can
    still pass. Safe from several threads.

    Args:
        seconds: how long a record is remembered; 0 remembers nothing.
        size: how many records are remembered.
    """

    def __init__(self, seconds: float, size: int = 10_000) -> None:
        if not 0 <= seconds < float("inf") or size < 1:
            raise ValueError(f"a recall lasts 0 or more seconds and holds 1 or more records; got {seconds!r}, {size!r}")
        self.seconds = seconds
        self._size = size
        self._records: OrderedDict[str, tuple[float, KeyRecord]] = OrderedDict()
        self._generation = 0
        self._lock = threading.Lock()

    def get(self, digest: str) -> KeyRecord | None:
        """Return what is remembered, or None."""
        remembered = self._records.get(digest)
        if remembered is None or remembered[0] < time.monotonic():
            return None
        return remembered[1]

    def ask(self) -> tuple[float, int]:
        """Return a ticket to be taken before the store is asked, and handed to `put` with its answer."""
        return time.monotonic() + self.seconds, self._generation

    def put(self, ticket: tuple[float, int], digest: str, record: KeyRecord) -> None:
        """Remember what the store answered; an answer that crossed a `forget` is not."""
        until, generation = ticket
        if not self.seconds:
            return
        with self._lock:
            if generation != self._generation:
                return
            self._records[digest] = until, record
            self._records.move_to_end(digest)
            if len(self._records) > self._size:
                self._records.popitem(last=False)

    def forget(self, *digests: str) -> None:
        """Remember these no longer, nor what the store is being asked for right now."""
        with self._lock:
            self._generation += 1
            for digest in digests:
                self._records.pop(digest, None)
