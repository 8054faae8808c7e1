"""Traces each call of a hook with ``ASYNCAPY_TRACE_PLUGINS=1``.

A line has types and durations, and no values, which may be secrets. The lines go to the logger
``asyncapy.plugins.trace``, and to standard error if the program has not configured logging.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from asyncapy_core.logs import safe_str

VARIABLE: Final = "ASYNCAPY_TRACE_PLUGINS"

log: logging.Logger = logging.getLogger("asyncapy.plugins.trace")


def is_tracing() -> bool:
    """Return True if calls of hooks are traced."""
    return os.environ.get(VARIABLE, "") not in {"", "0"}


def trace_call(title: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function with these arguments by position, write a line, and return its result.

    Args:
        title: the hook and the plugin, for the line.
        function: the function.
        arguments: the arguments by name; the line has their types.
    """
    given = ", ".join(f"{name}: {_type_of(value)}" for name, value in arguments.items())
    began = time.perf_counter()
    try:
        result = function(*arguments.values())
    except BaseException as error:  # raised again
        _write("%s (%s) raised %s after %s", title, given, _type_of(error), _since(began))
        raise
    _write("%s (%s) returned %s after %s", title, given, _type_of(result), _since(began))
    return result


async def trace_wait(title: str, result: Awaitable[Any]) -> Any:
    """Await the result of an ``async`` function, write a line, and return its own result."""
    began = time.perf_counter()
    try:
        value = await result
    except BaseException as error:  # raised again
        _write("%s ended with %s after %s", title, _type_of(error), _since(began))
        raise
    _write("%s ended with %s after %s", title, _type_of(value), _since(began))
    return value


def _write(text: str, *values: object) -> None:
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
    log.info(text, *values)


def _type_of(value: object) -> str:
    return safe_str(type(value).__name__)


def _since(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.1f} ms"
