"""`OwnedStack`: an exit stack that keeps the failures of its context managers from the code around it."""

from __future__ import annotations

import logging
import math
from contextlib import AsyncExitStack
from types import TracebackType

import trio

from asyncapy_core.errors import PluginError
from asyncapy_core.foreign.inspection import is_a, leaves, read_traceback
from asyncapy_core.logs import FailureLog
from asyncapy_core.plugins.bound_hook import report_failure, split_failure


class ServerCancelled(PluginError):
    """A cancel scope in an exit stack has cancelled the server. The cause is the exception of its context manager."""


class OwnedStack(AsyncExitStack):
    """Context managers that one owner has entered.

    An exception of one of them is logged with its owner. It does not replace an exception of the code inside, and no
    context manager suppresses such an exception.

    Args:
        owner: the plugin, or the application, for messages.
        log: the log of the server.
        is_own: whether it is the application. An exception of its context managers is raised if there is no other one.
    """

    def __init__(self, owner: str, log: logging.Logger, *, is_own: bool = False) -> None:
        super().__init__()
        self._owner = owner
        self._log = log
        self._is_own = is_own

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        left = await self.leave(error)
        if left is not None and left is not error:
            raise left
        return False

    async def leave(self, error: BaseException | None) -> BaseException | None:
        """Leave the context managers, and return the exception that goes on.

        Args:
            error: the exception of the code inside, or None.

        Returns:
            ``error``, if it is not the cancellation of a scope in the stack. Then it is a `ServerCancelled`. If there
            is no ``error``, it is the exception of a context manager of the application, or None.
        """
        raised: BaseException | None = None
        try:
            trace = None if error is None else read_traceback(error)
            await super().__aexit__(None if error is None else type(error), error, trace)
        except BaseException as own:  # foreign code may raise anything
            if is_a(own, ServerCancelled):  # of a stack in this one
                return own
            raised = None if own is error else own
        through, failure = (None, None) if raised is None else split_failure(raised)
        if failure is not None:
            report_failure(FailureLog(), logging.LoggerAdapter(self._log), f"{{Server}} {self._subject}", failure)
        if through is not None and error is None and _is_cancellation(through) and not self._is_own:
            self._log.error("{Server} %s was not left in time, and was cancelled", self._subject)
        if through is not None:
            return through if error is None or not _is_cancellation(through) else error
        if error is not None and _is_cancellation(error) and trio.current_effective_deadline() > -math.inf:
            ended = ServerCancelled(f"{self._subject} has cancelled the server")
            ended.__cause__ = failure or error
            return ended
        return error or (failure if self._is_own else None)

    @property
    def _subject(self) -> str:
        return f"a context manager of {self._owner} in server.exit_stack"


def _is_cancellation(error: BaseException) -> bool:
    """Return True for a `trio.Cancelled`, and for a group of nothing else."""
    return all(is_a(leaf, trio.Cancelled) for leaf in leaves(error))
