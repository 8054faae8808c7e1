"""Runs a coroutine, and calls a hook each time it is about to wait.

While a task does not wait, no other task runs, so its output can be held back and sent in one piece.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def run_with_wait_hook(coroutine: Coroutine[Any, Any, T], before_wait: Callable[[], None]) -> Generator[Any, Any, T]:
    """Run a coroutine like ``await``, and call ``before_wait()`` each time it is about to wait."""
    step: Callable[[Any], Any] = coroutine.send
    answer: Any = None
    while True:
        try:
            request = step(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
        finally:
            answer = None  # an exception thrown in may have this frame in its traceback: a reference cycle
        before_wait()
        try:
            answer = yield request
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # thrown in by the scheduler, raised inside the coroutine
            answer, step = error, coroutine.throw
