"""The key store in an SQLite file, which several processes of one machine may share.

A write returns when it is on the disk. A record that was read is recalled for a moment, so that a key in use costs no
disk; a key that another process revoked is refused when that moment is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from asyncapy_core import KeyRecord, Recall
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x41504159  # "APAY"
SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS keys (
    digest TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    metadata TEXT NOT NULL,
    issued REAL NOT NULL,
    expires REAL
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
COLUMNS: Final = "digest, id, metadata, issued, expires"


class SQLiteKeyStore:
    """A `KeyStore` in a file, which is made, readable by its owner alone, if it is not there.

    Args:
        path: the file; ``":memory:"`` is refused, as `MemoryKeyStore` does that better.
        timeout: seconds to wait for another process that is writing, and that one call may take.
        recall_seconds: how long a record that was read is taken for current; 0 asks the file each time.

    Raises:
        KeyStoreError: the file cannot be opened, is no database, or is that of another program or a later version.
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0, recall_seconds: float = 0.5) -> None:
        if str(path) in {"", ":memory:"}:
            raise KeyStoreError("an SQLite key store needs a file, such as 'sqlite:///keys.db'; or use 'memory://'")
        self.path = Path(path)
        self.timeout = timeout
        self._recall = Recall(recall_seconds)
        self._lock = threading.Lock()
        self._connection = self._open()

    @classmethod
    def from_url(cls, url: str) -> SQLiteKeyStore:
        """Open the store that a URL names: ``sqlite:///relative.db``, ``sqlite:////absolute.db``.

        ``?timeout=5&recall_seconds=0.5`` may follow.

        Raises:
            KeyStoreError: the URL is wrong, or the file cannot be opened.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        if parts.netloc or len(parts.path) < 2:
            raise KeyStoreError(f"{url!r} names no file: write sqlite:///keys.db, or sqlite:////var/lib/keys.db")
        try:
            numbers = {name: float(options.pop(name)) for name in ("timeout", "recall_seconds") if name in options}
        except ValueError as error:
            raise KeyStoreError(f"{url!r}: timeout and recall_seconds are numbers of seconds: {error}") from error
        if options:
            raise KeyStoreError(f"{url!r}: {', '.join(options)} is not an option; there are timeout and recall_seconds")
        return cls(unquote(parts.path[1:]), **numbers)

    def add(self, digest: str, record: KeyRecord) -> None:
        row = (digest, record.id, _text(record.metadata), record.issued, record.expires)
        with self._transaction() as cursor:
            cursor.execute(f"INSERT INTO keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", row)  # noqa: S608  # a constant

    def get(self, digest: str) -> KeyRecord:
        ticket = self._recall.ask()
        with self._reading() as cursor:
            row = cursor.execute(f"SELECT {COLUMNS} FROM keys WHERE digest = ?", (digest,)).fetchone()  # noqa: S608  # a constant
        if row is None:
            raise KeyError(digest)
        self._recall.put(ticket, digest, _record(row))
        return _record(row)

    def peek(self, digest: str) -> KeyRecord | None:
        return self._recall.get(digest)

    def find(self, key_id: str) -> str:
        with self._reading() as cursor:
            row = cursor.execute("SELECT digest FROM keys WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise KeyError(key_id)
        return str(row[0])

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self._change(digest, "UPDATE keys SET metadata = ? WHERE digest = ?", _text(metadata), digest)

    def replace(self, old: str, new: str) -> None:
        self._change(old, "UPDATE keys SET digest = ? WHERE digest = ?", new, old)

    def remove(self, digest: str) -> None:
        self._change(digest, "DELETE FROM keys WHERE digest = ?", digest)

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        with self._reading() as cursor:
            rows = cursor.execute(f"SELECT {COLUMNS} FROM keys ORDER BY issued, digest").fetchall()  # noqa: S608  # a constant
        return ((row[0], _record(row)) for row in rows)

    def purge(self, now: float) -> int:
        with self._transaction() as cursor:
            return cursor.execute("DELETE FROM keys WHERE expires <= ?", (now,)).rowcount

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _change(self, digest: str, statement: str, *values: str) -> None:
        """Change one record; KeyError when it is not there."""
        with self._transaction() as cursor:
            changed = cursor.execute(statement, values).rowcount
        self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, self._explained(), contextlib.closing(self._connection.cursor()) as cursor:
            yield cursor

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        """Make one change, which is on the disk at the end, or not made at all."""
        with self._reading() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate what sqlite3 raises."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise KeyStoreUnavailable(
                    f"{self.path} is locked by another process for more than {self.timeout:g} s; try again"
                ) from error
            raise KeyStoreError(f"{self.path}: {error}; {_advice(code)}") from error

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise KeyStoreError(
                f"cannot open {self.path}: {error.strerror}; give a file that can be written"
            ) from error
        with self._explained():
            connection = sqlite3.connect(self.path, self.timeout, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version > SCHEMA_VERSION and application == APPLICATION_ID:
            raise KeyStoreError(
                f"{self.path} was written by a later version of asyncapy-sqlite (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); upgrade it"
            )
        if application != APPLICATION_ID and (tables or application or version):
            raise KeyStoreError(f"{self.path} is a database of another program; give a file of its own")
        self._write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            connection.executescript(SCHEMA)

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging; SQLite itself does not wait for others that open the file at this moment."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _advice(code: str) -> str:
    if code in {"SQLITE_FULL", "SQLITE_IOERR_WRITE"} or code.startswith("SQLITE_IOERR"):
        return "is the disk full? The keys issued before are kept"
    if code in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
        return "the file is damaged or no database: put it aside and restore a copy"
    if code.startswith("SQLITE_READONLY"):
        return "the file or its folder cannot be written"
    return "nothing was changed"


def _text(metadata: dict[str, Any]) -> str:
    try:
        return json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise KeyStoreError(f"this metadata cannot be kept, as it is not JSON: {error}") from error


def _record(row: tuple[Any, ...]) -> KeyRecord:
    return KeyRecord(row[1], json.loads(row[2]), row[3], row[4])
