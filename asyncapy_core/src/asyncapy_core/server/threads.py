"""`ThreadCalls`: blocking calls of handlers in threads. A server that ends does not wait for them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

if TYPE_CHECKING:
    import logging

T = TypeVar("T")

SHARE: Final = 0.25
"""The part of trio's default limiter that one session may use, so that threads are left for other sessions."""


class SessionThreads:
    """The threads of one session."""

    __slots__ = ("_limiter",)

    def __init__(self) -> None:
        self._limiter: trio.CapacityLimiter | None = None

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """The limiter of the session, a share of trio's default limiter when it is first used."""
        if self._limiter is None:
            total = trio.to_thread.current_default_thread_limiter().total_tokens
            self._limiter = trio.CapacityLimiter(total if total == math.inf else max(1, int(total * SHARE)))
        return self._limiter


_session: ContextVar[SessionThreads] = ContextVar("session")


def begin_session() -> None:
    """Count the threads of this task, and of the tasks that it starts, as those of a new session."""
    _session.set(SessionThreads())


class ThreadCalls:
    """The blocking calls of one server."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._shields: set[trio.CancelScope] = set()
        self._abandoned = False

    async def run(self, function: Callable[[], T], *, cancellable: bool, limiter: trio.CapacityLimiter | None) -> T:
        """Run a function in a thread and return its result.

        Args:
            function: called without arguments.
            cancellable: abandon the thread when this is cancelled; otherwise a cancellation waits for the thread, until
                the server ends.
            limiter: bounds the number of threads; if None, trio's default limiter does, and the share of the session.
        """
        session = _session.get(None) if limiter is None else None
        if session is None:
            return await self._run(function, cancellable=cancellable, limiter=limiter)
        place = _Place(function, session.limiter)
        await session.limiter.acquire_on_behalf_of(place)
        try:
            return await self._run(place, cancellable=cancellable, limiter=None)
        finally:
            if not place.begun:
                place.release()

    async def _run(self, function: Callable[[], T], *, cancellable: bool, limiter: trio.CapacityLimiter | None) -> T:
        if cancellable or self._abandoned:
            return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
        limit = limiter or trio.to_thread.current_default_thread_limiter()
        borrower = object()
        await limit.acquire_on_behalf_of(borrower)
        try:
            with trio.CancelScope(shield=True) as shield:
                self._shields.add(shield)
                try:
                    return await trio.to_thread.run_sync(
                        function, abandon_on_cancel=True, limiter=trio.CapacityLimiter(math.inf)
                    )
                finally:
                    self._shields.discard(shield)
        finally:
            limit.release_on_behalf_of(borrower)
        raise AssertionError("a shield is never cancelled by itself")  # pragma: no cover

    def begin(self) -> None:
        """Wait for threads, as the server begins to serve."""
        self._abandoned = False

    def abandon(self) -> None:
        """Abandon the threads whose callers are cancelled; they run until their functions return."""
        self._abandoned = True
        if self._shields:
            self._log.warning("{Server} %d blocking calls in threads were abandoned", len(self._shields))
        for shield in tuple(self._shields):
            shield.shield = False


class _Place(Generic[T]):
    """A function for a thread of a session. The session gets its place back when the function has returned.

    That may be later than its caller has stopped waiting, so that a client cannot use up the threads by cancelling.

    Args:
        function: called in the thread.
        limiter: the limiter of the session, which this object has acquired.
    """

    def __init__(self, function: Callable[[], T], limiter: trio.CapacityLimiter) -> None:
        self._function = function
        self._limiter = limiter
        self._token = trio.lowlevel.current_trio_token()
        self._taken = True
        self.begun: bool = False

    def __call__(self) -> T:
        self.begun = True
        try:
            return self._function()
        finally:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.release)

    def release(self) -> None:
        """Give the place back, in the thread of trio; a second call does nothing."""
        if self._taken:
            self._taken = False
            self._limiter.release_on_behalf_of(self)
