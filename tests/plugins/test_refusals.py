"""Five kinds of refusal have five answers over the wire: the key, the right, the operation, the rate, the store."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import failure
from redis_server import RedisServer

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, Client, Failure, Packet, Server
from asyncapy_core.errors import ErrorCode


def shop(factory: APIKeyFactory, *, once: bool) -> Server:
    """Return a server with a catalogue for all keys, and prices for keys of a role, one each session."""
    server = Server(port=0)
    server.guard(Filters.APIFactory(factory, "key", once=once))

    @server.add_handler(Filters.HasFields(catalogue=None))
    async def catalogue(client: Client, packet: Packet) -> dict[str, Any]:
        return {"catalogue": ["a", "b"]}

    @server.add_handler(Filters.HasFields(price=None))
    async def price(client: Client, packet: Packet) -> dict[str, Any]:
        if packet.context["api_key"].metadata["role"] != "seller":
            raise Failure(ErrorCode.FORBIDDEN)
        if "asked" in client.state:
            raise Failure(ErrorCode.RATE_LIMITED, retry_after=60)
        client.state.asked = True
        return {"price": 5}

    return server


@pytest.mark.parametrize("once", [False, True])
async def test_five_kinds_of_refusal_have_five_answers(serve: Serve, own_redis: RedisServer, once: bool) -> None:
    with closing(APIKeyFactory(store=own_redis.url)) as factory:
        seller, buyer, late = (factory.issue({"role": role}) for role in ("seller", "buyer", "buyer"))
        running = await serve(shop(factory, once=once))
        async with await running.connect() as one, await running.connect() as two, await running.connect() as three:
            assert await three.ask(catalogue=1, key="wrong") == failure("ERR_UNAUTHORIZED")
            assert await three.ask(catalogue=1) == failure("ERR_UNAUTHORIZED")
            assert await two.ask(catalogue=1, key=buyer) == {"catalogue": ["a", "b"]}
            assert await one.ask(price=1, key=seller) == {"price": 5}
            of_two, of_one = ({}, {}) if once else ({"key": buyer}, {"key": seller})
            assert await two.ask(price=1, **of_two) == failure("ERR_FORBIDDEN")
            assert await two.ask(no_such=1, **of_two) == failure("ERR_NO_HANDLER")
            assert await one.ask(price=1, **of_one) == {**failure("ERR_RATE_LIMITED"), "retry_after": 60}
            await trio.to_thread.run_sync(own_redis.stop)
            assert await three.ask(catalogue=1, key=late) == failure("ERR_UNAVAILABLE")
            await trio.to_thread.run_sync(own_redis.start)
            with trio.fail_after(5):
                while (answer := await three.ask(catalogue=1, key=late)) == failure("ERR_UNAVAILABLE"):
                    await trio.lowlevel.checkpoint()
            assert answer == {"catalogue": ["a", "b"]}
        assert 1 <= len(running.logged("[ERROR]")) == len(running.logged("API keys cannot be checked"))


@pytest.mark.parametrize("revoked_at", ["the server", "another server"])
async def test_a_revoked_key_is_unauthorized_from_the_first_packet_on_and_no_failure_of_a_handler(
    serve: Serve, own_redis: RedisServer, revoked_at: str
) -> None:
    with closing(APIKeyFactory(store=own_redis.url)) as factory, closing(APIKeyFactory(store=own_redis.url)) as other:
        key = factory.issue({"role": "buyer"})
        running = await serve(shop(factory, once=False))
        async with await running.connect() as peer:
            for _ in range(5):
                assert await peer.ask(catalogue=1, key=key) == {"catalogue": ["a", "b"]}
            (factory if revoked_at == "the server" else other).revoke(key)
            answers = [await peer.ask(catalogue=1, key=key)]
            with trio.fail_after(1):
                while answers[-1] != failure("ERR_UNAUTHORIZED"):
                    answers.append(await peer.ask(catalogue=1, key=key))
            assert revoked_at == "another server" or len(answers) == 1
            assert [each for each in answers if each != {"catalogue": ["a", "b"]}] == [failure("ERR_UNAUTHORIZED")]
            for _ in range(20):
                assert await peer.ask(catalogue=1, key=key) == failure("ERR_UNAUTHORIZED")
