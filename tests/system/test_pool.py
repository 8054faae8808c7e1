"""Pool with several hosts, in both versions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from conftest import Serve
from numbered_peer import NumberedPeer, numbered
from ports import free_port
from scripted import fake_server
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.client import Pool
from asyncapy.errors import NotConnected, ServerDisconnected
from asyncapy_core.client.pool import AVOIDED
from asyncapy_core.client.streams import IMPATIENCE

VERSIONS: list[Any] = [22, 23, None]


def pool_of(*ports: int, **settings: Any) -> Pool:
    return Pool([("127.0.0.1", port) for port in ports], 1, **{"tls": False, "timeout": 10, **settings})


def named(name: str, release: trio.Event | None = None) -> Server:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        if release is not None:
            await release.wait()
        for _ in range(packet.fields.get("parts", 0)):
            await client.send({"server": name})
        return {"server": name}

    return server


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_request_goes_to_the_host_with_the_fewest_requests_in_flight(serve: Serve, version: Any) -> None:
    release = trio.Event()
    servers = [await serve(named(name, release)) for name in "abc"]
    answers: Counter[str] = Counter()

    async def ask(pool: Pool) -> None:
        answers[(await pool.request({"a": 1}))["server"]] += 1

    async with pool_of(*(each.port for each in servers), version=version) as pool, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(ask, pool)
            await wait_all_tasks_blocked()
        release.set()
    assert answers == {"a": 4, "b": 4, "c": 4}


async def test_requests_one_after_the_other_reach_all_hosts(serve: Serve) -> None:
    servers = [await serve(named(name)) for name in "ab"]
    async with pool_of(*(each.port for each in servers), version=23) as pool:
        answers = Counter([(await pool.request({"a": 1}))["server"] for _ in range(100)])
    assert min(answers["a"], answers["b"]) > 10
    assert all(len(each.logged("New session started")) == 1 for each in servers)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_host_that_cannot_be_reached_is_avoided(serve: Serve, version: Any) -> None:
    running = await serve(named("a"))
    async with pool_of(free_port(), running.port, free_port(), version=version, size=1) as pool:
        for _ in range(20):
            assert (await pool.request({"a": 1}))["server"] == "a"
        assert sum(host.avoided_until > trio.current_time() for host in pool._hosts) >= 1
        for host in pool._hosts:
            host.avoided_until = trio.current_time() + AVOIDED
        assert (await pool.request({"a": 1}))["server"] == "a", "if all are avoided, all are tried"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_request_waits_for_the_first_host_that_starts(serve: Serve, version: Any) -> None:
    ports = [free_port(), free_port()]
    replies: list[Any] = []

    async def ask() -> None:
        replies.append(await pool.request({"a": 1}))

    async with pool_of(*ports, version=version) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(0.1)
        await serve(Server(port=ports[1]))
    assert replies == [{"a": 1}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_hosts_that_never_start_are_reported_in_time(version: Any) -> None:
    async with pool_of(free_port(), free_port(), version=version) as pool:
        with trio.fail_after(2), pytest.raises(NotConnected, match=r"cannot connect to 127\.0\.0\.1"):
            await pool.request({"a": 1}, timeout=0.2)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seconds", [60, None])
async def test_a_host_that_does_not_answer_is_given_up_for_another_one(
    serve: Serve, autojump_clock: MockClock, version: Any, seconds: Any
) -> None:
    running = await serve(named("a"))
    async with pool_of(running.port, running.port, version=version, timeout=seconds) as pool:
        for client in pool._hosts[0].clients:
            client._connector._open_stream = trio.sleep_forever
        pool._hosts[1].avoid()
        before = trio.current_time()
        assert await pool.request({"a": 1}) == {"server": "a"}
        assert IMPATIENCE <= trio.current_time() - before < 2 * IMPATIENCE


async def test_a_pool_with_one_host_waits_for_it(autojump_clock: MockClock) -> None:
    async with pool_of(1, timeout=60) as pool:
        for client in pool._hosts[0].clients:
            client._connector._open_stream = trio.sleep_forever
        with pytest.raises(NotConnected, match="no answer within 60 s"):
            await pool.request({"a": 1}, timeout=70)


async def test_what_leaving_did_not_take_is_sent_to_another_host(serve: Serve) -> None:
    running = await serve(named("a"))
    leaving = trio.Event()

    async def behave(stream: trio.SocketStream) -> None:
        peer = NumberedPeer(stream)
        await peer.read()
        leaving.set()
        await peer.send(numbered("LEAVING", 0))
        await stream.aclose()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, behave, 0)
        port = listeners[0].socket.getsockname()[1]
        async with pool_of(port, running.port, version=23) as pool:
            pool._hosts[1].avoid()
            assert await pool.request({"a": 1}) == {"server": "a"}
    assert leaving.is_set()


@pytest.mark.parametrize("idempotent", [False, True])
async def test_an_idempotent_request_is_repeated_on_another_host(serve: Serve, idempotent: bool) -> None:
    running = await serve(named("a"))

    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with fake_server(behave) as port, pool_of(port, running.port, version=23) as pool:
        pool._hosts[1].avoid()
        if idempotent:
            assert await pool.request({"a": 1}, idempotent=True) == {"server": "a"}
        else:
            with pytest.raises(ServerDisconnected):
                await pool.request({"a": 1})


async def test_hosts_that_break_off_each_time_are_reported() -> None:
    count = 0

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        await stream.receive_some()
        await stream.aclose()

    async with fake_server(behave) as port, pool_of(port, port, version=23) as pool:
        with pytest.raises(ServerDisconnected):
            await pool.request({"a": 1}, idempotent=True)
    assert count == 4


async def test_a_pool_has_streams(serve: Serve) -> None:
    servers = [await serve(named(name)) for name in "ab"]
    async with pool_of(*(each.port for each in servers), version=23) as pool:
        parts = [part["server"] async for part in pool.stream({"parts": 3})]
        assert parts in (["a"] * 4, ["b"] * 4)
    with pytest.raises(NotConnected, match="this pool is not open"):
        pool.stream({"a": 1})


async def test_later_streams_avoid_a_host_that_cannot_be_reached(serve: Serve) -> None:
    running = await serve(named("a"))
    failed = 0
    async with pool_of(free_port(), running.port, version=23, size=1) as pool:
        for _ in range(30):
            try:
                assert [part async for part in pool.stream({"a": 1})] == [{"server": "a"}]
            except NotConnected:
                failed += 1
    assert failed <= 1


def pausing(name: str, go_on: trio.Event) -> Server:
    """A server that sends the first of several parts, and the others later."""
    server = Server(port=0, drain_timeout=20)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        for number in range(packet["parts"]):
            await client.send({"server": name, "n": number})
            await go_on.wait()
        return {"server": name}

    return server


async def test_a_server_that_stops_in_the_middle_of_a_stream_loses_nothing(serve: Serve) -> None:
    go_on = trio.Event()
    servers = {name: await serve(pausing(name, go_on)) for name in "ab"}
    async with pool_of(*(each.port for each in servers.values()), version=23, size=1, timeout=30) as pool:
        events = pool.events()
        stream = pool.stream({"parts": 50})
        first = (await stream.__anext__())["server"]
        servers.pop(first).server.stop()
        ((other, running),) = servers.items()
        for _ in range(20):
            assert await pool.request({"parts": 0}) == {"server": other}
        go_on.set()
        parts = [part async for part in stream]
        assert parts == [*({"server": first, "n": number} for number in range(1, 50)), {"server": first}]
        with pytest.raises(ServerDisconnected):
            await events.__anext__()
        await running.server.sessions[0].send({"event": 1})
        assert await events.__anext__() == {"event": 1}


async def test_hosts_share_a_port_or_have_their_own(serve: Serve) -> None:
    running = await serve(named("a"))
    async with Pool(("127.0.0.1", ("127.0.0.1", running.port)), running.port, tls=False) as pool:
        for _ in range(10):
            assert await pool.request({"a": 1}) == {"server": "a"}


def test_a_pool_has_a_host() -> None:
    with pytest.raises(ValueError, match="there is no host"):
        Pool([], 1)
    with pytest.raises(ValueError, match="open_stream opens streams to one server"):
        Pool(["a", "b"], 1, open_stream=trio.sleep_forever)
    with pytest.raises(ValueError, match="timeout is 0"):
        Pool(["a", "b"], 1, timeout=0)
