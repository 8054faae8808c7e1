"""`HOST_LOCK`: the lock of all plugin managers of a process.

A fork waits for it, so that no process inherits plugins that a thread of its parent has half imported.
It is re-entrant: a plugin may use filters or create a client while it is imported. A wait has a limit, as an import can
deadlock: one thread imports a plugin and needs the import lock of a module, and another one imports this module, which
uses a filter.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Final

from asyncapy_core.errors import PluginError

WAIT_SECONDS: Final = 60.0
"""The limit of a wait for another thread, which may import a plugin for as long."""

FORK_SECONDS: Final = 30.0
"""The limit of the wait before a fork. After it, the child begins to import the plugins that the parent had begun."""


class HostLock:
    """A re-entrant lock, used with ``with``.

    Attributes:
        activity: the present work of its owner, for the error of a thread that has waited too long.
    """

    def __init__(self) -> None:
        self.activity: str = "using the plugins"
        self._lock = threading.RLock()
        self._fork = threading.local()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise PluginError(
                f"another thread is {self.activity}, and has not finished after {WAIT_SECONDS:g} s; if that plugin "
                "waits for this thread, import the plugin before the threads begin"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Acquire the lock, so that no other thread is changing the plugins during the fork."""
        self._fork.owned = self._lock.acquire(timeout=FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Release the lock."""
        if self._fork.owned:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Release the lock, or replace it if a thread that does not exist in this process owns it."""
        owned, self._fork.owned = getattr(self._fork, "owned", False), False
        try:
            if owned:
                self._lock.release()
                return
        except RuntimeError:  # a system on which a thread has another identifier after a fork
            pass
        self._lock = threading.RLock()


HOST_LOCK: Final = HostLock()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=HOST_LOCK.before_fork,
        after_in_parent=HOST_LOCK.after_fork_in_parent,
        after_in_child=HOST_LOCK.after_fork_in_child,
    )
