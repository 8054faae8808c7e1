"""The names and values of the store in Redis.

With the prefix ``asyncapy`` and a digest that begins with ``3f``:

* ``asyncapy:key:{3f}:DIGEST`` is the record: id, time of issue, expiry (empty if there is none) and metadata in JSON, a
  line each. Redis deletes it when it expires.
* ``asyncapy:ids:{3f}`` is the index: a hash from ids to digests.

The braces are a hash tag: both names have the same slot, so that a script can change both, and the 256 tags spread the
keys over the masters of a cluster.
"""

from __future__ import annotations

import math
from typing import Final

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError
from asyncapy_core.storage import checked_record, metadata_text

TAGS: Final = frozenset(f"{number:02x}" for number in range(256))
"""The first two digits of a digest."""

LATEST: Final = 10.0**15
"""The last UNIX time, in seconds, at which Redis deletes a record; one that expires later is kept until a purge."""


class Layout:
    """The names of the keys with one prefix.

    Args:
        prefix: the prefix of all names.

    Attributes:
        records: the beginning of the names of records, and of no other name.
        old: the names of the two hashes in which 0.6.0.dev0 kept all keys: digests to records, and ids to digests.
        lock: the name of the lock of a migration, in the hash slot of these two.

    Raises:
        KeyStoreError: the prefix has a brace, which would change the hash slots.
    """

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise KeyStoreError(f"the prefix {prefix!r} has a brace; write one without, as braces decide the hash slot")
        self.records: str = f"{prefix}:key:"
        self.old: tuple[str, str] = (f"{{{prefix}}}:keys", f"{{{prefix}}}:ids")
        self.lock: str = f"{{{prefix}}}:migrating"
        self._prefix = prefix

    def record(self, digest: str) -> str:
        """Return the name of a record.

        Raises:
            ValueError: this is no digest.
        """
        if digest[:2] not in TAGS:
            raise ValueError(f"{digest[:16]!r} is no digest: 64 hexadecimal digits in lower case")
        return f"{self.records}{{{digest[:2]}}}:{digest}"

    def listed(self, tag: str, digest: bytes) -> bytes:
        """Return the name of the record that the index of a tag lists with this digest."""
        return f"{self.records}{{{tag}}}:".encode() + digest

    def index(self, tag: str) -> str:
        """Return the name of the index of the records with this tag, or with the tag of this digest."""
        return f"{self._prefix}:ids:{{{tag[:2]}}}"


def encode(record: KeyRecord) -> str:
    """Return the value of a record."""
    expires = "" if record.expires is None else repr(record.expires)
    return f"{record.id}\n{record.issued!r}\n{expires}\n{metadata_text(record.metadata)}"


def decode(digest: str, value: bytes) -> KeyRecord:
    """Return the record with this value.

    Raises:
        KeyStoreError: the value is damaged.
    """
    name = f"the record of digest {digest[:16]!a} in Redis"
    lines = value.split(b"\n", 3)
    if len(lines) < 4:
        raise KeyStoreError(f"{name} is damaged, or of another program; give this store a prefix of its own")
    key_id, issued, expires, metadata = lines
    name = f"the record of key {text(key_id)!a} (revoke it by its id)"
    return checked_record(name, key_id=key_id, metadata=metadata, issued=issued, expires=expires or None)


def expiry(expires: float | None) -> str:
    """Return the time at which Redis deletes a record, in UNIX milliseconds, or an empty text.

    Args:
        expires: the UNIX time from which its key is not valid, in seconds, or None.
    """
    return "" if expires is None or expires > LATEST else str(max(1, math.ceil(expires * 1000)))


def text(value: bytes) -> str:
    """Return a value of Redis as text, with other bytes than UTF-8 escaped."""
    return value.decode("utf-8", "backslashreplace")
