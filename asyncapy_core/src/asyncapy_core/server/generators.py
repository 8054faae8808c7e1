"""Async generators that a task has dropped unfinished, to be closed by the task that began them.

trio closes them in a task of its own. One that has a nursery or a cancel scope open inside, as in ``async for x in
ticks(): break``, must not be closed there: both belong to the task that opened them, and trio's state is corrupted.
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
"""How many generators may be noted before those of ended tasks are forgotten."""


class DroppedGenerators:
    """The dropped generators of some tasks.

    Args:
        is_owner: whether a task closes the generators that it has begun.
        notify: called in the trio thread when there is one to be closed.

    Attributes:
        by_task: these generators, by the task that has to close them.
    """

    def __init__(self, is_owner: Callable[[trio.lowlevel.Task], bool], notify: Callable[[], object]) -> None:
        self.is_owner = is_owner
        self._notify = notify
        self.by_task: dict[trio.lowlevel.Task, list[Generator]] = {}

    def add(self, owner: trio.lowlevel.Task, generator: Generator) -> None:
        """Have a generator closed by its owner."""
        self.by_task.setdefault(owner, []).append(generator)
        self._notify()

    def pop(self) -> Generator | None:
        """Take out a generator of the current task, the innermost first; return None when there are no more."""
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
        """Collect generators for the length of a block."""
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
    """Python's hooks for async generators, around those of trio, in one run of trio."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._collections: list[DroppedGenerators] = []
        self._owners: dict[int, weakref.ref[trio.lowlevel.Task]] = {}
        self._held: list[tuple[trio.lowlevel.Task, Generator]] = []
        self._installed = False
        self._before = sys.get_asyncgen_hooks()
        self._mine = (self._begun, self._dropped)

    def add(self, collection: DroppedGenerators) -> None:
        """Collect generators, for one server more."""
        self._collections.append(collection)
        if not self._installed:
            self._installed = True
            self._before = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(*self._mine)

    def remove(self, collection: DroppedGenerators) -> None:
        """Collect no longer for a server; after the last one the hooks are removed, unless others were put around."""
        self._collections.remove(collection)
        if not self._collections and sys.get_asyncgen_hooks() == self._mine:
            sys.set_asyncgen_hooks(*self._before)
            self._installed = False
            self._release_held(all_of_them=True)

    def _begun(self, generator: Generator) -> None:
        """Note the task that begins a generator; called by Python."""
        if self._is_inside():
            self._owners[id(generator)] = weakref.ref(trio.lowlevel.current_task())
            if len(self._owners) > OWNERS:
                self._owners = {key: task for key, task in self._owners.items() if not _has_ended(task())}
        else:
            self._owners.pop(id(generator), None)
        if self._before.firstiter is not None:
            self._before.firstiter(generator)

    def _dropped(self, generator: Generator) -> None:
        """See to a generator that nobody refers to; called by Python, in any thread."""
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
        """Give a generator to the task that has to close it, or to trio."""
        self._release_held()
        if owner is None or _has_ended(owner):
            self._finalize(generator)
            return
        for collection in self._collections:
            if collection.is_owner(owner):
                collection.add(owner, generator)
                return
        if owner.child_nurseries:  # one of them may be inside, and trio would wake the wrong task
            self._held.append((owner, generator))
        else:
            self._finalize(generator)

    def _release_held(self, *, all_of_them: bool = False) -> None:
        """Give the generators to trio whose tasks have ended."""
        if not self._held:
            return
        held, self._held = self._held, []
        for owner, generator in held:
            if all_of_them or _has_ended(owner):
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
