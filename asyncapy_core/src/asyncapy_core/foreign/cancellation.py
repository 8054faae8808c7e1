"""`ForeignScope`: a cancel scope around foreign code, whose exceptions may have methods that raise or lie."""

from __future__ import annotations

from types import TracebackType

import trio

from asyncapy_core.foreign.inspection import is_a, raise_unchanged, read_traceback, split


class ForeignScope:
    """Enters and leaves a cancel scope: ``with ForeignScope(scope):``.

    A scope that was cancelled reads the class of an exception, and splits a group by its own method. If one of these
    raises, the scope stays open, and trio's state of the task is wrong. So the scope gets the cancellations only.

    Args:
        scope: the cancel scope.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def __enter__(self) -> trio.CancelScope:
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        cancellation, failure = (None, None) if error is None else split(error, lambda leaf: is_a(leaf, trio.Cancelled))
        if cancellation is None:
            self._scope.__exit__(None, None, None)
            return False
        if not self._scope.__exit__(type(cancellation), cancellation, read_traceback(cancellation)):
            return False
        if failure is not None:
            raise_unchanged(failure)
        return True
