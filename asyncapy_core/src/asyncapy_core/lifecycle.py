"""Setting up plugins and a server before it listens, and shutting them down in reverse when it no longer does."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping

    from asyncapy_core.plugins.record import PluginRecord
    from asyncapy_core.server import Server

CLEANUP_SECONDS: Final = 10.0
"""How long ``shutdown`` and the plugins may take when `Server.serve` is cancelled."""


@asynccontextmanager
async def set_up(server: Server, options: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[None]:
    """Set up plugins one after the other, then the server; afterwards shut down in reverse what was set up.

    Args:
        server: its ``exit_stack`` is made anew, and closed at the end.
        options: the plugins' own settings, by plugin.

    Raises:
        PluginError: a plugin failed in setup; those before it have been shut down.
    """
    done: list[PluginRecord] = []
    async with AsyncExitStack() as server.exit_stack:
        try:
            await server.plugins.setup(server, options, done)
            await _awaited(server.setup())
            try:
                yield
            finally:
                with _cleaning_up(server.log, "shutdown"):
                    await _awaited(server.shutdown())
        finally:
            with _cleaning_up(server.log, "the plugins' shutdown"):
                for failure in await server.plugins.shutdown(server, options, done):
                    server.log.error("{Server} A plugin failed in shutdown", exc_info=failure)


@contextmanager
def _cleaning_up(log: logging.Logger, what: str) -> Iterator[None]:
    """Shield a clean-up; it may take as long as it wants, or `CLEANUP_SECONDS` where the server was cancelled."""
    cancelled = trio.current_effective_deadline() == -math.inf
    with trio.CancelScope(shield=True) as scope:
        scope.deadline = trio.current_time() + CLEANUP_SECONDS if cancelled else math.inf
        yield
    if scope.cancelled_caught:
        log.error("{Server} %s was not done after %g s, and was cancelled", what, CLEANUP_SECONDS)


async def _awaited(result: object) -> None:
    """Wait for what an overridable method returned, which may be plain or async."""
    if inspect.isawaitable(result):
        await result
