"""`Gone`: whether a client has left."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import trio

from asyncapy_core.event_loops import require_trio


class Gone:
    """Whether a client has left, as a flag and as an awaitable."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: trio.Event | None = None

    def set(self) -> None:
        """Note that the connection has ended; called by the server."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until the connection has ended; the same as to await this object."""
        require_trio("client.gone")
        if self._is_set:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()

    def __bool__(self) -> bool:
        return self._is_set

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        return f"<Gone {self._is_set}>"
