"""`Enclosure`: runs foreign code, and can end it although it shields itself from cancellation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.net.corking import run_with_wait_hook

if TYPE_CHECKING:
    import logging
    from types import FrameType

FORCED_SECONDS: Final = 1.0
"""The time that code has to end after its shields were removed, before new ones are removed."""


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

    @property
    def is_cancelled(self) -> bool:
        """Whether the code was cancelled."""
        return self._scope.cancel_called

    async def run(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the code in the current task, to its end or until it is cancelled."""
        self._task = trio.lowlevel.current_task()
        try:
            with ForeignScope(self._scope):
                await function()
        finally:
            self._task = None
            self.ended.set()

    def cancel(self) -> None:
        """Cancel the code."""
        self._scope.cancel()

    def force(self) -> None:
        """Remove the shields inside the code, so that it is cancelled."""
        if self._task is not None:
            remove_shields(self._task, self._scope)


def remove_shields(task: trio.lowlevel.Task, outermost: trio.CancelScope) -> None:
    """Remove the shields of a task and of the tasks in its nurseries, up to the scope that was cancelled.

    trio has no public way to find the scopes of a task.
    """
    status = getattr(task, "_cancel_status", None)
    while status is not None and status._scope is not outermost:  # noqa: SLF001  # see above
        status._scope.shield = False  # noqa: SLF001  # see above
        status = status.parent
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            remove_shields(child, outermost)


def place_of(task: trio.lowlevel.Task) -> str:
    """Return the innermost line of a task in code of neither trio nor AsyncAPY, for the log."""
    place = "a task"
    for frame in _frames(task):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("trio", "asyncapy_core", "contextlib"):
            place = f"{frame.f_code.co_name!r} at {frame.f_code.co_filename}:{frame.f_lineno}"
    return place


def _frames(task: trio.lowlevel.Task) -> Iterator[FrameType]:
    """Yield the frames of a task, the outermost first, also those inside `run_with_wait_hook`."""
    for frame, _ in task.iter_await_frames():
        yield frame
        inner: Any = None
        if frame.f_code is run_with_wait_hook.__code__:
            inner = frame.f_locals.get("coroutine")
        while (found := getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)) is not None:
            yield found
            inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)


async def end_all(enclosures: Iterable[Enclosure], seconds: float, log: logging.Logger) -> None:
    """Cancel code that runs, and wait until it has ended; remove its shields after a while, and again each second.

    Args:
        enclosures: the code.
        seconds: the time that it has to end before its shields are removed.
        log: gets an error for code that has not ended in time.
    """
    running = [each for each in enclosures if not each.ended.is_set()]
    for each in running:
        each.cancel()
    running = await _wait(running, seconds)
    for each in running:
        log.error(
            "{Server} %s has not ended within %g s after its cancellation; its shields are removed", each.title, seconds
        )
    complaint = "{Server} %s goes on after its cancellation; the server waits for it"
    while running:
        for each in running:
            each.force()
        running = await _wait(running, FORCED_SECONDS)
        for each in running if complaint else ():
            log.error(complaint, each.title)
        complaint = ""


async def _wait(enclosures: list[Enclosure], seconds: float) -> list[Enclosure]:
    """Wait until this code has ended; return the part that has not in time."""
    with trio.move_on_after(seconds, shield=True):
        for each in enclosures:
            await each.ended.wait()
    return [each for each in enclosures if not each.ended.is_set()]
