"""A plugin of pytest, which finds it by itself where pytest and pytest-trio are installed: ``asyncapy_server``.

Imports nothing of a server before the fixture is used: it is loaded by every pytest run of its environment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncapy_core.server.server import Server
    from asyncapy_core.testing.memory import ServerInMemory


@pytest.fixture
async def asyncapy_server() -> AsyncIterator[Callable[[Server], Awaitable[ServerInMemory]]]:
    """Return ``await asyncapy_server(server)``, which has a server serve, in memory, until the test has ended.

    With the fixture ``autojump_clock`` of pytest-trio no timeout is waited for. Handlers that are still at work at the
    end of the test are cut off.
    """
    import trio  # noqa: PLC0415  # see above

    from asyncapy_core.testing.memory import ServerInMemory  # noqa: PLC0415  # see above

    running: list[ServerInMemory] = []
    async with trio.open_nursery() as nursery:

        async def start(server: Server) -> ServerInMemory:
            running.append(await nursery.start(ServerInMemory(server).serve))
            return running[-1]

        yield start
        for each in running:
            await each.cut()
