"""A lock for files that are being opened, which a fork acquires.

SQLite has mutexes for the whole process. A child that is forked while another thread opens a file inherits a locked
mutex, and waits for it forever when it opens a file itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Final

LONGEST: Final = 5.0
"""Seconds for which a fork waits for files that are being opened."""


class OpeningLock:
    """A lock of this process that no child inherits locked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forking_thread: int | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, so that no fork begins."""
        with self._lock:
            yield

    @property
    def is_held_by_fork(self) -> bool:
        """Whether this thread forks, and no other thread opens a file meanwhile."""
        return self._forking_thread == threading.get_ident()

    def before_fork(self) -> None:
        """Acquire the lock. If a thread opens a file for too long, the child cannot use the store."""
        if self._lock.acquire(timeout=LONGEST):
            self._forking_thread = threading.get_ident()

    def after_fork_in_parent(self) -> None:
        if self.is_held_by_fork:
            self._forking_thread = None
            self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._forking_thread = None


opening: OpeningLock = OpeningLock()
"""The lock of all files of this process."""

if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # Python calls these functions before those of core, which were registered earlier: after this lock is acquired,
    # no file is opened that core does not know.
    os.register_at_fork(
        before=opening.before_fork,
        after_in_parent=opening.after_fork_in_parent,
        after_in_child=opening.after_fork_in_child,
    )
