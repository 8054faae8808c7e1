"""Sessions that are logged in with keys of a real store: no look-ups, and their end after a revocation elsewhere."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from conftest import Serve
from peer import Peer, failure
from redis_server import SERVERS, RedisServer, SharedRedis

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, Client, Packet, Server

LONG = 30.0
"""A ``recall_seconds`` for which no test waits."""

UNAUTHORIZED, UNAVAILABLE = failure("ERR_UNAUTHORIZED"), failure("ERR_UNAVAILABLE")


def members(factory: APIKeyFactory) -> Server:
    """Return a server whose sessions log in with the field ``key``."""
    server = Server(port=0)
    server.guard(Filters.APIFactory(factory, "key", once=True))

    @server.add_handler()
    async def welcome(client: Client, packet: Packet) -> dict[str, Any]:
        return {"welcome": packet.context["api_key"].metadata["owner"]}

    return server


WELCOME = {"welcome": "alice"}


def issue(factory: APIKeyFactory) -> str:
    return factory.issue({"owner": "alice"})


def is_tracked(client: redis.Redis) -> bool:
    return int(client.info("clients")["tracking_clients"]) == 1


async def until_tracked(server: RedisServer) -> None:
    await trio.to_thread.run_sync(server.until, is_tracked)


async def ask_until_it_differs(peer: Peer, answer: dict[str, Any], seconds: float = 1) -> dict[str, Any] | None:
    """Send packets until the answer is another, and return that; None at the end of the session."""
    with trio.fail_after(seconds):
        while (other := await peer.ask(a=1)) == answer:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.005)
    return other


@pytest.fixture
def elsewhere(own_redis: RedisServer) -> Iterator[APIKeyFactory]:
    """A factory as another server process has it."""
    with closing(APIKeyFactory(store=own_redis.url)) as factory:
        yield factory


async def test_after_the_log_in_redis_is_not_asked(serve: Serve, own_redis: RedisServer) -> None:
    with closing(APIKeyFactory(store=own_redis.url)) as factory:
        running = await serve(members(factory))
        async with await running.connect() as peer, await running.connect() as other:
            key = issue(factory)
            for each in (peer, other):
                assert await each.ask(key=key) == WELCOME
            assert own_redis.calls("get") <= 2, "the two sessions share a look-up, unless the first notice came between"
            await until_tracked(own_redis)
            end = time.monotonic() + 0.6  # a record that was read before the notices began is read once more
            while time.monotonic() < end:
                assert await peer.ask(a=1) == WELCOME
            before, end = own_redis.calls("get"), time.monotonic() + 1.5
            while time.monotonic() < end:
                assert await peer.ask(a=1) == WELCOME
                assert await other.ask(key=key) == WELCOME
            assert own_redis.calls("get") - before <= 1  # one, if the machine was busy


@pytest.mark.parametrize("change", ["revoke", "reissue"])
async def test_a_notice_of_redis_ends_the_sessions_of_a_key_at_once(
    serve: Serve, own_redis: RedisServer, elsewhere: APIKeyFactory, change: str
) -> None:
    with closing(APIKeyFactory(store=f"{own_redis.url}?recall_seconds={LONG}")) as factory:
        running = await serve(members(factory))
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(await running.connect()) for _ in range(4)]
            key, other = issue(elsewhere), issue(elsewhere)
            for peer, each in zip(peers, (key, key, key, other), strict=True):
                assert await peer.ask(key=each) == WELCOME
            await until_tracked(own_redis)
            getattr(elsewhere, change)(key)
            with trio.fail_after(1):
                for peer in peers[:3]:
                    assert await peer.closed()
            assert await peers[3].ask(a=1) == WELCOME
            elsewhere.update(other, {"owner": "bob"})
            assert await ask_until_it_differs(peers[3], WELCOME) == {"welcome": "bob"}
        assert len(running.logged("of this session is not valid any more")) == 3
        assert not running.logged("[ERROR]")


async def test_a_session_ends_within_a_second_if_redis_sends_no_notices(
    serve: Serve, own_redis: RedisServer, elsewhere: APIKeyFactory
) -> None:
    with redis.Redis(port=own_redis.port) as client:
        rules = ["+@all", "-client|tracking"]
        client.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["*"], commands=rules)
    with closing(APIKeyFactory(store=f"redis://limited:secret@127.0.0.1:{own_redis.port}/0")) as factory:
        running = await serve(members(factory))
        async with await running.connect() as peer:
            key = issue(factory)
            assert await peer.ask(key=key) == WELCOME
            before = own_redis.calls("get")
            await trio.to_thread.run_sync(own_redis.until, lambda _: own_redis.calls("get") >= before + 2)
            elsewhere.revoke(key)
            with trio.fail_after(1):
                assert await peer.closed()


async def test_while_redis_is_away_packets_get_err_unavailable_and_sessions_stay_open(
    serve: Serve, own_redis: RedisServer, elsewhere: APIKeyFactory
) -> None:
    with closing(APIKeyFactory(store=own_redis.url)) as factory:
        running = await serve(members(factory))
        async with await running.connect() as peer, await running.connect() as revoked:
            key, other = issue(factory), issue(factory)
            assert await peer.ask(key=key) == WELCOME
            assert await revoked.ask(key=other) == WELCOME
            await trio.to_thread.run_sync(own_redis.stop)
            assert await ask_until_it_differs(peer, WELCOME, 2.5) == UNAVAILABLE  # and the timeout of the store
            for _ in range(5):
                assert await peer.ask(a=1) == UNAVAILABLE
            await trio.to_thread.run_sync(own_redis.start)
            await trio.to_thread.run_sync(elsewhere.revoke, other)
            with trio.fail_after(5):
                assert await revoked.closed()
            assert await ask_until_it_differs(peer, UNAVAILABLE, 5) == WELCOME


async def test_a_session_ends_within_a_second_of_a_revocation_in_the_file_by_another_process(
    serve: Serve, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    elsewhere, factory = APIKeyFactory(store=url), APIKeyFactory(store=f"{url}?recall_seconds={LONG}")
    with closing(factory), closing(elsewhere):
        running = await serve(members(factory))
        async with await running.connect() as peer, await running.connect() as other:
            key = issue(elsewhere)
            assert await peer.ask(key=key) == WELCOME
            assert await other.ask(key=issue(elsewhere)) == WELCOME
            elsewhere.revoke(key)
            reply = await ask_until_it_differs(peer, WELCOME)
            assert reply is None or (reply == UNAUTHORIZED and await peer.closed())
            assert await other.ask(a=1) == WELCOME


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, shared_redis: SharedRedis) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path / 'keys.db'}"
    return f"{shared_redis(request.param).url}?prefix={uuid.uuid4()}"


async def test_a_handler_that_revokes_the_key_of_its_session_ends_it(serve: Serve, store_url: str) -> None:
    with closing(APIKeyFactory(store=store_url)) as factory:
        server = members(factory)
        done: list[bool] = []

        @server.add_handler(Filters.HasFields(leave=None), group=1)
        async def leave(client: Client, packet: Packet) -> None:
            await factory.arevoke(packet["leave"])
            done.append(True)

        running = await serve(server)
        async with await running.connect() as peer, await running.connect() as other:
            key = issue(factory)
            assert await other.ask(key=key) == await peer.ask(key=key) == WELCOME
            assert await peer.ask(leave=key) == WELCOME
            with trio.fail_after(1):
                assert await peer.closed()
                assert await other.closed()
        assert done == [True]


async def test_a_session_logs_in_with_keys_of_two_stores(serve: Serve, store_url: str) -> None:
    with closing(APIKeyFactory(store=store_url)) as factory:
        server, devices = members(factory), APIKeyFactory()
        server.guard(Filters.APIFactory(devices, "device", once=True))
        running = await serve(server)
        async with await running.connect() as peer:
            key, device = issue(factory), devices.issue({"owner": "alice"})
            assert await peer.ask(key=key) == UNAUTHORIZED
            assert await peer.ask(device=device) == WELCOME
            assert await peer.ask(a=1) == WELCOME
            devices.revoke(device)
            with trio.fail_after(1):
                assert await peer.closed()
        async with await running.connect() as peer:
            assert await peer.ask(key=key, device=devices.issue({"owner": "alice"})) == WELCOME
            assert await peer.ask(device="wrong") == UNAUTHORIZED
            assert await peer.ask(a=1) == UNAUTHORIZED
            assert await peer.ask(device=devices.issue({"owner": "alice"})) == WELCOME


async def test_a_wrong_key_of_one_session_does_not_delay_the_packets_of_another(serve: Serve, store_url: str) -> None:
    with closing(APIKeyFactory(store=store_url)) as factory:
        running = await serve(members(factory))
        async with await running.connect() as peer, await running.connect() as other:
            assert await peer.ask(key=issue(factory)) == WELCOME
            for number in range(20):
                assert await other.ask(key=f"wrong {number}") == UNAUTHORIZED
                assert await peer.ask(a=1) == WELCOME
            assert await other.ask(a=1) == UNAUTHORIZED
