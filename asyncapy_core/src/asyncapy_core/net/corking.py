"""Running a coroutine and being told each time it is about to wait.

Knows nothing of what the coroutine does; used to hold back output for as long as nobody else could have run.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def run_with_wait_hook(coroutine: Coroutine[Any, Any, T], before_wait: Callable[[], None]) -> Generator[Any, Any, T]:
    """Run a coroutine to its end, like ``await``; call ``before_wait()`` each time that it is about to wait."""
    step: Callable[[Any], Any] = coroutine.send
    answer: Any = None
    while True:
        try:
            request = step(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
        before_wait()
        try:
            answer = yield request
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # thrown in from outside, handed on to where it belongs
            answer, step = error, coroutine.throw
