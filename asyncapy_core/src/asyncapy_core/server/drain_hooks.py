"""`call_drain_hooks`: calls `asyncapy_drain` of the plugins when a server is to stop."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import trio

from asyncapy_core.logs import FailureLog
from asyncapy_core.plugins.bound_hook import report_failure, split_failure
from asyncapy_core.server.enclosure import FORCED_SECONDS, Enclosure, end_all

if TYPE_CHECKING:
    from asyncapy_core.plugins.bound_hook import BoundHook


async def call_drain_hooks(hooks: Sequence[BoundHook], seconds: float, log: logging.Logger) -> None:
    """Call these hooks in their order, and wait until all have ended; then, or after ``seconds``, cancel the rest."""
    if not hooks:
        return
    enclosures: list[Enclosure] = []
    async with trio.open_nursery() as nursery:
        try:
            for hook in hooks:
                enclosure = Enclosure(f"{hook.hook} of {hook.title}")
                try:
                    result = hook()
                except BaseException as error:  # a plugin may raise anything
                    _log_failure(hook, error, log)
                else:
                    if inspect.isawaitable(result):
                        enclosures.append(enclosure)
                        nursery.start_soon(enclosure.run, functools.partial(_finish, hook, result, log))
            with trio.move_on_after(seconds):
                for enclosure in enclosures:
                    await enclosure.ended.wait()
            for enclosure in enclosures:
                if not enclosure.ended.is_set():
                    log.error("{Server} %s has not ended within %g s, and is cancelled", enclosure.title, seconds)
        finally:
            await end_all(enclosures, FORCED_SECONDS, log)


async def _finish(hook: BoundHook, result: Awaitable[object], log: logging.Logger) -> None:
    try:
        await hook.finish(result)
    except BaseException as error:  # a plugin may raise anything
        _log_failure(hook, error, log)


def _log_failure(hook: BoundHook, error: BaseException, log: logging.Logger) -> None:
    """Log an exception of a hook.

    Raises:
        BaseException: the part that must propagate.
    """
    through, failure = split_failure(error)
    if failure is not None:
        subject = f"{{Server}} {hook.title} in {hook.hook}"
        report_failure(FailureLog(), logging.LoggerAdapter(log), subject, failure)
    if through is not None:
        raise through
