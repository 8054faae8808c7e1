"""`Enclosure`: runs foreign code, and can end it although it shields itself or catches its cancellation."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    import logging

MAX_CAUGHT: Final = 100
"""Cancellations that code may catch, after its shields were removed, before it is not resumed any more."""

FORCED_SECONDS: Final = 1.0
"""The time that code has to end after its shields were removed."""


class Enclosure:
    """Runs foreign code in a task.

    Args:
        title: the code, for messages.

    Attributes:
        title: as given.
        ended: set when the code has ended.
    """

    def __init__(self, title: str) -> None:
        self.title: str = title
        self.ended: trio.Event = trio.Event()
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._forced = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the code was cancelled."""
        return self._scope.cancel_called

    async def run(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the code in the current task, to its end or until it is cancelled."""
        self._task = trio.lowlevel.current_task()
        try:
            with self._scope:
                await self._resume(function())
        finally:
            self._task = None
            self.ended.set()

    def cancel(self) -> None:
        """Cancel the code."""
        self._scope.cancel()

    def force(self) -> None:
        """Remove the shields inside the code, so that it is cancelled, and do not resume it for ever."""
        self._forced = True
        if self._task is not None:
            _remove_shields(self._task, self._scope)

    @types.coroutine
    def _resume(self, coroutine: Coroutine[Any, Any, object]) -> Generator[Any, Any, object]:
        """Run a coroutine like ``await``. Once it is forced to end, it may catch `MAX_CAUGHT` cancellations."""
        assert self._task is not None
        step: Callable[[Any], Any] = coroutine.send
        answer: Any = None
        caught = 0
        while True:
            try:
                request = step(answer)
            except StopIteration as done:
                return done.value
            finally:
                answer = None  # an exception may have this frame in its traceback: a reference cycle
            if self._forced:
                _remove_shields(self._task, self._scope)
            try:
                answer = yield request
                step = coroutine.send
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # thrown in by the scheduler, raised inside the coroutine
                answer, step = error, coroutine.throw
            caught += self._forced and isinstance(getattr(answer, "error", answer), trio.Cancelled)
            if caught > MAX_CAUGHT and not self._task.child_nurseries:  # they would lose their parent
                _close(coroutine)
                return None


def _close(coroutine: Coroutine[Any, Any, object]) -> None:
    """Close a coroutine, which leaves its cancel scopes. Code that catches a GeneratorExit is closed again."""
    for _ in range(MAX_CAUGHT):
        with contextlib.suppress(Exception):  # foreign code may raise anything; RuntimeError if it goes on
            coroutine.close()
            return


def _remove_shields(task: trio.lowlevel.Task, outermost: trio.CancelScope) -> None:
    """Remove the shields of a task and of the tasks in its nurseries, up to the scope that was cancelled.

    trio has no public way to find the scopes of a task.
    """
    status = getattr(task, "_cancel_status", None)
    while status is not None and status._scope is not outermost:  # noqa: SLF001  # see above
        status._scope.shield = False  # noqa: SLF001  # see above
        status = status.parent
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            _remove_shields(child, outermost)


async def end_all(enclosures: Iterable[Enclosure], seconds: float, log: logging.Logger) -> None:
    """Cancel code that runs, wait until it has ended, and force it after a while.

    Args:
        enclosures: the code.
        seconds: the time that it has to end before it is forced.
        log: gets an error for code that has to be forced.
    """
    running = [each for each in enclosures if not each.ended.is_set()]
    for each in running:
        each.cancel()
    for limit, verdict in ((seconds, "is forced to end"), (FORCED_SECONDS, "cannot be ended; the server waits for it")):
        with trio.move_on_after(limit, shield=True):
            for each in running:
                await each.ended.wait()
        running = [each for each in running if not each.ended.is_set()]
        for each in running:
            log.error(
                "{Server} %s has not ended within %g s after its cancellation, and %s", each.title, limit, verdict
            )
            each.force()
