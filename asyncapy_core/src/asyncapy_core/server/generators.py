"""Async generators that were dropped unfinished, to be closed by the task that began them.

trio closes them in a task of its own. If one has an open nursery or cancel scope, as after ``async for x in ticks():
break``, that corrupts trio's state: both belong to the task that opened them.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, TypeAlias

import trio

Generator: TypeAlias = AsyncGenerator[Any, Any]

OWNERS: Final = 1000
"""From this number of recorded generators on, generators of ended tasks are removed."""


class DroppedGenerators:
    """The dropped generators of the tasks of one server.

    Args:
        is_owner: returns True for a task that closes the generators that it has begun.
        notify: called in the trio thread when a generator was dropped.

    Attributes:
        by_task: the dropped generators, by the task that must close them.
    """

    def __init__(self, is_owner: Callable[[trio.lowlevel.Task], bool], notify: Callable[[], object]) -> None:
        self.is_owner = is_owner
        self._notify = notify
        self.by_task: dict[trio.lowlevel.Task, list[Generator]] = {}

    def add(self, owner: trio.lowlevel.Task, generator: Generator) -> None:
        """Add a dropped generator of a task."""
        self.by_task.setdefault(owner, []).append(generator)
        self._notify()

    def pop(self) -> Generator | None:
        """Remove and return a generator of the current task, the innermost first; return None if there is none."""
        task = trio.lowlevel.current_task()
        dropped = self.by_task.get(task)
        if dropped is None:
            return None
        generator = dropped.pop()
        if not dropped:
            del self.by_task[task]
        return generator

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Collect dropped generators during the block."""
        try:
            hooks = _hooks.get()
        except LookupError:
            hooks = _Hooks()
            _hooks.set(hooks)
        hooks.add(self)
        try:
            yield
        finally:
            hooks.remove(self)


class _Hooks:
    """Python's hooks for async generators, wrapped around those of trio, in one trio run."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._collections: list[DroppedGenerators] = []
        self._owners: dict[int, weakref.ref[trio.lowlevel.Task]] = {}
        self._held: list[tuple[trio.lowlevel.Task, Generator]] = []
        self._installed = False
        self._before = sys.get_asyncgen_hooks()
        self._mine = (self._begun, self._dropped)

    def add(self, collection: DroppedGenerators) -> None:
        """Collect generators for another server."""
        self._collections.append(collection)
        if not self._installed:
            self._installed = True
            self._before = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(*self._mine)

    def remove(self, collection: DroppedGenerators) -> None:
        """Stop collecting for a server. After the last one, remove the hooks, unless other hooks wrap them."""
        self._collections.remove(collection)
        if not self._collections and sys.get_asyncgen_hooks() == self._mine:
            sys.set_asyncgen_hooks(*self._before)
            self._installed = False
            self._release_held(everything=True)

    def _begun(self, generator: Generator) -> None:
        """Record the task that begins a generator; called by Python."""
        if self._is_inside():
            self._owners[id(generator)] = weakref.ref(trio.lowlevel.current_task())
            if len(self._owners) > OWNERS:
                self._owners = {key: task for key, task in self._owners.items() if not _has_ended(task())}
        else:
            self._owners.pop(id(generator), None)
        if self._before.firstiter is not None:
            self._before.firstiter(generator)

    def _dropped(self, generator: Generator) -> None:
        """Handle a generator without references; called by Python, in any thread."""
        reference = self._owners.pop(id(generator), None)
        owner = None if reference is None else reference()
        if self._is_inside():
            self._assign(owner, generator)
            return
        try:
            self._token.run_sync_soon(self._assign, owner, generator)
        except trio.RunFinishedError:
            self._finalize(generator)

    def _assign(self, owner: trio.lowlevel.Task | None, generator: Generator) -> None:
        """Pass a generator to the task that must close it, or to trio."""
        self._release_held()
        if owner is None or _has_ended(owner):
            self._finalize(generator)
            return
        for collection in self._collections:
            if collection.is_owner(owner):
                collection.add(owner, generator)
                return
        if owner.child_nurseries:  # a nursery may be open inside the generator, and trio would wake the wrong task
            self._held.append((owner, generator))
        else:
            self._finalize(generator)

    def _release_held(self, *, everything: bool = False) -> None:
        """Pass the generators of ended tasks to trio."""
        if not self._held:
            return
        held, self._held = self._held, []
        for owner, generator in held:
            if everything or _has_ended(owner):
                self._finalize(generator)
            else:
                self._held.append((owner, generator))

    def _finalize(self, generator: Generator) -> None:
        if self._before.finalizer is not None:
            self._before.finalizer(generator)

    def _is_inside(self) -> bool:
        return trio.lowlevel.in_trio_task() and trio.lowlevel.current_trio_token() is self._token


_hooks: trio.lowlevel.RunVar[_Hooks] = trio.lowlevel.RunVar("asyncapy_generator_hooks")


def _has_ended(task: trio.lowlevel.Task | None) -> bool:
    return task is None or task.coro.cr_frame is None
