"""`ThreadCalls`: blocking calls of handlers in threads. A server that ends does not wait for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    import logging

T = TypeVar("T")


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
            limiter: bounds the number of threads; trio's default limiter if None.
        """
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
