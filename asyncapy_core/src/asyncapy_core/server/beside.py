"""`beside`: runs functions beside a server, and starts them again after an exception."""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.foreign.inspection import is_a, leaves
from asyncapy_core.logs import FailureLog, Mistake
from asyncapy_core.plugins.bound_hook import report_failure, split_failure
from asyncapy_core.server.enclosure import Enclosure, end_all
from asyncapy_core.server.isolation import is_cancellation

if TYPE_CHECKING:
    from asyncapy_core.errors import PluginError
    from asyncapy_core.plugins.bound_hook import BoundHook
    from asyncapy_core.server.lifecycle import Lifetime

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
"""The time before a function that has failed is called again: it doubles from the first to the longest. It is 0 to 25 %
shorter, so that functions that fail together do not go on together."""

START_SECONDS: Final = 60.0
"""The time for which a start waits for a plugin, unless ``plugins_require`` names it."""

STEADY_SECONDS: Final = 60.0
"""After a function has run for so long, the next delay is the first one again."""


@asynccontextmanager
async def beside(
    hooks: Sequence[BoundHook], log: logging.Logger, lifetime: Lifetime, stop: Callable[[], None]
) -> AsyncIterator[None]:
    """Run functions for the length of the block; then cancel them, and force those that do not end in time.

    Args:
        hooks: the functions; each is started when the one before has called ``task_status.started()``, or at once if it
            does not take ``task_status``.
        log: the log of the server.
        lifetime: the run of the server, which limits the time of the end.
        stop: stops the server if the function of a required plugin has failed.

    Raises:
        PluginError: the function of a required plugin has failed.
    """
    if not hooks:
        yield
        return
    runs = [_Supervised(hook, log, stop) for hook in hooks]
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                for run in runs:
                    lifetime.note(f"{run.hook.title} has not called task_status.started() in {run.hook.hook}")
                    nursery.start_soon(run.enclosure.run, run.run)
                    await run.wait_until_ready()
                    if run.failure is not None:
                        raise run.failure
                lifetime.note("")
                yield
            except BaseException as error:  # raised again outside the nursery
                if is_cancellation(error):
                    raise
                failure = error
            finally:
                await end_all([run.enclosure for run in runs], lifetime.seconds_to_end(), log)
    except BaseException as error:
        failure = failure or _failure_of(runs)
        if failure is None or not _is_only_cancellation(error):
            raise
    failure = failure or _failure_of(runs)
    if failure is not None:
        raise failure


class _Supervised(trio.TaskStatus[Any]):
    """A function beside the server.

    Args:
        hook: the function.
        log: the log of the server.
        stop: stops the server.

    Attributes:
        hook: as given.
        enclosure: runs it.
        ready: set when the server may go on with its start.
        failure: the exception to raise, as its plugin is required.
    """

    def __init__(self, hook: BoundHook, log: logging.Logger, stop: Callable[[], None]) -> None:
        self.hook = hook
        self.enclosure = Enclosure(f"{hook.hook} of {hook.title}")
        self.ready = trio.Event()
        self.failure: PluginError | None = None
        self._log = log
        self._stop = stop
        self._failures = FailureLog()

    def started(self, value: Any = None) -> None:
        """Let the server go on with its start; called by the function, each time that it is called."""
        self.ready.set()

    async def wait_until_ready(self) -> None:
        """Wait until the server may go on; for a plugin that is not required, `START_SECONDS` at most."""
        patient = self.hook.is_required or self.hook.is_own
        with trio.move_on_after(math.inf if patient else START_SECONDS):
            await self.ready.wait()
        if not self.ready.is_set():
            self._log.error(
                "{Server} %s has not called task_status.started() within %g s; the server starts nevertheless, as "
                "plugins_require does not name the plugin",
                self.enclosure.title,
                START_SECONDS,
            )
            self.ready.set()

    async def run(self) -> None:
        """Call the function, and again after an exception, until it returns or is cancelled."""
        if "task_status" not in self.hook.arguments:
            self.ready.set()
        delay = FIRST_DELAY
        try:
            while True:
                began = trio.current_time()
                error = await self._attempt()
                if error is None or self.enclosure.is_cancelled:
                    return
                if self.hook.is_required:
                    self._stop_server(error)
                    return
                if type(error) is Mistake:  # another call makes no difference
                    return
                if trio.current_time() - began >= STEADY_SECONDS:
                    delay = FIRST_DELAY
                pause = delay * random.uniform(0.75, 1)  # noqa: S311  # no secret
                self._log.info("{Server} %s is called again in %.1f s", self.enclosure.title, pause)
                self.ready.set()
                await trio.sleep(pause)
                delay = min(2 * delay, LONGEST_DELAY)
        finally:
            self.ready.set()

    async def _attempt(self) -> BaseException | None:
        """Call the function; log and return its exception, if it raises one."""
        try:
            result = self.hook(task_status=self)
            if not inspect.isawaitable(result):
                raise Mistake(f"it returned a {type(result).__name__}; write 'async def' instead of 'def'")
            await self.hook.finish(result)
        except BaseException as error:  # a plugin may raise anything
            through, failure = split_failure(error)
            if failure is not None:
                subject = f"{{Server}} {self.hook.title} in {self.hook.hook}"
                report_failure(self._failures, logging.LoggerAdapter(self._log), subject, failure)
            if through is not None:
                raise through from None
            return failure
        return None

    def _stop_server(self, error: BaseException) -> None:
        """Stop the server, or end its start, as the function of a required plugin has failed."""
        self.failure = self.hook.failure(error)
        self.failure.__cause__ = error
        if self.ready.is_set():
            self._stop()


def _failure_of(runs: Iterable[_Supervised]) -> BaseException | None:
    return next((run.failure for run in runs if run.failure is not None), None)


def _is_only_cancellation(error: BaseException) -> bool:
    return all(is_a(leaf, trio.Cancelled) for leaf in leaves(error))
