"""Where API keys are kept: the `KeyStore` protocol and the store in memory.

A store never sees a key, only its SHA-256 digest; keys are made and read by `asyncapy_core.keys.factory`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of one key.

    Attributes:
        id: a short public name, for logs, lists and revoking without the key.
        metadata: what was given on issue, a mapping that JSON can carry.
        issued: UNIX time at which the key was issued, in seconds.
        expires: UNIX time from which the key is no longer valid, in seconds, or None.
    """

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    issued: float = 0.0
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Say whether the key is no longer valid at this UNIX time."""
        return self.expires is not None and self.expires <= now


class KeyStore(Protocol):
    """Keeps records by the digest of their key. All methods are synchronous and safe from several threads.

    A store does not judge whether a record has expired; it only forgets those that have, when told to `purge`. What
    goes wrong, apart from the KeyErrors below, is a `KeyStoreError`; a store that cannot be reached raises
    `KeyStoreUnavailable`, and never answers from what it cannot know.

    Attributes:
        blocking: True when a call may wait for a disk or a network, so that it has to run in a thread.
        timeout: seconds that a caller should wait for one call at most; ``math.inf`` where that is no matter.
    """

    @property
    def blocking(self) -> bool: ...

    @property
    def timeout(self) -> float: ...

    def add(self, digest: str, record: KeyRecord) -> None:
        """Keep a new record; when this returns, it is kept for good."""

    def get(self, digest: str) -> KeyRecord:
        """Return the record; KeyError when there is none."""

    def peek(self, digest: str) -> KeyRecord | None:
        """Return the record if that is certain without waiting, else None; a store may always return None.

        It may be the very record that the store holds, and is not to be changed.
        """

    def find(self, key_id: str) -> str:
        """Return the digest of the record with this id; KeyError when there is none."""

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a record; KeyError when there is none."""

    def replace(self, old: str, new: str) -> None:
        """Move the record of ``old`` to ``new``; KeyError when there is none.

        At no moment does anyone find both, or neither; of two that move the same record, one gets a KeyError.
        """

    def remove(self, digest: str) -> None:
        """Forget a record; KeyError when there is none."""

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        """Iterate over digests and records, the oldest first; what changes meanwhile may or may not be seen."""

    def purge(self, now: float) -> int:
        """Forget the records that have expired at this UNIX time, and return how many those were."""

    def close(self) -> None:
        """Let go of what the store holds open; may be called twice."""


class MemoryKeyStore:
    """The store that lives and dies with its process."""

    blocking = False
    timeout: float = math.inf

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._lock = threading.Lock()

    def add(self, digest: str, record: KeyRecord) -> None:
        with self._lock:
            self._records[digest] = copied(record)

    def get(self, digest: str) -> KeyRecord:
        return copied(self._records[digest])

    def peek(self, digest: str) -> KeyRecord | None:
        return self._records.get(digest)

    def find(self, key_id: str) -> str:
        with self._lock:
            for digest, record in self._records.items():
                if record.id == key_id:
                    return digest
        raise KeyError(key_id)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        with self._lock:
            self._records[digest] = copied(replace(self._records[digest], metadata=metadata))

    def replace(self, old: str, new: str) -> None:
        with self._lock:
            records = dict(self._records)
            records[new] = records.pop(old)
            self._records = records  # in one step, for readers take no lock

    def remove(self, digest: str) -> None:
        with self._lock:
            del self._records[digest]

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        with self._lock:
            records = [(digest, copied(record)) for digest, record in self._records.items()]
        return iter(sorted(records, key=lambda item: item[1].issued))

    def purge(self, now: float) -> int:
        with self._lock:
            kept = {digest: record for digest, record in self._records.items() if not record.expired(now)}
            purged = len(self._records) - len(kept)
            self._records = kept
            return purged

    def close(self) -> None:
        """Nothing is held open."""


def copied(record: KeyRecord) -> KeyRecord:
    """Return a record that shares nothing with this one that can be changed."""
    return replace(record, metadata=deepcopy(record.metadata))
