"""Async generators that a task of a peer has dropped unfinished, to be closed by that task.

trio closes them in a task of its own. One that has a nursery or a cancel scope open inside, as in ``async for x in
ticks(): break``, must not be closed there: both belong to the task that opened them, and trio's state is corrupted.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, TypeAlias

import trio

Generator: TypeAlias = AsyncGenerator[Any, Any]

_OWNER: Final = "@asyncapy_task"
"""The name under which a generator's frame keeps the task that began it; no variable can have it."""


class DroppedGenerators:
    """The dropped generators of some tasks, by task.

    Args:
        is_owner: whether a task closes the generators that it has begun.
        notify: called in the trio thread when there is one to be closed.
    """

    def __init__(self, is_owner: Callable[[trio.lowlevel.Task], bool], notify: Callable[[], object]) -> None:
        self._is_owner = is_owner
        self._notify = notify
        self._dropped: dict[trio.lowlevel.Task, list[Generator]] = {}

    def __bool__(self) -> bool:
        """Whether any is to be closed."""
        return bool(self._dropped)

    def take(self) -> list[Generator]:
        """Return the dropped generators of the current task, the innermost first."""
        return self._dropped.pop(trio.lowlevel.current_task(), [])[::-1]

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Collect generators for the length of a block, by hooks around trio's."""
        begin, finalize = sys.get_asyncgen_hooks()
        token = trio.lowlevel.current_trio_token()

        def begun(generator: Generator) -> None:
            if trio.lowlevel.in_trio_task() and self._is_owner(task := trio.lowlevel.current_task()):
                _locals(generator)[_OWNER] = task
            if begin is not None:
                begin(generator)

        def dropped(generator: Generator) -> None:
            owner = _locals(generator).get(_OWNER)
            if owner is None or owner.coro.cr_frame is None:  # nobody's, or its task has ended
                if finalize is not None:
                    finalize(generator)
            elif trio.lowlevel.in_trio_task():
                self._add(owner, generator)
            else:
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._add, owner, generator)

        sys.set_asyncgen_hooks(begun, dropped)
        try:
            yield
        finally:
            if sys.get_asyncgen_hooks() == (begun, dropped):  # or else those of a server that came later call these
                sys.set_asyncgen_hooks(begin, finalize)

    def _add(self, owner: trio.lowlevel.Task, generator: Generator) -> None:
        self._dropped.setdefault(owner, []).append(generator)
        self._notify()


def _locals(generator: Generator) -> dict[str, Any]:
    """Return the local variables of a generator that has not ended; names that are no variables stay in it as well."""
    found: dict[str, Any] = generator.ag_frame.f_locals  # type: ignore[attr-defined]  # the protocol leaves it out
    return found
