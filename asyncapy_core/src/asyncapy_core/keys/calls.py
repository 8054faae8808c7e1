"""Runs blocking calls of a key store in threads: a few at a time, and networks of clients take turns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.keys.turns import Turns

THREADS: Final = 8
"""The most concurrent calls of one factory to a blocking store."""

LONGEST_QUEUE: Final = 20_000
"""The most calls of one factory that wait for a thread. Beyond it, a call of the network with the most calls fails."""

T = TypeVar("T")


class CallQueue:
    """A queue of calls and the threads that run them, in one run of trio.

    Networks take turns, so that a client need not wait for the calls of all others. One network occupies at most three
    quarters of the threads; calls without a network may occupy all. Within a network, the calls begin in their order.

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
        self._most = threads - threads // 4
        self._longest = longest
        self._running_of: Counter[str] = Counter()
        self._turns: Turns[_Turn] = Turns()
        self._answered = -math.inf

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return len(self._turns)

    async def run(self, call: Callable[[], T], seconds: float, *, network: str = "") -> T:
        """Run a call in a thread, and return its result.

        Args:
            call: the call; it may raise any exception.
            seconds: the timeout of the call; ``math.inf`` without a limit.
            network: the network of the client that has caused the call, or ``""``.

        Raises:
            KeyStoreUnavailable: the call takes too long, the store hangs, or too many calls wait.
        """
        with ForeignScope(trio.CancelScope()) as scope:
            turn = _Turn(self, scope, seconds, network)
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

    async def enter(self, turn: _Turn) -> None:
        """Wait for a thread. `leave` must follow."""
        if not self._turns.has(turn.network) and self._has_thread(turn.network):
            self._begin(turn)
            return
        if self.waiting >= self._longest:
            newest = self._turns.take_newest(turn.network)
            if newest is None:
                raise self._full()
            newest.decided.set()
        self._turns.add(turn, turn.network)
        since = trio.current_time()
        try:
            while not turn.decided.is_set():
                with trio.move_on_at(max(since, self._answered) + turn.seconds):
                    await turn.decided.wait()
                if not turn.decided.is_set() and trio.current_time() >= max(since, self._answered) + turn.seconds:
                    raise _no_answer(turn.seconds)
        except BaseException:  # re-raised after the place in the queue is given up
            if turn.began:
                self.leave(turn)
            elif not turn.decided.is_set():
                self._turns.remove(turn, turn.network)
            raise
        if not turn.began:
            raise self._full()

    def leave(self, turn: _Turn) -> None:
        """Give the thread of a call to the network whose turn it is."""
        self.running -= 1
        self._running_of[turn.network] -= 1
        if not self._running_of[turn.network]:
            del self._running_of[turn.network]
        following = self._turns.take(self._has_thread)
        if following is not None:
            self._begin(following)
            following.decided.set()

    def _has_thread(self, network: str) -> bool:
        return self.running < self._threads and (not network or self._running_of[network] < self._most)

    def _begin(self, turn: _Turn) -> None:
        turn.began = True
        self.running += 1
        self._running_of[turn.network] += 1

    def _full(self) -> KeyStoreUnavailable:
        return KeyStoreUnavailable(f"{self.waiting} calls wait for the key store, the most that may; try again")


class _Turn:
    """The limiter of one call: `trio.to_thread.run_sync` enters the queue before the thread, and leaves it after it.

    Attributes:
        decided: set when the call may begin, or is refused.
        began: whether it may begin.
    """

    def __init__(self, queue: CallQueue, scope: trio.CancelScope, seconds: float, network: str) -> None:
        self.seconds = seconds
        self.network = network
        self.decided: trio.Event = trio.Event()
        self.began = False
        self._queue = queue
        self._scope = scope

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._queue.enter(self)
        self._scope.deadline = trio.current_time() + self.seconds

    def release_on_behalf_of(self, borrower: object) -> None:
        self._queue.leave(self)


def _no_answer(seconds: float) -> KeyStoreUnavailable:
    return KeyStoreUnavailable(f"the key store did not answer within {seconds:g} s")
