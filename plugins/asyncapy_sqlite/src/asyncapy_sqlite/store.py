"""The key store in an SQLite file, which several processes of one machine may share.

A write returns when it is on the disk. Records are cached for ``recall_seconds``, so that a key in use costs no disk
access; a key that another process revoked is refused after that time at the latest.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError
from asyncapy_core.storage import (
    Finding,
    RecordCache,
    check_timeout,
    checked_record,
    metadata_text,
    skip_damaged,
    take_seconds,
)
from asyncapy_sqlite import files
from asyncapy_sqlite.database import Database

INSERT: Final = "INSERT INTO keys (digest, id, metadata, issued, expires) VALUES (?, ?, ?, ?, ?)"
SELECT: Final = "SELECT digest, id, metadata, issued, expires FROM keys WHERE digest = ?"
FAULTS: Final = 5
"""The most faults of a damaged file that `SQLiteKeyStore.examine` lists."""

SELECT_ALL: Final = "SELECT digest, id, metadata, issued, expires FROM keys ORDER BY issued, digest"


class SQLiteKeyStore:
    """A `KeyStore` in a file.

    If another file takes the place of the file, that one is used. If the file is deleted, all calls are errors.

    Args:
        path: the file; ``":memory:"`` is refused, use `MemoryKeyStore` instead.
        create: whether to create the file if it does not exist, readable by its owner only.
        timeout: seconds to wait while another process writes, and the limit for one call; at most 3600.
        recall_seconds: seconds for which a record that was read is cached; 0 turns the cache off.

    Raises:
        KeyStoreError: an argument is out of range; or the file does not exist, cannot be opened, is not a database, or
            is one of another program or a later version.
    """

    blocking = True

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = 5.0, recall_seconds: float = 0.5, create: bool = True
    ) -> None:
        if str(path) in {"", ":memory:"}:
            raise KeyStoreError("an SQLite key store needs a file, such as 'sqlite:///keys.db'; or use 'memory://'")
        check_timeout(timeout)
        self._recall = RecordCache(recall_seconds)
        self.path: Path = Path(path).absolute()  # the working folder may change
        self.timeout = timeout
        if "\0" in str(path):
            raise KeyStoreError(f"cannot open {str(path)!r}: a path has no null character")
        if create:
            files.create(self.path)
        self._writer = self._open()
        try:
            self._reader = self._open()  # keys are checked while a change waits for a lock
        except BaseException:  # re-raised after the file is closed
            self._writer.close()
            raise

    @classmethod
    def from_url(cls, url: str, *, create: bool = True) -> SQLiteKeyStore:
        """Open the store of a URL: ``sqlite:///relative.db``, ``sqlite:////absolute.db``.

        Its query may set the options: ``?timeout=5&recall_seconds=0.5``. With ``create=False``, the file must exist.

        Raises:
            KeyStoreError: the URL is wrong, or the file cannot be opened.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.netloc or len(parts.path) < 2 or "#" in url:
            raise KeyStoreError(
                f"{url!r} names no file: write sqlite:///keys.db, or sqlite:////var/lib/keys.db, with # as %23"
            )
        numbers = take_seconds(options, repr(url))
        if options:
            raise KeyStoreError(
                f"{url!r}: {', '.join(options)} is not an option; the options are timeout and recall_seconds"
            )
        return cls(unquote(parts.path[1:]), create=create, **numbers)

    def add(self, digest: str, record: KeyRecord) -> None:
        row = (digest, record.id, metadata_text(record.metadata), record.issued, record.expires)
        with self._writer.changing() as cursor:
            cursor.execute(INSERT, row)

    def get(self, digest: str) -> KeyRecord:
        return self.get_many([digest])[digest]

    def get_many(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        """Return the records with these digests, by digest, from one transaction."""
        return self._recall.read_many(digests, self._read)

    def peek(self, digest: str) -> KeyRecord | None:
        return self._recall.get(digest)

    def find(self, key_id: str) -> str:
        with self._reader.reading() as cursor:
            row = cursor.execute("SELECT digest FROM keys WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise KeyError(key_id)
        return _digest(row)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self._change(digest, "UPDATE keys SET metadata = ? WHERE digest = ?", metadata_text(metadata), digest)

    def replace(self, old: str, new: str) -> None:
        self._change(old, "UPDATE keys SET digest = ? WHERE digest = ?", new, old)

    def remove(self, digest: str) -> None:
        self._change(digest, "DELETE FROM keys WHERE digest = ?", digest)

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        with self._reader.reading():  # it is not closed
            pass
        with closing(self._open()) as listing, listing.reading() as cursor:  # keys are checked meanwhile
            rows = cursor.execute(SELECT_ALL).fetchall()
        return skip_damaged(rows, lambda row: (_digest(row), self._record(row)))

    def purge(self, now: float) -> int:
        with self._writer.changing() as cursor:
            return cursor.execute("DELETE FROM keys WHERE expires <= ?", (now,)).rowcount

    def examine(self) -> Iterator[Finding]:
        """Yield facts about the file, and faults in it."""
        size = self.path.stat().st_size
        yield Finding(f"{self.path}: {size} bytes, SQLite {sqlite3.sqlite_version}")
        with closing(self._open()) as checking, checking.reading() as cursor:
            lines = [_shown(line) for (line,) in cursor.execute(f"PRAGMA quick_check({FAULTS})")]
        if lines != ["'ok'"]:
            yield Finding(f"{self.path}: the file is damaged; restore a copy: {'; '.join(lines)}", is_problem=True)
        if os.name == "posix" and self.path.stat().st_mode & stat.S_IWOTH:
            yield Finding(f"{self.path}: every user can issue keys; chmod o-w", is_problem=True)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._writer.close()

    def _open(self) -> Database:
        return Database(self.path, self.timeout, self._recall.clear)

    def _change(self, digest: str, statement: str, *values: str) -> None:
        """Change one record, or raise KeyError if it does not exist. In any case drop it from the cache."""
        try:
            with self._writer.changing() as cursor:
                changed = cursor.execute(statement, values).rowcount
        finally:
            self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)

    def _read(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        with self._reader.reading() as cursor:
            rows = [cursor.execute(SELECT, (digest,)).fetchone() for digest in digests]
        return {digest: self._record(row) for digest, row in zip(digests, rows, strict=True) if row is not None}

    def _record(self, row: tuple[Any, ...]) -> KeyRecord:
        _, key_id, metadata, issued, expires = row
        name = f"{self.path}: the record of key {_shown(key_id)} (revoke it by its id)"
        return checked_record(name, key_id=key_id, metadata=metadata, issued=issued, expires=expires)


def _digest(row: tuple[Any, ...]) -> str:
    """Return the first column as a text. A damaged one is the digest of no key."""
    return row[0].decode("ascii", "backslashreplace") if isinstance(row[0], bytes) else str(row[0])


def _shown(key_id: Any) -> str:
    return ascii(key_id.decode("utf-8", "backslashreplace") if isinstance(key_id, bytes) else key_id)
