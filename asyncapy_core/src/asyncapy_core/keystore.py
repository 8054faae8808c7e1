"""Where API keys are kept: the `KeyStore` protocol and the store in memory.

A store never sees a key, only the SHA-256 digest of one; what a key is, is the business of `asyncapy_core.keys`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of one key.

    Attributes:
        id: a short public name, for logs, lists and revoking without the key.
        metadata: what was given on issue, a mapping that JSON can carry.
        issued: UNIX time at which the key was issued, in seconds.
        expires: UNIX time from which the key is no longer valid, or None.
    """

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    issued: float = 0.0
    expires: float | None = None


class KeyStore(Protocol):
    """Keeps records by the digest of their key. All methods are synchronous and safe from several threads.

    Attributes:
        blocking: True when a call may wait for a disk or a network, so that it has to run in a thread.
    """

    @property
    def blocking(self) -> bool: ...

    def add(self, digest: str, record: KeyRecord) -> None:
        """Keep a new record."""

    def get(self, digest: str) -> KeyRecord:
        """Return the record; KeyError when there is none."""

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        """Replace the metadata of a record; KeyError when there is none."""

    def replace(self, old: str, new: str) -> None:
        """Move the record of ``old`` to ``new`` in one step; KeyError when there is none."""

    def remove(self, digest: str) -> None:
        """Forget a record; KeyError when there is none."""

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        """Iterate over digests and records, in no particular order."""

    def close(self) -> None:
        """Let go of what the store holds open; may be called twice."""


class MemoryKeyStore:
    """The store that lives and dies with its process."""

    blocking = False

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._lock = threading.Lock()

    def add(self, digest: str, record: KeyRecord) -> None:
        with self._lock:
            self._records[digest] = replace(record, metadata=dict(record.metadata))

    def get(self, digest: str) -> KeyRecord:
        record = self._records[digest]
        return replace(record, metadata=dict(record.metadata))

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        with self._lock:
            self._records[digest] = replace(self._records[digest], metadata=dict(metadata))

    def replace(self, old: str, new: str) -> None:
        with self._lock:
            self._records[new] = self._records.pop(old)

    def remove(self, digest: str) -> None:
        with self._lock:
            del self._records[digest]

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        with self._lock:
            return iter(list(self._records.items()))

    def close(self) -> None:
        """Nothing is held open."""
