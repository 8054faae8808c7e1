"""The events of a pool: those of all its connections, and of the connections that replace them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from conftest import Serve
from numbered_peer import NumberedPeer, numbered
from peer import JSON, packet
from ports import free_port
from scripted import fake_server
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.client import EventStream, Pool
from asyncapy.errors import NotConnected, ServerDisconnected, VersionTooOld
from asyncapy_core.client.events import MAX_EVENTS
from asyncapy_core.client.numbered_connection import KEEP_ALIVE


def pool_of(*ports: int, **settings: Any) -> Pool:
    hosts = [("127.0.0.1", port) for port in ports]
    return Pool(hosts, 1, **{"tls": False, "timeout": 10, "version": 23, "size": 1, **settings})


def pushing(name: str, port: int = 0) -> Server:
    """A server that pushes packets to the session of a request, or to all sessions."""
    server = Server(port=port)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        for number in range(packet["n"]):
            for session in server.sessions if "all" in packet else [client.session]:
                await session.send({"event": number, "server": name})
        return {"server": name}

    return server


async def taken(events: EventStream, count: int) -> list[dict[str, Any]]:
    """Return the next events."""
    with trio.fail_after(10):
        return [await events.__anext__() for _ in range(count)]


async def test_events_of_all_connections_come_together(serve: Serve) -> None:
    servers = [await serve(pushing(name)) for name in "ab"]
    async with pool_of(*(each.port for each in servers), size=2) as pool:
        events = pool.events()
        for each in servers:
            await each.settle(2)
        expected: Counter[str] = Counter()
        for _ in range(20):
            expected[(await pool.request({"n": 3}))["server"]] += 3
        assert Counter(event["server"] for event in await taken(events, 60)) == expected
        assert set(expected) == {"a", "b"}
        assert events.lost == 0


async def test_a_packet_for_all_sessions_comes_once_for_each_connection(serve: Serve) -> None:
    running = await serve(pushing("a"))
    async with Pool("127.0.0.1", running.port, size=3, tls=False, version=23) as pool:
        events = pool.events()
        await running.settle(3)
        await pool.request({"n": 1, "all": True})
        assert await taken(events, 3) == [{"event": 0, "server": "a"}] * 3


async def test_the_oldest_events_of_all_connections_are_dropped_and_counted(serve: Serve) -> None:
    servers = [await serve(pushing(name)) for name in "ab"]
    count = MAX_EVENTS // 4
    async with pool_of(*(each.port for each in servers)) as pool:
        events, other = pool.events(), pool.events()
        for _ in range(6):
            await pool.request({"n": count})
        await wait_all_tasks_blocked(0.01)
        assert events.lost == other.lost == 6 * count - MAX_EVENTS
        assert len(await taken(events, MAX_EVENTS)) == MAX_EVENTS
        assert events.lost == other.lost


async def test_the_end_of_a_session_is_raised_once_and_the_loop_may_go_on(serve: Serve) -> None:
    kept = await serve(pushing("kept"))
    sessions: list[NumberedPeer] = []

    async def behave(stream: trio.SocketStream) -> None:
        peer = NumberedPeer(stream)
        await peer.read()
        await peer.send(numbered("PONG", 0) + numbered("EVENT", 0, {"session": len(sessions)}))
        sessions.append(peer)
        await trio.sleep_forever()

    async with fake_server(behave) as port, pool_of(port, kept.port) as pool:
        events = pool.events()
        assert await taken(events, 1) == [{"session": 0}]
        await kept.settle(1)
        await kept.server.sessions[0].send({"from": "kept"})
        await wait_all_tasks_blocked(0.01)
        await sessions[0].stream.aclose()
        await wait_all_tasks_blocked(0.01)
        with pytest.raises(ServerDisconnected, match="closed the connection"):
            await taken(events, 1)
        assert await taken(events, 2) == [{"from": "kept"}, {"session": 1}]
        await kept.server.sessions[0].send({"from": "kept"})
        assert await taken(events, 1) == [{"from": "kept"}]
        assert events.lost == 0


async def test_a_session_that_leaves_and_the_next_one_are_both_heard() -> None:
    sessions: list[NumberedPeer] = []

    async def behave(stream: trio.SocketStream) -> None:
        peer = NumberedPeer(stream)
        sessions.append(peer)
        while (got := await peer.read()) is not None:
            if got.kind == "PING":
                await peer.send(numbered("PONG", got.number))
        await stream.aclose()

    async with fake_server(behave) as port, pool_of(port) as pool, trio.open_nursery() as nursery:
        events = pool.events()
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(pool.request, {"n": 1})
        await wait_all_tasks_blocked(0.01)
        await sessions[0].send(numbered("LEAVING", 1))
        with trio.fail_after(5):
            while len(sessions) < 2:
                await wait_all_tasks_blocked(0.01)
        await sessions[0].send(numbered("EVENT", 0, {"session": 0}))
        await sessions[1].send(numbered("EVENT", 0, {"session": 1}))
        assert sorted(event["session"] for event in await taken(events, 2)) == [0, 1]
        await sessions[0].send(numbered("END", 1))
        with pytest.raises(ServerDisconnected):
            await taken(events, 1)


async def test_a_host_that_is_down_is_tried_at_growing_intervals(autojump_clock: MockClock, serve: Serve) -> None:
    attempts = 0

    async def refuse() -> trio.abc.Stream:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError

    running = await serve(pushing("a"))
    async with pool_of(free_port(), running.port) as pool:
        pool._hosts[0].clients[0]._connector._open_stream = refuse
        events = pool.events()
        await trio.sleep(KEEP_ALIVE)
        assert 10 < attempts < 40
        assert (await pool.request({"n": 0}))["server"] == "a", "a request is not delayed"
        assert not events.ended


async def test_a_host_that_ends_each_session_is_tried_at_intervals(autojump_clock: MockClock) -> None:
    attempts = 0

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        await NumberedPeer(stream).read()
        await stream.send_all(numbered("PONG", 0))
        await stream.aclose()

    async with fake_server(behave) as port, pool_of(port, port) as pool:
        events = pool.events()
        with trio.move_on_after(10):
            while True:
                with pytest.raises(ServerDisconnected):
                    await events.__anext__()
    assert attempts < 900, "with a pause of 25 ms or more for each of two connections"


async def answer_as_version_22(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(packet(JSON, b'{"status": "failure", "error": "ERR_HEADER_INVALID"}'))
    await stream.aclose()


async def test_a_host_of_version_22_is_reported_once_and_the_others_are_heard(serve: Serve) -> None:
    running = await serve(pushing("a"))
    async with fake_server(answer_as_version_22) as port, pool_of(port, running.port, version=None) as pool:
        events = pool.events()
        with pytest.raises(VersionTooOld):
            await taken(events, 1)
        await running.settle(1)
        await running.server.sessions[0].send({"n": 1})
        assert await taken(events, 1) == [{"n": 1}]
        more = pool.events()
        with pytest.raises(VersionTooOld):
            await taken(more, 1)


async def test_version_22_has_no_events(serve: Serve) -> None:
    running = await serve(pushing("a"))
    async with pool_of(running.port, version=22) as pool:
        with pytest.raises(VersionTooOld, match=r"events\(\) needs version 23"):
            pool.events()
    async with fake_server(answer_as_version_22) as port, pool_of(port, port, version=None) as pool:
        events = pool.events()
        for _ in range(3):  # one connection and the other, and then the end of the stream
            with pytest.raises(VersionTooOld):
                await taken(events, 1)
        assert events.ended


async def closed_by_aclose(events: EventStream) -> None:
    await events.aclose()
    assert [event async for event in events] == []


async def closed_by_a_block(events: EventStream) -> None:
    async with events:
        pass


@pytest.mark.parametrize("close", [closed_by_aclose, closed_by_a_block])
async def test_closed_events_open_no_connections(
    autojump_clock: MockClock, close: Callable[[EventStream], Awaitable[None]]
) -> None:
    count = 0

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        await NumberedPeer(stream).read()
        await stream.send_all(numbered("PONG", 0))
        await stream.aclose()

    async with fake_server(behave) as port, pool_of(port) as pool:
        events = pool.events()
        with pytest.raises(ServerDisconnected):
            await taken(events, 1)
        await close(events)
        await trio.sleep(10)
        before = count
        await trio.sleep(KEEP_ALIVE)
        assert count == before


async def test_events_that_are_dropped_are_not_kept(serve: Serve) -> None:
    running = await serve(pushing("a"))
    async with pool_of(running.port) as pool:
        pool.events()
        gc.collect()
        await wait_all_tasks_blocked(0.01)
        assert running.connections == 0


async def test_the_end_of_the_pool_is_the_end_of_its_events(serve: Serve) -> None:
    running = await serve(pushing("a"))
    async with pool_of(running.port, running.port, size=2) as pool:
        events = pool.events()
        await running.settle(4)
    for _ in range(3):
        with pytest.raises(NotConnected, match="the client was closed"):
            await taken(events, 1)
    with pytest.raises(NotConnected, match="this pool is not open"):
        pool.events()
