"""Operations, routers and registrations of a server that serves."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Serve

from asyncapy_core import APIKeyFactory, Router, Server
from asyncapy_filters import APIFactory, Fields

NO_HANDLER = {"status": "failure", "error": "ERR_NO_HANDLER"}


async def name(client: Any, packet: Any) -> dict[str, Any]:
    return {"name": packet["op"]}


@pytest.mark.parametrize("blocking", [False, True], ids=["plain filters", "an async filter"])
async def test_each_of_two_hundred_operations_gets_its_own_packets(serve: Serve, blocking: bool) -> None:
    class Keys(APIKeyFactory):
        @property
        def blocking(self) -> bool:
            return blocking

    keys = Keys()
    key = keys.issue()
    server, router = Server(port=0), Router(prefix="all.")
    for number in range(200):

        async def answer(client: Any, packet: Any, number: int = number) -> dict[str, Any]:
            return {"number": number, "known": "api_key" in packet.context}

        router.register_handler(answer, Fields(command=f"{number}( )" if number % 2 else f"{number} ", key=None))
        router.operation(str(number), APIFactory(keys, "key"))(answer)
    server.include(router)
    running = await serve(server)
    async with await running.connect() as peer:
        for number in (0, 1, 19, 20, 199):
            assert await peer.ask(op=f"all.{number}", key=key) == {"number": number, "known": True}
            assert await peer.ask(command=f"{number} ", key=key) == {"number": number, "known": False}
        for fields in ({"op": "all.200"}, {"op": "all.7", "key": "wrong"}, {"op": 7}, {"op": ["all.7"]}, {"a": 1}):
            assert await peer.ask(**fields) == NO_HANDLER


async def test_a_handler_that_is_added_or_taken_out_changes_open_sessions_at_once(serve: Serve) -> None:
    server = Server(port=0)
    server.operation("other")(name)
    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(op="read") == NO_HANDLER
        router = Router()
        inclusion = server.include(router)
        router.operation("read")(name)
        assert await peer.ask(op="read") == {"name": "read"}
        inclusion.remove()
        assert await peer.ask(op="read") == NO_HANDLER

        @server.guard
        def refuse(client: Any, packet: Any) -> bool:
            return False

        server.register_handler(name)
        assert await peer.ask(op="read") == NO_HANDLER
        refuse.remove()
        assert await peer.ask(op="read") == {"name": "read"}


async def test_a_handler_may_take_itself_out(serve: Serve) -> None:
    server = Server(port=0)

    async def once(client: Any, packet: Any) -> dict[str, Any]:
        registration.remove()
        return {"first": True}

    registration = server.register_handler(once)
    server.register_handler(name)
    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(op="a") == {"first": True}
        assert await peer.ask(op="a") == {"name": "a"}
        assert list(server.handlers.values()) == [(server.handlers[0][0],)]


async def test_an_operation_that_is_registered_twice_is_named_at_the_start(serve: Serve) -> None:
    server = Server(port=0)
    server.operation("read")(name)
    router = Router()
    router.operation("read")(name)
    server.include(router, group=0)
    running = await serve(server)
    assert running.logged("'name' in group 0 can never run: 'name', before it, takes all of its packets")
