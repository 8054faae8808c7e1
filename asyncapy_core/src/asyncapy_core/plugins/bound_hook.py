"""`BoundHook`: a function that a server calls for a hook, and the part of its exceptions that is no failure."""

from __future__ import annotations

import functools
import logging
import math
from typing import TYPE_CHECKING, Any

import trio

from asyncapy_core.errors import PluginError
from asyncapy_core.foreign.inspection import is_a, split
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import FailureLog, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncapy_core.plugins.implementations import Implementation


class BoundHook:
    """An implementation of a hook with the options of its plugin, or a function of the application in its place.

    Args:
        implementation: the function.
        title: the plugin or the function, for messages.
        hook: the hook, for messages.
        bound: the arguments that do not change: the server and the options.
        is_required: whether ``plugins_require`` names the plugin.
        is_own: whether it is a function of the application.

    Attributes:
        title, hook, is_required, is_own: as given.
        arguments: the names of the arguments that the function takes.
    """

    __slots__ = ("_call", "_finish", "arguments", "hook", "is_own", "is_required", "title")

    def __init__(
        self,
        implementation: Implementation,
        title: str,
        hook: str,
        bound: Mapping[str, Any],
        *,
        is_required: bool = False,
        is_own: bool = False,
    ) -> None:
        self._call = functools.partial(implementation, **bound)
        self._finish = implementation.finish
        self.arguments: tuple[str, ...] = implementation.arguments
        self.title: str = title
        self.hook: str = hook
        self.is_required: bool = is_required
        self.is_own: bool = is_own

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with those of the arguments that it takes; return its result, which may be awaitable."""
        return self._call(**arguments)

    async def call(self, **arguments: Any) -> Any:
        """Call the function, plain or ``async``, and return its result."""
        return await self.finish(self(**arguments))

    async def finish(self, result: Any) -> Any:
        """Return the result of a call; if the function is ``async``, await it."""
        return await self._finish(result)

    def failure(self, error: BaseException, subject: str = "") -> PluginError:
        """Return the exception to raise for one of the function.

        Args:
            error: the exception of the function.
            subject: the object of the call, for the message.
        """
        about = f" for {subject}" if subject else ""
        return PluginError(f"{self.title} failed in {self.hook}{about}: {reason_of(error)}")

    def __repr__(self) -> str:
        return f"<BoundHook {self.hook} of {self.title}>"


def report_failure(
    failures: FailureLog, log: logging.LoggerAdapter[logging.Logger], subject: str, error: BaseException
) -> None:
    """Log an exception of foreign code, every method of which may raise.

    Args:
        failures: limits the lines.
        log: the logger.
        subject: the code that has raised it.
        error: the exception.
    """
    try:
        failures.report(log, subject, error)
    except Exception:  # see above
        log.error("%s failed, and its exception cannot be examined", subject)


def split_failure(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception of foreign code into the part that must propagate, and the failure; either may be None.

    An exception of a signal handler must propagate, and a cancellation if the current task is cancelled.
    """
    cancelled = trio.lowlevel.in_trio_task() and trio.current_effective_deadline() == -math.inf

    def propagates(leaf: BaseException) -> bool:
        return (cancelled and is_a(leaf, trio.Cancelled)) or is_from_signal(leaf)

    return split(error, propagates)
