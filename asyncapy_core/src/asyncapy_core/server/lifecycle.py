"""`Lifetime`, one run of a server, and `set_up`: the setup before it listens, and the shutdown after it."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import UnexpectedEnd
from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.foreign.inspection import is_a, leaves
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import describe
from asyncapy_core.plugins.exit_stacks import OwnedStack
from asyncapy_core.server.enclosure import FORCED_SECONDS, place_of, remove_shields
from asyncapy_core.server.isolation import CancellationWatch

if TYPE_CHECKING:
    import logging

    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.plugins.server_hooks import ServerHooks
    from asyncapy_core.server.threads import ThreadCalls

CLEANUP_SECONDS: Final = 10.0
"""The limit for the shutdown of the server and of plugins if `Server.serve` is cancelled, and for the exit stack."""

SLOW_SECONDS: Final = 10.0
"""After so long, and again and again, a line in the log names the plugin for which a start waits."""

MIN_END_SECONDS: Final = 1.0
"""The time that functions beside the server have to end at least."""


class _Nothing:
    """An awaitable without a result, which need not be awaited."""

    __slots__ = ()

    def __await__(self) -> Iterator[None]:
        return iter(())


NOTHING: Final = _Nothing()
"""The result of `Server.setup` and `Server.shutdown`: overrides may call them with or without ``await``."""


class Lifetime:
    """One run of a server. A stop before the server listens cancels the run.

    Args:
        stopping: set when the server is to stop.
        log: the log of the server.
        threads: the blocking calls, which are abandoned if the run is cancelled.
        drain_timeout: the seconds that the end of the run may take.
    """

    def __init__(self, stopping: trio.Event, log: logging.Logger, threads: ThreadCalls, drain_timeout: float) -> None:
        self._stopping = stopping
        self._log = log
        self._threads = threads
        self._drain_timeout = drain_timeout
        self._activity = ""
        self._stopped_at: float | None = None
        self._scope = trio.CancelScope()
        self._patience = trio.CancelScope()
        self._forced = self._scope
        self._starting = trio.CancelScope()
        self._cleanup: trio.CancelScope | None = None
        self._listening = False

    async def run(self, serve: Callable[[Lifetime], Awaitable[None]]) -> None:
        """Run ``serve(lifetime)`` to its end.

        Raises:
            UnexpectedEnd: the server ended without a stop, or by a cancellation that is not its own.
        """
        watch = CancellationWatch()
        failure: BaseException | None = None
        self._threads.begin()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._leave_threads_when_cancelled, watch)
            nursery.start_soon(self._cancel_start)
            nursery.start_soon(self._name_slow_plugins)
            nursery.start_soon(self._remove_shields, trio.lowlevel.current_task())
            try:
                with ForeignScope(self._scope):
                    await serve(self)
            except BaseException as error:  # raised again outside the nursery
                failure = error
            cancelled = watch.cancelled
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure if cancelled else _explained(failure)
        if not self._stopping.is_set():
            raise UnexpectedEnd(
                "the server ended without a stop: other code cancelled its tasks; look for code that keeps a "
                "trio.Cancelled, or that cancels a nursery which it has not opened"
            )
        if self._scope.cancelled_caught and self._listening:
            self._log.error("{Server} The exit stack was not closed within %g s, and was cancelled", CLEANUP_SECONDS)
        elif self._scope.cancelled_caught:
            self._log.info("{Server} Stopped before it listened%s", self._activity and f": {self._activity}")

    def listens(self) -> None:
        """Note that the server listens, so that a stop drains it, unless a stop has cancelled the start already."""
        self._listening = not self._scope.cancel_called
        self._starting.cancel()

    def note(self, activity: str) -> None:
        """Note the plugin for which the start waits, for the log; nothing if it waits for none."""
        self._activity = activity

    def seconds_to_end(self) -> float:
        """Return the time that functions beside the server have to end: the rest of ``drain_timeout``, at least 1 s."""
        now = trio.current_time()
        stopped_at = now if self._stopped_at is None else self._stopped_at
        return max(MIN_END_SECONDS, stopped_at + self._drain_timeout - now)

    def limit(self, seconds: float) -> None:
        """Cancel the rest of this run after ``seconds``."""
        self._scope.deadline = trio.current_time() + seconds
        self.force(self._scope, self._scope.deadline + FORCED_SECONDS)

    def force(self, scope: trio.CancelScope, deadline: float) -> None:
        """Remove the shields inside a cancelled scope of the server's task, from a time on, while the task is in it."""
        self._forced, self._patience.deadline = scope, deadline

    async def _cancel_start(self) -> None:
        await self._stopping.wait()
        self._stopped_at = trio.current_time()
        if not self._listening:
            self._scope.cancel()
            self.force(self._scope, trio.current_time() + CLEANUP_SECONDS)
            self._threads.abandon()

    async def _remove_shields(self, task: trio.lowlevel.Task) -> None:
        """Remove the shields of foreign code that goes on after the cancellation of this run, again and again."""
        noted: trio.CancelScope | None = None
        while True:
            with self._patience:
                await trio.sleep_forever()
            if noted is not self._forced:
                line = "{Server} %s goes on after its cancellation; its shields are removed"
                self._log.error(line, place_of(task))
            noted = self._forced
            remove_shields(task, self._forced)
            self._patience = trio.CancelScope(deadline=trio.current_time() + FORCED_SECONDS)

    async def _name_slow_plugins(self) -> None:
        with self._starting:
            while True:
                await trio.sleep(SLOW_SECONDS)
                if self._activity:
                    self._log.warning("{Server} The start takes long: %s", self._activity)

    async def _leave_threads_when_cancelled(
        self, watch: CancellationWatch, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            await watch.run(task_status=task_status)
        finally:
            self._threads.abandon()
            if self._cleanup is not None:
                self._cleanup.deadline = trio.current_time() + CLEANUP_SECONDS

    @contextmanager
    def cleaning_up(self, name: str) -> Iterator[None]:
        """Shield a clean-up from cancellation; if the server is cancelled, for at most `CLEANUP_SECONDS`."""
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=True) as self._cleanup:
            if cancelled:
                self._cleanup.deadline = trio.current_time() + CLEANUP_SECONDS
            yield
        if self._cleanup.cancelled_caught:
            self._log.error("{Server} %s was not done after %g s, and was cancelled", name, CLEANUP_SECONDS)
        self._cleanup = None


@asynccontextmanager
async def set_up(server: ServerInterface, hooks: ServerHooks, lifetime: Lifetime) -> AsyncIterator[None]:
    """Set up the plugins one after the other, then the server; after the block, shut down in reverse order.

    If a plugin takes too long, those before it are shut down, and set up again without it: no cancel scope can be
    around its setup alone, as it may enter a nursery into the exit stack.

    Args:
        server: gets a new ``exit_stack``, which is closed at the end.
        hooks: the hooks of its plugins.
        lifetime: is cancelled if the exit stack cannot be closed in time.

    Raises:
        PluginError: a required plugin failed in setup; the plugins before it were shut down.
    """
    hooks.forget_failures()
    while True:
        with ForeignScope(
            trio.CancelScope()
        ) as patience:  # around the exit stack, into which a setup may enter a nursery

            def note(activity: str, patience: trio.CancelScope = patience) -> None:
                lifetime.note(activity)
                lifetime.force(patience, patience.deadline + CLEANUP_SECONDS)

            async with OwnedStack("the application", server.log, is_own=True) as server.exit_stack:
                server.exit_stack.enter_context(hooks.added_for_now())
                try:
                    await hooks.setup(patience, note)
                    note("Server.setup has not returned")
                    await _await_if_async(server.setup())
                    lifetime.note("")
                    try:
                        yield
                    finally:
                        with lifetime.cleaning_up("shutdown"):
                            await _await_if_async(server.shutdown())
                finally:
                    lifetime.force(patience, math.inf)
                    with lifetime.cleaning_up("the plugins' shutdown"):
                        await hooks.shutdown(lifetime.force)
                    if patience.cancel_called:
                        lifetime.force(patience, trio.current_time() + CLEANUP_SECONDS)
                    else:
                        lifetime.limit(CLEANUP_SECONDS)
        if not patience.cancelled_caught:
            return
        lifetime.limit(math.inf)


def _explained(error: BaseException) -> BaseException:
    """Return the exception to raise for an exception of a run: `UnexpectedEnd` for a foreign cancellation."""
    found = [*leaves(error)]
    if not any(is_a(leaf, trio.Cancelled) or is_a(leaf, GeneratorExit) for leaf in found) or any(
        map(is_interrupt, found)
    ):
        return error  # a Ctrl+C ends the program
    end = UnexpectedEnd(
        f"setup, shutdown or a plugin raised {describe(error)}, and no cancel scope of the server was cancelled; let "
        "cancel scopes catch their own, and raise another exception to keep the server from serving"
    )
    end.__cause__ = error
    return end


async def _await_if_async(result: object) -> None:
    """Await the result of a method that may be plain or async."""
    if inspect.isawaitable(result):
        await result
