"""`run_program`: a server as a program, with signals, and with expected errors as one line and an exit status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from asyncapy_core.errors import BindError, ConfigError, PluginError, UnexpectedEnd
from asyncapy_core.server.signals import handle_signals

EXPECTED: Final = (BindError, ConfigError, PluginError, UnexpectedEnd)
"""Errors that end the program with one line instead of a traceback."""


def run_program(serve: Callable[[], Awaitable[None]], stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """Run ``serve()`` until it ends, with the signals that `handle_signals` describes.

    Raises:
        SystemExit: the server cannot start, or ended; the message is the line for standard error.
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
    """Raise the first SystemExit of a group, or one for its first expected error.

    A SystemExit comes from a task that a setup has started; a KeyboardInterrupt ends the program without a message.
    """
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            _raise_exit(error)
        elif isinstance(error, SystemExit):
            raise error
        elif not isinstance(error, KeyboardInterrupt):
            raise SystemExit(f"asyncapy: {error}") from error
