"""The files of an SQLite database: which file a path leads to, and the files beside it.

This module depends on SQLite's names of files, and opens none: under POSIX, closing a file releases all locks that
SQLite holds on it in this process, and writes of other processes could be lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asyncapy_core.errors import KeyStoreError

SUFFIXES: Final = ("-wal", "-shm")
"""The suffixes of the files that hold recent changes until they are moved into the database."""

Identity = tuple[int, int]
"""Device and inode of a file."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files of an open connection.

    Attributes:
        database: the path of the database, without symbolic links.
        identity: the database, independent of its present path.
        beside: the files beside it, by their paths.
    """

    database: Path
    identity: Identity
    beside: dict[Path, Identity | None]

    @classmethod
    def of(cls, path: Path) -> OpenFiles:
        """Return the files of a connection that has just been opened.

        Raises:
            FileNotFoundError: the database has been deleted meanwhile.
        """
        database = _resolved(path)
        identity = identify(database)
        if identity is None:
            raise FileNotFoundError(database)
        return cls(database, identity, {beside: identify(beside) for beside in _beside(database)})

    def remove_orphans(self) -> None:
        """Remove the files beside a database that has been moved, deleted or replaced.

        They belong to the connection that is still open. With another database under this path, SQLite would read
        the old one's changes into it.
        """
        if identify(self.database) == self.identity:
            return  # only a symbolic link leads elsewhere
        for path, identity in self.beside.items():
            if identity is not None and identify(path) == identity:
                path.unlink(missing_ok=True)


def identify(path: Path) -> Identity | None:
    """Return the identity of the file that a path leads to, or None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def create(path: Path) -> None:
    """Create an empty file, readable by its owner only, if there is none.

    Raises:
        KeyStoreError: the file cannot be created; or files of a deleted database are beside it.
    """
    try:
        orphans = [str(beside) for beside in _beside(_resolved(path)) if identify(beside)]
        if orphans and identify(path) is None:
            raise KeyStoreError(
                f"{path} does not exist, but files of a deleted database do; stop the programs that use them, and "
                f"delete {' and '.join(orphans)}"
            )
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise KeyStoreError(f"cannot open {path}: {error.strerror}; give a file that can be written") from error


def _beside(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in SUFFIXES]


def _resolved(path: Path) -> Path:
    """Return the path without symbolic links; unlike `Path.resolve`, this does not fail for a loop of links."""
    return Path(os.path.realpath(path))
