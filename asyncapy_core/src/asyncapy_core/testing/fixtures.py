"""A pytest plugin with the fixture ``asyncapy_server``. pytest loads it by itself; the fixture needs pytest-trio.

Every pytest run in the environment loads this module, so it imports the server only when the fixture is used.
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
    """Return a function: ``await asyncapy_server(server)`` runs a server in memory until the test has ended.

    With the fixture ``autojump_clock`` of pytest-trio, no timeout takes real time. Handlers that are still running at
    the end of the test are cancelled.
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
