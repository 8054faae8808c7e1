"""Makes a `trio.Cancelled`; trio does not let programs construct one."""

from __future__ import annotations

import trio


async def make_cancelled() -> trio.Cancelled:
    """Return the exception that a cancel scope has raised; the scope has ended."""
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            caught.append(error)
            raise
    return caught[0]
