"""Running a coroutine and being told when it first waits for something.

Knows nothing of what the coroutine does; used to hold back output for as long as nobody else could have run.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def run_noting_wait(coroutine: Coroutine[Any, Any, T], waits: Callable[[], None]) -> Generator[Any, Any, T]:
    """Run a coroutine to its end, like ``await``, and call ``waits()`` just before it first gives up control."""
    try:
        request = coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
    waits()
    try:
        while True:
            try:
                answer = yield request
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # thrown in from outside, handed on to where it belongs
                request = coroutine.throw(error)
            else:
                request = coroutine.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration is not generic
