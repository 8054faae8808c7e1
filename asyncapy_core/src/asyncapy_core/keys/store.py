"""The `KeyStore` protocol, and the store in memory.

A store gets the SHA-256 digests of keys, never the keys; `asyncapy_core.keys.factory` makes both.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, runtime_checkable

from asyncapy_core.keys.forking import ForkAware, watch_forks

_UNCHANGEABLE: Final = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The record of one key.

    Attributes:
        id: a short public id, for logs and lists, and to revoke the key without knowing it.
        metadata: the metadata given on issue, a mapping that JSON can encode.
        issued: the UNIX time of the issue, in seconds.
        expires: the UNIX time from which the key is no longer valid, in seconds, or None.
    """

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    issued: float = 0.0
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Return True if the key is no longer valid at this UNIX time."""
        return self.expires is not None and self.expires <= now


class KeyStore(Protocol):
    """Keeps records by the digest of their key: 64 hexadecimal digits. All methods are synchronous and thread-safe.

    A store may delete a record by itself once it has expired; otherwise it returns expired records too, until `purge`.
    Failures other than the KeyErrors below raise `KeyStoreError`; a store that cannot be reached raises
    `KeyStoreUnavailable`, and never answers from stale data.

    A store may have an attribute ``concurrency``, the number of calls, 1 or more, that it can serve at the same time. A
    factory calls a blocking store from at most this number of threads, so that no call waits inside the store.

    A store may have a method ``can_replace(old, new)``, which returns whether it can move a record between these two
    digests, without asking a server. A factory draws new keys until the result is true: it has to be true for one
    digest in a few hundred at least.

    Attributes:
        blocking: whether a call may wait for a disk or a network, so that it must run in a thread.
        timeout: the most seconds that a caller waits for one call; ``math.inf`` without a limit.
    """

    @property
    def blocking(self) -> bool: ...

    @property
    def timeout(self) -> float: ...

    def add(self, digest: str, record: KeyRecord) -> None:
        """Add a record. It is durable when this returns."""

    def get(self, digest: str) -> KeyRecord:
        """Return the record. Raises KeyError if there is none."""

    def peek(self, digest: str) -> KeyRecord | None:
        """Return the record if it is known without waiting, otherwise None; a store may always return None.

        The store may return its own object: do not change it.
        """

    def find(self, key_id: str) -> str:
        """Return the digest of the record with this id. Raises KeyError if there is none."""

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a record. Raises KeyError if there is none."""

    def replace(self, old: str, new: str) -> None:
        """Move the record of ``old`` to ``new``. Raises KeyError if there is none.

        The move is atomic: readers never find both digests, or neither. Of two concurrent moves, one gets a KeyError.
        """

    def remove(self, digest: str) -> None:
        """Delete a record. Raises KeyError if there is none."""

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        """Iterate over digests and records, the oldest first. Concurrent changes may or may not be seen."""

    def purge(self, now: float) -> int:
        """Delete the records that have expired at this UNIX time, and return their number."""

    def close(self) -> None:
        """Close connections and files; may be called twice."""


@runtime_checkable
class BatchKeyStore(Protocol):
    """A `KeyStore` that reads several records at once: look-ups of many clients share one round trip."""

    def get(self, digest: str) -> KeyRecord:
        """See `KeyStore`."""

    def get_many(self, digests: Sequence[str]) -> Mapping[str, KeyRecord]:
        """Return the records with these digests, by digest. Digests without a record are left out."""


@runtime_checkable
class WatchableKeyStore(Protocol):
    """A `KeyStore` that also tells of changes, by this process and by others."""

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        """Call a function with the digest of each record that is changed, moved or deleted, soon after the change.

        The function is called with None when changes may have been missed, and each second while changes cannot be
        noticed: any record may have changed. It may be called several times for one change. A record is not in the
        cache of the store any more when the function is called with its digest. This method does not wait.

        Args:
            changed: called in any thread; it must not wait. An exception is logged.

        Returns:
            A function that ends this.
        """


class MemoryKeyStore(ForkAware):
    """A store in the memory of the process."""

    blocking = False
    timeout: float = math.inf

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._lock = threading.Lock()
        watch_forks(self)

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
            self._records = records  # in one step: readers take no lock

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
        """Do nothing: there is nothing to close."""

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()


def copied(record: KeyRecord) -> KeyRecord:
    """Return a copy of a record that shares no mutable object with it."""
    metadata = record.metadata
    plain = _UNCHANGEABLE.issuperset(map(type, metadata.values()))
    return KeyRecord(record.id, dict(metadata) if plain else deepcopy(metadata), record.issued, record.expires)
