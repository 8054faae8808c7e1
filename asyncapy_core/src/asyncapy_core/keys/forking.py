"""Calls objects before and after `os.fork`, so that a child process shares no lock, connection or open file."""

from __future__ import annotations

import os
import threading
import weakref


class ForkAware:
    """An object with a lock, a connection or an open file. `watch_forks` registers it.

    A fork copies only the thread that calls it. A lock that another thread holds is never released in the child, and
    a connection that both processes use delivers the replies of one to the other.
    """

    def before_fork(self) -> None:
        """Close the resources that the child must not inherit. Called in the parent, by the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Called in the parent. Connections are opened again when they are used."""

    def after_fork_in_child(self) -> None:
        """Replace the locks, and drop the connections. Called in the child, which has one thread."""


class _Watched:
    """All objects to call. Objects can be added while the set is read."""

    def __init__(self) -> None:
        self._objects: weakref.WeakSet[ForkAware] = weakref.WeakSet()
        self._lock = threading.Lock()

    def add(self, watched: ForkAware) -> None:
        with self._lock:
            self._objects.add(watched)

    def all(self) -> list[ForkAware]:
        with self._lock:
            return list(self._objects)

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()


_watched = _Watched()


def watch_forks(watched: ForkAware) -> None:
    """Call the methods of this object at each fork of the process, as long as the object exists."""
    _watched.add(watched)


def _before() -> None:
    for watched in _watched.all():
        watched.before_fork()


def _after_in_parent() -> None:
    for watched in _watched.all():
        watched.after_fork_in_parent()


def _after_in_child() -> None:
    _watched.after_fork_in_child()
    for watched in _watched.all():
        watched.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
