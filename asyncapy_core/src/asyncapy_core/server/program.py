"""A server as a whole program: it obeys signals, and what keeps it from serving is one line and an exit status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from asyncapy_core.errors import BindError, ConfigError, PluginError, UnexpectedEnd
from asyncapy_core.server.signals import handle_signals

EXPECTED: Final = (BindError, ConfigError, PluginError, UnexpectedEnd)
"""Errors that keep a server from serving, or end it, and that one line explains."""


def run_program(serve: Callable[[], Awaitable[None]], stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Run ``serve()`` until it ends, with the signals that `handle_signals` describes.

    Raises:
        SystemExit: it cannot be served; its message is the one line for standard error.
    """

    async def obeying() -> None:
        with handle_signals(stop, reload):
            await serve()

    try:
        trio.run(obeying)
    except EXPECTED as error:
        raise SystemExit(f"asyncapy: {error}") from error
    except BaseExceptionGroup as group:
        expected, rest = group.split((SystemExit, KeyboardInterrupt, *EXPECTED))
        if rest is not None or expected is None:
            raise
        _raise_exit(expected)


def _raise_exit(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise what ends the program: the first SystemExit, or one for what kept the server from starting.

    A SystemExit is that of a task that a setup has started; a KeyboardInterrupt of one ends the program quietly.
    """
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _raise_exit(error)
        elif isinstance(error, SystemExit):
            raise error
        elif not isinstance(error, KeyboardInterrupt):
            raise SystemExit(f"asyncapy: {error}") from error
