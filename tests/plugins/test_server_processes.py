"""Server processes that share a store: all accept the keys that one issues, and refuse the keys that one revokes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from peer import Peer, failure
from redis_server import SERVERS, SharedRedis

KeyServer = Callable[[str], tuple[int, ...]]

PASSED, REFUSED = {"passed": True}, failure("ERR_NO_HANDLER")


@pytest.fixture(scope="module", params=["sqlite", *SERVERS])
def two_servers(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    store_servers: Callable[[str, str], tuple[int, ...]],
    shared_redis: SharedRedis,
) -> tuple[int, ...]:
    """The ports of two server processes that share a store."""
    if request.param == "sqlite":
        return store_servers("keys", f"sqlite:///{tmp_path_factory.mktemp('shared') / 'keys.db'}")
    return store_servers("keys", f"{shared_redis(request.param).url}?prefix={uuid.uuid4()}")


async def manage(peer: Peer, command: str, key: str = "") -> Any:
    reply = await peer.ask(do=command, on=key)
    assert reply is not None
    assert set(reply) == {"result"}, reply
    return reply["result"]


async def passed_for(peer: Peer, key: str) -> float:
    """Send packets until a key is refused, and return the seconds until the last packet that passed was sent."""
    began = sent = last = trio.current_time()
    with trio.fail_after(10):
        while (reply := await peer.ask(key=key)) == PASSED:
            last = sent
            await trio.sleep(0.005)
            sent = trio.current_time()
    assert reply == REFUSED
    return last - began


async def test_what_one_server_issues_the_other_accepts_at_once(two_servers: tuple[int, ...]) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(await Peer.connect(port)) for port in two_servers]
        for _ in range(20):
            key = await manage(one, "issue")
            assert await other.ask(key=key) == PASSED
            assert await manage(other, "get", key) == {"plan": "gold"}


async def test_what_was_refused_before_it_was_issued_is_not_remembered_as_refused(two_servers: tuple[int, ...]) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(await Peer.connect(port)) for port in two_servers]
        assert await other.ask(key="x" * 32) == REFUSED
        old = await manage(one, "issue")
        new = await manage(one, "reissue", old)
        assert await other.ask(key=new) == PASSED


@pytest.mark.parametrize("how", ["revoke", "reissue"])
async def test_what_one_server_revokes_the_other_refuses_within_a_second(
    two_servers: tuple[int, ...], how: str
) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(await Peer.connect(port)) for port in two_servers]
        key = await manage(one, "issue")
        assert await one.ask(key=key) == await other.ask(key=key) == PASSED  # both have it in their cache
        new = await manage(one, how, key)
        assert await one.ask(key=key) == REFUSED
        assert await passed_for(other, key) < 1
        if how == "reissue":
            assert await one.ask(key=new) == await other.ask(key=new) == PASSED
        for _ in range(20):
            assert await other.ask(key=key) == REFUSED


@pytest.mark.parametrize("how", ["revoke", "reissue"])
async def test_a_session_that_is_logged_in_at_one_server_ends_within_a_second_of_a_revocation_by_another(
    two_servers: tuple[int, ...], how: str
) -> None:
    async with AsyncExitStack() as stack:
        one, other, idle, stays = [
            await stack.enter_async_context(await Peer.connect(port)) for port in (*two_servers, *two_servers)
        ]
        key = await manage(one, "issue")
        assert await stays.ask(number=0, log_in=await manage(one, "issue")) == {"number": 0, "plan": "gold"}
        for peer in (other, idle):
            assert await peer.ask(number=1) == failure("ERR_UNAUTHORIZED")
            assert await peer.ask(number=2, log_in=key) == {"number": 2, "plan": "gold"}
            assert await peer.ask(number=3) == {"number": 3, "plan": "gold"}
        new = await manage(one, how, key)
        with trio.fail_after(1):
            assert await idle.closed()
            while (reply := await other.ask(number=4)) == {"number": 4, "plan": "gold"}:  # noqa: ASYNC110  # no event
                await trio.sleep(0.005)
            assert reply is None or (reply == failure("ERR_UNAUTHORIZED") and await other.closed())
        assert await stays.ask(number=5) == {"number": 5, "plan": "gold"}
        if how == "reissue":
            assert await stays.ask(number=6, log_in=new) == {"number": 6, "plan": "gold"}


async def test_of_two_servers_that_reissue_a_key_one_succeeds(two_servers: tuple[int, ...]) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Peer.connect(port)) for port in two_servers]
        for _ in range(10):
            key = await manage(peers[0], "issue")
            replies: list[dict[str, Any]] = []

            async def reissue(peer: Peer, key: str, replies: list[dict[str, Any]]) -> None:
                reply = await peer.ask(do="reissue", on=key)
                assert reply is not None
                replies.append(reply)

            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(reissue, peer, key, replies)
            new = [reply["result"] for reply in replies if "result" in reply]
            assert len(new) == 1
            assert failure("ERR_HANDLER_FAILED") in replies
            assert await peers[0].ask(key=new[0]) == await peers[1].ask(key=new[0]) == PASSED
