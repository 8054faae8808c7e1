"""What key stores on a disk or a network have in common; for the plugins that bring them.

A short memory, so that a key in use costs no round trip; the options that their URLs share; metadata as text. Knows no
store.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from asyncapy_core.errors import KeyStoreError
from asyncapy_core.keys.store import KeyRecord, copied

__all__ = ["Recall", "check_timeout", "metadata_text", "take_seconds"]

LONGEST_TIMEOUT: Final = 3600.0


class Recall:
    """Remembers records for ``seconds`` from the moment they were asked for, the ``size`` last of them.

    That moment, and not the one at which the answer came, is what bounds how long a key that was revoked elsewhere can
    still pass. Only records that are there are remembered: a key that was just issued is never refused. Safe from
    several threads.

    Args:
        seconds: how long a record is remembered; 0 remembers nothing.
        size: how many records are remembered.

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

    def get(self, digest: str) -> KeyRecord | None:
        """Return what is remembered, or None; it is not to be changed."""
        remembered = self._records.get(digest)
        if remembered is None or remembered[0] < time.monotonic():
            return None
        return remembered[1]

    def read(self, digest: str, ask: Callable[[], KeyRecord | None]) -> KeyRecord:
        """Ask the store for a record and remember it, unless something was forgotten meanwhile.

        Args:
            digest: whose record it is.
            ask: asks the store, and returns None when it has no such record.

        Raises:
            KeyError: there is no such record.
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
        """Remember these no longer, nor what the store is being asked for right now."""
        with self._lock:
            self._generation += 1
            for digest in digests:
                self._records.pop(digest, None)


def check_timeout(seconds: float) -> None:
    """Raise KeyStoreError for what is no time that a call to a store may take."""
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise KeyStoreError(f"timeout is {seconds!r}; it must be more than 0 and at most {LONGEST_TIMEOUT:g} seconds")


def take_seconds(options: dict[str, str], where: str) -> dict[str, float]:
    """Take ``timeout`` and ``recall_seconds`` out of the options in a URL, where they are there, as numbers.

    Args:
        options: the options, by name; what is taken is there no longer.
        where: the URL without its secrets, for the message.

    Raises:
        KeyStoreError: one of them is no number.
    """
    try:
        return {name: float(options.pop(name)) for name in ("timeout", "recall_seconds") if name in options}
    except ValueError as error:
        raise KeyStoreError(f"{where}: timeout and recall_seconds are numbers of seconds: {error}") from error


def metadata_text(metadata: dict[str, Any]) -> str:
    """Return metadata as JSON.

    Raises:
        KeyStoreError: it holds what JSON has not.
    """
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise KeyStoreError(f"this metadata cannot be kept, as it is not JSON: {error}") from error
