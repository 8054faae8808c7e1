"""Runs blocking calls of a key store in threads: a few at a time, in the order of their callers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from asyncapy_core.errors import KeyStoreUnavailable

THREADS: Final = 8
"""The most concurrent calls of one factory to a blocking store."""

LONGEST_QUEUE: Final = 20_000
"""The most calls of one factory that wait for a thread. A further call fails immediately."""

T = TypeVar("T")


class CallQueue:
    """A queue of calls and the threads that run them, in one run of trio.

    The timeout of a call begins when its thread begins. A call that waits fails if it has waited for its timeout and
    the store has not answered any call in that time: the store hangs. The thread of a call that timed out counts until
    it ends, so a store that hangs is called by few threads.

    Args:
        threads: the most concurrent calls.
        longest: the most waiting calls.

    Attributes:
        running: the number of threads that run a call, including calls that have timed out.
    """

    def __init__(self, threads: int = THREADS, longest: int = LONGEST_QUEUE) -> None:
        self.running: int = 0
        self._threads = threads
        self._longest = longest
        self._waiting: OrderedDict[trio.Event, None] = OrderedDict()
        self._answered = -math.inf

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return len(self._waiting)

    async def run(self, call: Callable[[], T], seconds: float) -> T:
        """Run a call in a thread, after all earlier ones have begun, and return its result.

        Args:
            call: the call; it may raise any exception.
            seconds: the timeout of the call; ``math.inf`` without a limit.

        Raises:
            KeyStoreUnavailable: the call takes too long, the store hangs, or too many calls wait.
        """
        with trio.CancelScope() as scope:
            turn = _Turn(self, scope, seconds)
            try:
                result = await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=turn)  # type: ignore[arg-type]  # trio accepts any object with these two methods
            except (KeyStoreUnavailable, trio.Cancelled):
                raise
            except BaseException:  # the answer of a store; re-raised
                self._answered = trio.current_time()
                raise
            self._answered = trio.current_time()
            return result
        raise _no_answer(seconds)

    async def enter(self, seconds: float) -> None:
        """Wait for a thread, with this timeout. `leave` must follow."""
        if self.running < self._threads and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self._longest:
            raise KeyStoreUnavailable(f"{self.waiting} calls wait for the key store, the most that may; try again")
        turn, since = trio.Event(), trio.current_time()
        self._waiting[turn] = None
        try:
            while not turn.is_set():
                with trio.move_on_at(max(since, self._answered) + seconds):
                    await turn.wait()
                if not turn.is_set() and trio.current_time() >= max(since, self._answered) + seconds:
                    raise _no_answer(seconds)
        except BaseException:  # re-raised after the place in the queue is given up
            if turn.is_set():
                self.leave()
            else:
                del self._waiting[turn]
            raise

    def leave(self) -> None:
        """Give the thread to the call that has waited longest."""
        if self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            turn.set()
        else:
            self.running -= 1


class _Turn:
    """The limiter of one call: `trio.to_thread.run_sync` enters the queue before the thread, and leaves it after it."""

    def __init__(self, queue: CallQueue, scope: trio.CancelScope, seconds: float) -> None:
        self._queue = queue
        self._scope = scope
        self._seconds = seconds

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._queue.enter(self._seconds)
        self._scope.deadline = trio.current_time() + self._seconds

    def release_on_behalf_of(self, borrower: object) -> None:
        self._queue.leave()


def _no_answer(seconds: float) -> KeyStoreUnavailable:
    return KeyStoreUnavailable(f"the key store did not answer within {seconds:g} s")
