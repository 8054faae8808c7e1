"""`SessionContexts`: serves each session inside the async context managers of plugins and of `Server.on_session`.

Servers without these do not use this module: it costs a session a task, which enters and leaves the context managers,
and in between waits for the end of the connection. The task of the connection is not below it in the tree of tasks: in
version 22, packets of tasks in a nursery of a context manager would be taken for answers of handlers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.foreign.inspection import leaves
from asyncapy_core.logs import Mistake
from asyncapy_core.plugins.bound_hook import report_failure
from asyncapy_core.plugins.hook_results import refuse_coroutine
from asyncapy_core.plugins.implementations import short_repr
from asyncapy_core.server.handling import has_left
from asyncapy_core.server.isolation import Peer, PeerTasks

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncapy_core.plugins.bound_hook import BoundHook
    from asyncapy_core.session import Client

SESSION: Final = "The session"

LEAVE_SECONDS: Final = 10.0
"""The time that the context managers of a session have together to be left."""


class Hosted(Peer, Protocol):
    """A connection.

    Attributes:
        ended: set when the connection has ended, if it is not None.
    """

    client: Client
    ended: trio.Event | None

    def run(self) -> Awaitable[None]:
        """Serve the peer until the session ends, or until another task goes on with it."""

    def lose(self) -> None:
        """End the session and its requests."""

    def end(self) -> None:
        """Drop the connection."""


class SessionContexts:
    """The context managers around the sessions of a server.

    Args:
        hooks: these return the context managers.
        peers: the tasks of the peers, for failures.
        timeout: the seconds that the context managers of a session have together to be entered.
    """

    def __init__(self, hooks: Sequence[BoundHook], peers: PeerTasks, timeout: float) -> None:
        self._hooks = hooks
        self._peers = peers
        self._timeout = timeout
        self._visits: set[_Visit] = set()
        self._left = trio.Event()

    async def run(self, connection: Hosted) -> None:
        """Serve a session to its end, and leave its context managers."""
        visit = _Visit(connection, self._timeout, self._start, self._fail)
        self._visits.add(visit)
        try:
            await visit.run(self._hooks)
        except BaseException as error:  # a plugin may raise anything
            self._fail(visit, error)
        finally:
            self._visits.discard(visit)
            self._left.set()

    def _start(self, connection: Hosted) -> None:
        self._peers.start(connection, connection.run)

    def _fail(self, visit: _Visit, error: BaseException) -> None:
        """Log a failure with the name of its plugin.

        Raises:
            BaseException: the part of the exception that must propagate.
        """
        through, failure = self._peers.split(error)
        if has_left(failure, visit.connection.client):  # no failure of a plugin
            visit.connection.log.info("{Client handler} %s: the client has left", visit.subject)
        elif failure is not None:
            report_failure(self._peers.failures, visit.connection.log, f"{{Client handler}} {visit.subject}", failure)
        if through is not None:
            raise through

    def stop(self) -> None:
        """Cancel the sessions that have not been entered, as the server drains."""
        for visit in tuple(self._visits):
            visit.stop()

    @property
    def hold_ups(self) -> list[str]:
        """The context managers for which ended sessions wait, without repetitions."""
        return sorted({visit.hold_up for visit in self._visits} - {""})

    async def wait_until_left(self) -> None:
        """Wait until all sessions have been left."""
        while self._visits:
            self._left = trio.Event()
            await self._left.wait()


class _Visit:
    """A session inside its context managers.

    Args:
        connection: the connection.
        timeout: as for `SessionContexts`.
        start: starts the task of the connection.
        report: logs an exception of `subject`.

    Attributes:
        connection: as given.
        subject: the plugin that has failed, or the session.
    """

    def __init__(
        self,
        connection: Hosted,
        timeout: float,
        start: Callable[[Hosted], None],
        report: Callable[[_Visit, BaseException], None],
    ) -> None:
        self.connection = connection
        self.subject = SESSION
        self._start = start
        self._report = report
        self._scope = trio.CancelScope(deadline=trio.current_time() + timeout)
        self._current = ""
        self._begun = False
        self._lateness_is_logged = False

    @property
    def hold_up(self) -> str:
        """The context manager for which the session waits, after its connection has ended; otherwise empty."""
        ended = self.connection.ended
        return self._current if ended is not None and ended.is_set() else ""

    async def run(self, hooks: Sequence[BoundHook]) -> None:
        """Enter the context managers, serve the session, and leave them in reverse order.

        Raises:
            BaseException: any exception of a context manager; `subject` names its plugin.
        """
        self.connection.ended = ended = trio.Event()
        try:
            with ForeignScope(self._scope):
                await self._serve_inside(hooks, ended)
        finally:
            if not ended.is_set():
                self.connection.end()
        if self._is_late and not self._lateness_is_logged:
            raise self._late()

    def stop(self) -> None:
        """Cancel the session if it has not been entered."""
        if not self._begun:
            self._scope.deadline = math.inf  # no failure of a plugin
            self._scope.cancel()

    @property
    def _is_late(self) -> bool:
        """Whether the context managers were not entered or left in time."""
        return self._scope.cancel_called and self._scope.deadline < math.inf

    def _late(self) -> TimeoutError:
        return TimeoutError(f"the session was not {'left' if self._begun else 'entered'} in time")

    async def _serve_inside(self, hooks: Sequence[BoundHook], ended: trio.Event) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # a context manager may have caught the cancellation
        if not hooks:
            await self._serve(ended)
            return
        hook, *others = hooks
        title = self._current = f"{hook.title} in {hook.hook}"
        inner: BaseException | None = None
        try:
            async with self._open(hook, title):
                self._note_lateness(title)
                try:
                    await self._serve_inside(others, ended)
                except BaseException as error:
                    inner = error
                    raise
                finally:
                    self._current = title
            self._note_lateness(title)
            self._report_lost(inner, None)
        except BaseException as error:
            self._note_lateness(title)
            if not _contains(inner, error):
                self._report_lost(inner, error)
                self.subject = title
            raise
        finally:
            inner = None  # no reference cycle

    def _note_lateness(self, title: str) -> None:
        """Note the first context manager that was not entered or left in time."""
        if self._is_late and self.subject == SESSION:
            self.subject = title

    def _report_lost(self, inner: BaseException | None, error: BaseException | None) -> None:
        """Log a failure inside a context manager that suppressed it, or that raised another exception for it."""
        if inner is None or self.subject == SESSION or _contains(error, inner):
            return
        if self._is_late and {*map(type, leaves(inner))} == {trio.Cancelled}:
            inner, self._lateness_is_logged = self._late(), True
        self._report(self, inner)
        self.subject = SESSION

    def _open(self, hook: BoundHook, title: str) -> AbstractAsyncContextManager[Any]:
        """Return the context manager of a hook. If there is none, log that, and go on without it.

        Raises:
            BaseException: the hook raised, and is a function of the application or of a required plugin.
        """
        try:
            return _checked(hook(client=self.connection.client))
        except BaseException as error:  # a plugin may raise anything
            if hook.is_own or hook.is_required:
                raise
            self.subject = title
            self._report(self, error)
            self.subject = SESSION
            return nullcontext()

    async def _serve(self, ended: trio.Event) -> None:
        """Serve the session to its end, in a task with a copy of the context."""
        self._begun = True
        self._scope.deadline = math.inf
        self._start(self.connection)
        try:
            await self._wait(ended)
        finally:
            self._scope.deadline = trio.current_time() + LEAVE_SECONDS

    async def _wait(self, ended: trio.Event) -> None:
        """Wait for the end of the connection; if this is cancelled, end the connection first."""
        try:
            await ended.wait()
        except trio.Cancelled:  # by the server, or by a scope of a context manager
            if not ended.is_set():
                self.connection.lose()
                with trio.CancelScope(shield=True):
                    await ended.wait()
            raise


def _checked(result: Any) -> AbstractAsyncContextManager[Any]:
    """Return the result of a hook if it is an async context manager, or one that does nothing for None.

    Raises:
        TypeError: it is another object.
    """
    if result is None:
        return nullcontext()
    refuse_coroutine(result)
    if isinstance(result, AbstractAsyncContextManager):
        return result
    raise Mistake(
        f"expected an async context manager or None, got {short_repr(result)}; decorate an async generator function "
        "with contextlib.asynccontextmanager"
    )


def _contains(error: BaseException | None, part: BaseException | None) -> bool:
    """Return True if all exceptions in ``part`` are in ``error`` as well; either may be a group."""
    return {*map(id, leaves(part))} <= {*map(id, leaves(error))}
