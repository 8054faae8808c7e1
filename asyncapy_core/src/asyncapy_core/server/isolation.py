"""`PeerTasks`: tasks that run for one peer each. An exception of such a task is logged, and drops that peer only."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from asyncapy_core.foreign.inspection import is_a, is_group, leaves, split
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import FailureLog, RateLimited, escape_for_log
from asyncapy_core.server.enclosure import FORCED_SECONDS, place_of, remove_shields
from asyncapy_core.server.generators import DroppedGenerators

RECHECK_SECONDS: Final = 60.0
"""How often a task that cannot end checks again whether it can; see `PeerTasks`."""

SHIELDED_SECONDS: Final = 10.0
"""The time that shielded code of a peer has to end when the server does, before its shields are removed."""


class Peer(Protocol):
    """The owner of a task."""

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger for its failures."""

    def drop(self) -> None:
        """Close its connection at once, and forget it; may be called twice."""


class CancellationWatch:
    """Notices at once when the scope around `run` is cancelled.

    A `trio.Cancelled` does not tell its scope: a handler may have kept the exception, or left a cancel scope open in
    its task. This tells whether the scope may be the server's.

    Attributes:
        cancelled: whether the scope was cancelled.
    """

    def __init__(self) -> None:
        self.cancelled = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait until cancelled."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self.cancelled = True
            return trio.lowlevel.Abort.SUCCEEDED

        task_status.started()
        await trio.lowlevel.wait_task_rescheduled(abort)


def is_cancellation(error: BaseException) -> bool:
    """Return True for a `trio.Cancelled`, and for a group that contains one."""
    return any(is_a(leaf, trio.Cancelled) for leaf in leaves(error))


def is_descendant(task: trio.lowlevel.Task, ancestor: trio.lowlevel.Task | None) -> bool:
    """Return True if a task is ``ancestor``, or a task of a nursery below it, at any depth."""
    while task is not ancestor:
        if task.parent_nursery is None:
            return False
        task = task.parent_nursery.parent_task
    return True


class PeerTasks:
    """Starts the tasks that run for the peers of a server.

    A task closes the async generators that its handlers have dropped (`generators`). If a handler keeps a generator
    with an open nursery, the task cannot end: trio would cancel all other tasks. Then it cancels the tasks in that
    nursery, and waits until the generator is dropped and can be closed, or until the server ends.

    Args:
        nursery: the nursery of the tasks.
        watch: tells whether that nursery is cancelled.
        log: the logger for failures of peers without a session.

    Attributes:
        failures: logs failures, a limited number a second.
        dropped: the async generators to be closed by the tasks that began them.
    """

    def __init__(self, nursery: trio.Nursery, watch: CancellationWatch, log: logging.Logger) -> None:
        self._nursery = nursery
        self._watch = watch
        self._log = log
        self._should_log = RateLimited()
        self._ended = False
        self._waiting = trio.lowlevel.ParkingLot()
        self.failures: FailureLog = FailureLog()
        self.dropped: DroppedGenerators = DroppedGenerators(self._is_own, self._waiting.unpark_all)

    def is_servers(self, error: BaseException) -> bool:
        """Return True for an exception that must propagate, as it is not a failure of the code that raised it.

        That is a Ctrl+C, a cancellation while the server is cancelled, or the GeneratorExit with which Python closes an
        abandoned coroutine. For a group, use `split`.
        """
        if is_a(error, trio.Cancelled):
            return self._watch.cancelled
        if is_a(error, GeneratorExit):
            return not trio.lowlevel.in_trio_task()
        return is_interrupt(error)

    def split(self, error: BaseException) -> tuple[BaseException | None, BaseException | None]:
        """Split an exception into the part that must propagate (`is_servers`) and the failure; either may be None."""
        return split(error, self.is_servers)

    def start(self, peer: Peer, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run ``function(*args)`` in a new task. An exception is logged, and drops the peer."""
        self.call(self._nursery.start_soon, self._run, peer, function, args, peer=peer)

    def call(self, function: Callable[..., object], *args: Any, peer: Peer | None = None) -> None:
        """Call ``function(*args)``. An exception is logged, and drops the peer."""
        try:
            function(*args)
        except BaseException as error:  # the one place that catches the exceptions of a peer's code
            self._fail(peer, error)

    async def end(self) -> None:
        """Wait for the end of all tasks, whose nursery is cancelled; remove the shields of code that goes on."""
        self._ended = True
        self._waiting.unpark_all()
        patience, complaint = SHIELDED_SECONDS, True
        while True:
            with trio.move_on_after(patience, shield=True):
                while self._running():
                    await self._waiting.park()
                return
            for task in self._running():
                if complaint:
                    line = "{Server} %s has not ended within %g s after its cancellation; its shields are removed"
                    self._log.error(line, place_of(task), SHIELDED_SECONDS)
                remove_shields(task, self._nursery.cancel_scope)
            patience, complaint = FORCED_SECONDS, False

    def _running(self) -> list[trio.lowlevel.Task]:
        return [task for task in self._nursery.child_tasks if self._is_own(task)]

    async def close_dropped(self, peer: Peer) -> None:
        """Close the dropped async generators that the current task has begun.

        Raises:
            BaseException: the part of an exception of their clean-up that must propagate. A cancellation of an
                enclosing scope is raised when all of them are closed.
        """
        cancellation: BaseException | None = None
        while (generator := self.dropped.pop()) is not None:
            name = escape_for_log(getattr(generator, "__qualname__", ""))
            try:
                await generator.aclose()
            except BaseException as error:  # the clean-up of a generator may raise anything
                rest: BaseException | None = error
                if is_cancellation(error) and trio.current_effective_deadline() == -math.inf:
                    cancellation, rest = split(error, lambda leaf: is_a(leaf, trio.Cancelled))  # of an enclosing scope
                through, failure = (None, None) if rest is None else self.split(rest)
                if is_group(failure):
                    failure = split(failure, lambda leaf: is_a(leaf, GeneratorExit))[1]  # raised by a nursery inside
                if failure is not None:
                    self.failures.report(peer.log, f"{{API Parser}} Async generator '{name}'", failure)
                if through is not None:
                    raise through from None
            if self._should_log():
                peer.log.warning(
                    "{API Parser} Async generator '%s' was left open by a handler or filter, and was closed; "
                    "use 'async with contextlib.aclosing(...)'",
                    name,
                )
        if cancellation is not None:
            try:
                raise cancellation
            finally:
                cancellation = None  # no reference cycle

    async def _run(self, peer: Peer, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        try:
            try:
                await function(*args)
            except BaseException as error:  # the one place that catches the exceptions of a peer's code
                self._fail(peer, error)
            task = trio.lowlevel.current_task()
            while task in self.dropped.by_task or (task.child_nurseries and not self._ended):
                try:
                    await self.close_dropped(peer)
                except BaseException as error:  # as above
                    self._fail(peer, error)
                if task.child_nurseries and not self._ended:
                    for nursery in task.child_nurseries:
                        nursery.cancel_scope.cancel()
                    with trio.move_on_after(RECHECK_SECONDS, shield=True):
                        await self._waiting.park()
        finally:
            if self._ended:
                self._waiting.unpark_all()

    def _fail(self, peer: Peer | None, error: BaseException) -> None:
        """Log a failure, and drop its peer.

        Raises:
            BaseException: the part that must propagate.
        """
        through: BaseException | None = None
        try:
            through, failure = self.split(error)
            if failure is not None:
                log = logging.LoggerAdapter(self._log) if peer is None else peer.log
                self.failures.report(log, "{Client handler} The session", failure)
        except BaseException as second:  # every method of an exception may raise
            if is_interrupt(second):
                raise
            self._log.error("{Client handler} A session failed, and its exception cannot be examined")
        finally:
            if peer is not None:
                peer.drop()
        if through is not None:
            raise through

    def _is_own(self, task: trio.lowlevel.Task) -> bool:
        """Return True for a task started by `start`."""
        return task.parent_nursery is self._nursery and task.coro.cr_code is PeerTasks._run.__code__
