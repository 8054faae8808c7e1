"""The SQLite file of the key store: opening, schema, transactions and errors.

The statements that read and change keys are in `asyncapy_sqlite.store`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import ForkAware, watch_forks
from asyncapy_sqlite.files import OpenFiles, identify
from asyncapy_sqlite.opening import opening

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


class Database(ForkAware):
    """One connection to the file, used by one thread at a time.

    The connection is closed before a fork, and both processes open one of their own when they use it. SQLite keeps
    the state of its locks in the memory of the process: a connection that a child inherits, and each connection that
    the child opens beside it, holds no lock, and writes of either process are lost.

    If the path leads to another file, the connection is closed and that file is opened. If it leads to none, each use
    is an error: the keys that were in the file are not valid, and issued keys would be lost.

    Args:
        path: the absolute path of the file, which must exist.
        timeout: seconds to wait while another process writes.
        replaced: called after another file was found, or none, and before it is used.

    Raises:
        KeyStoreError: the file cannot be opened, is not a database, or is one of another program or a later version.
    """

    def __init__(self, path: Path, timeout: float, replaced: Callable[[], None]) -> None:
        self._path = path
        self._replaced = replaced
        self._timeout = timeout
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._forking_thread: int | None = None
        self._is_closed = False
        self._connection: sqlite3.Connection | None = None
        self._files: OpenFiles | None = None
        with opening.held():
            with self._explained():
                self._connected()
            watch_forks(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor for reading."""
        with self._lock, self._explained(), contextlib.closing(self._connected().cursor()) as cursor:
            yield cursor

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor for one change. It is on the disk when the block ends; an exception rolls it back."""
        with self.reading() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
                if not self._is_current():
                    raise KeyStoreUnavailable(f"{self._path} was replaced during this change; try again")
            except BaseException:  # re-raised after the lock is released
                if cursor.connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        with self._lock:
            self._is_closed = True
            if self._process == os.getpid():
                self._disconnect()

    def before_fork(self) -> None:
        """Close the connection when no thread uses it. If one uses or opens a file for too long, the child fails."""
        if opening.is_held_by_fork and self._lock.acquire(timeout=self._timeout):
            self._forking_thread = threading.get_ident()
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        if self._forking_thread == threading.get_ident():
            self._forking_thread = None
            self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        if self._forking_thread == threading.get_ident():
            self._process = os.getpid()
        self._forking_thread = None

    def _connected(self) -> sqlite3.Connection:
        """Return the connection of this process; open it after a fork."""
        if self._is_closed:
            raise KeyStoreError(f"{self._path}: the key store is closed")
        if self._process != os.getpid():
            raise KeyStoreError(
                f"{self._path}: the process {self._process} was forked while it used this file; open the key store "
                "after the fork, or start the program again"
            )
        if self._connection is not None and not self._is_current():
            self._leave()
        if self._connection is None:
            self._connection, self._files = self._opened()
        return self._connection

    def _is_current(self) -> bool:
        """Return False if the path leads to another file, or to none."""
        return self._files is not None and identify(self._path) == self._files.identity

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _leave(self) -> None:
        """Close a file that was moved, deleted or replaced. Its recent changes are moved into it first."""
        if self._connection is not None and self._files is not None:
            with contextlib.suppress(sqlite3.Error):  # it has been deleted, or is on a full disk
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._files.remove_orphans()
        self._disconnect()
        self._replaced()

    def _opened(self) -> tuple[sqlite3.Connection, OpenFiles]:
        """Open the file that the path leads to. It is not created."""
        while True:
            before = identify(self._path)
            if before is None:
                raise KeyStoreError(f"{self._path} does not exist; restore it, or correct the path")
            uri = f"{self._path.as_uri()}?mode=rw"
            connection = sqlite3.connect(
                uri, uri=True, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            connection.text_factory = bytes  # texts may be damaged
            try:
                self._prepare(connection)
                files = OpenFiles.of(self._path)
            except FileNotFoundError:
                connection.close()
            except BaseException:  # re-raised after the file is closed
                connection.close()
                raise
            else:
                if files.identity == before:
                    return connection, files
                connection.close()  # it was replaced meanwhile

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one snapshot of all three, as another process may be creating the schema
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        connection.execute("COMMIT")
        if version > SCHEMA_VERSION and application == APPLICATION_ID:
            raise KeyStoreError(
                f"{self._path} was written by a later version of asyncapy-sqlite (schema {version}, this one supports "
                f"{SCHEMA_VERSION}); upgrade asyncapy-sqlite"
            )
        if application != APPLICATION_ID and (tables or application or version):
            raise KeyStoreError(f"{self._path} is a database of another program; give the key store a file of its own")
        self._write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            connection.executescript(SCHEMA)

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging. SQLite does not wait for processes that open the file at the same time."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate the exceptions of sqlite3 and of the file system."""
        try:
            yield
        except OSError as error:
            raise KeyStoreError(f"cannot open {self._path}: {error.strerror}; {_advice('')}") from error
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
