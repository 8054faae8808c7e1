"""`require_trio`: an error for programs that use another event loop, such as asyncio."""

from __future__ import annotations

from typing import Final

import trio

REMEDY: Final = "run the program with trio.run(main), not with asyncio.run(main)"


def require_trio(name: str, remedy: str = REMEDY) -> None:
    """Raise RuntimeError unless the caller is a task of trio.

    Args:
        name: the name of the function or class that needs trio.
        remedy: the last part of the message.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(f"{name} needs the event loop of trio, which does not run this code: {remedy}")
