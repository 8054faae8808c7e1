"""The SQLite file of the key store: opening, schema, transactions and errors.

The statements that read and change keys are in `asyncapy_sqlite.store`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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


class Database:
    """One connection to the file, used by one thread at a time.

    Args:
        path: the file; if it does not exist, it is created, readable by its owner only.
        timeout: seconds to wait while another process writes.

    Raises:
        KeyStoreError: the file cannot be opened, is not a database, or is one of another program or a later version.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = threading.Lock()
        self._make_file()
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:  # re-raised after the file is closed
                self._connection.close()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor for reading."""
        with self._lock, self._explained(), contextlib.closing(self._connection.cursor()) as cursor:
            yield cursor

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor for one change. It is on the disk when the block ends; an exception rolls it back."""
        with self.reading() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:  # re-raised after the lock is released
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        with self._lock:
            self._connection.close()

    def _make_file(self) -> None:
        """Create the file if it does not exist.

        An existing file is not opened: under POSIX, closing it here would release all locks that SQLite holds on it in
        this process, and writes of other processes could be lost.
        """
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise KeyStoreError(f"cannot open {self._path}: {reason}; give a file that can be written") from error

    def _prepare(self) -> None:
        self._connection.execute("BEGIN")  # one snapshot of all three, as another process may be creating the schema
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        self._connection.execute("COMMIT")
        if version > SCHEMA_VERSION and application == APPLICATION_ID:
            raise KeyStoreError(
                f"{self._path} was written by a later version of asyncapy-sqlite (schema {version}, this one supports "
                f"{SCHEMA_VERSION}); upgrade asyncapy-sqlite"
            )
        if application != APPLICATION_ID and (tables or application or version):
            raise KeyStoreError(f"{self._path} is a database of another program; give the key store a file of its own")
        self._write_ahead()
        self._connection.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            self._connection.executescript(SCHEMA)

    def _write_ahead(self) -> None:
        """Switch to write-ahead logging. SQLite does not wait for processes that open the file at the same time."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate the exceptions of sqlite3."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise KeyStoreUnavailable(
                    f"{self._path} is locked by another process for more than {self._timeout:g} s; try again"
                ) from error
            raise KeyStoreError(f"{self._path}: {error}; {_advice(code)}") from error


def _advice(code: str) -> str:
    if code == "SQLITE_FULL" or code.startswith("SQLITE_IOERR"):
        return "is the disk full? The keys issued before are kept"
    if code in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
        return "the file is damaged or not a database; move it away and restore a copy"
    if code.startswith("SQLITE_READONLY"):
        return "the file or its folder cannot be written"
    return "nothing was changed"
