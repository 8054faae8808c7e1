"""Programs of asyncio: an error that names trio from each public async function that needs it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from asyncapy import Server
from asyncapy.client import AsyncClient, Client, Pool
from asyncapy.util import APIKeyFactory
from asyncapy_core.gone import Gone
from asyncapy_core.testing import serving


async def entered(manager: Any) -> None:
    async with manager:
        raise AssertionError("entered")


CALLS: dict[str, Callable[[], Awaitable[Any]]] = {
    "AsyncClient": lambda: entered(AsyncClient("127.0.0.1", 1)),
    "AsyncClient.request": lambda: AsyncClient("127.0.0.1", 1).request({"a": 1}),
    "Pool": lambda: entered(Pool("127.0.0.1", 1)),
    "Pool.request": lambda: Pool("127.0.0.1", 1).request({"a": 1}),
    "Server.serve": lambda: Server(port=0).serve(),
    "Server.run_sync_task": lambda: Server().run_sync_task(int),
    "serving": lambda: entered(serving(Server())),
    "client.gone": lambda: Gone().wait(),
}


@pytest.mark.parametrize("name", CALLS)
def test_asyncio_gets_an_error_that_names_trio_and_the_remedy(name: str) -> None:
    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"needs the event loop of trio.*run the program with trio\.run"
        ) as caught:
            await CALLS[name]()
        assert name.startswith(str(caught.value).partition(" ")[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


METHODS: dict[str, tuple[Any, ...]] = {
    "aissue": (),
    "aget": ("x",),
    "areissue": ("x",),
    "arevoke": ("x",),
    "aupdate": ("x", {}),
    "acontains": ("x",),
}


@pytest.mark.parametrize("method", METHODS)
def test_keys_in_a_store_that_blocks_need_trio(tmp_path: Path, method: str) -> None:
    factory = APIKeyFactory(store=f"sqlite:///{tmp_path / 'keys.db'}")

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"^APIKeyFactory needs the event loop of trio.*in a thread"):
            await getattr(factory, method)(*METHODS[method])

    asyncio.run(main())
    factory.close()


def test_the_remedy_for_clients_works() -> None:
    """The synchronous client in a thread of an asyncio program."""

    async def main(port: int) -> Any:
        def ask() -> dict[str, Any]:
            with Client(tls=False, timeout=10) as client:
                client.connect("127.0.0.1", port)
                client.send({"a": 1})
                return client.receive()

        return await asyncio.to_thread(ask)

    async def serve() -> Any:
        server = Server(port=0)

        @server.add_handler()
        async def echo(client: Any, packet: Any) -> None:
            await client.send(packet)

        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            reply = await trio.to_thread.run_sync(lambda: asyncio.run(main(addresses[0][1])))
            server.stop()
        return reply

    assert trio.run(serve) == {"a": 1}
