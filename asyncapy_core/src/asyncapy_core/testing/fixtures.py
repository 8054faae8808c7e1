"""A pytest plugin with fixtures for servers and clients in memory. pytest loads it by itself; they need pytest-trio.

Every pytest run in the environment loads this module, so it imports the server only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, Unpack

import pytest

if TYPE_CHECKING:
    import trio

    from asyncapy_core.client import AsyncClient
    from asyncapy_core.client.settings import SessionSettings
    from asyncapy_core.server.server import Server
    from asyncapy_core.testing.memory import ServerInMemory


class OpenClient(Protocol):
    """The type of the fixture ``asyncapy_client``."""

    async def __call__(
        self, server: Server, *, address: str = "127.0.0.1", **settings: Unpack[SessionSettings]
    ) -> AsyncClient:
        """Return an open client of a server; see `ServerInMemory.client`."""
        ...


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


@pytest.fixture
async def asyncapy_client(
    asyncapy_server: Callable[[Server], Awaitable[ServerInMemory]],
) -> AsyncIterator[OpenClient]:
    """Return a function: ``await asyncapy_client(server, version=23)`` opens a client until the test has ended.

    The server runs in memory, from the first client on. Further arguments are those of `ServerInMemory.client`: for
    example ``version``, 22 by default, or ``address``.
    """
    import trio  # noqa: PLC0415  # see above

    servers: dict[Server, ServerInMemory] = {}

    async def keep_open(client: AsyncClient, *, task_status: trio.TaskStatus[AsyncClient]) -> None:
        async with client:
            task_status.started(client)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def open_client(
            server: Server, *, address: str = "127.0.0.1", **settings: Unpack[SessionSettings]
        ) -> AsyncClient:
            if server not in servers:
                servers[server] = await asyncapy_server(server)
            client: AsyncClient = await nursery.start(keep_open, servers[server].client(address=address, **settings))
            return client

        yield open_client
        nursery.cancel_scope.cancel()
