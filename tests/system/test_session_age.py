"""The setting ``session_age``: sessions of version 23 end after a while, and their clients use another connection."""

from __future__ import annotations

from typing import Any

import trio
from conftest import Start
from numbered_peer import Answer, NumberedPeer
from peer import Peer
from trio.testing import MockClock

from asyncapy_core import Server


def echo_server(**settings: Any) -> Server:
    server = Server(timeout=1000, **settings)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> Any:
        return packet

    return server


async def test_an_old_session_ends_in_order(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    server = Server(session_age=100, timeout=1000)

    @server.add_handler()
    async def slow(client: Any, packet: Any) -> Any:
        await trio.sleep(packet["seconds"])
        return packet

    running = await asyncapy_server(server)
    began = trio.current_time()
    async with NumberedPeer(await running.connect()) as peer:
        assert await peer.ask(seconds=1) == [Answer("REPLY", 1, {"seconds": 1})]
        await peer.request(seconds=150)
        assert await peer.read(200) == Answer("LEAVING", 2, None)
        assert 90 <= trio.current_time() - began <= 110.001
        await peer.request(seconds=0)  # too late: it is above the number
        assert await peer.read(200) == Answer("REPLY", 2, {"seconds": 150})
        assert await peer.read() is None


async def test_sessions_do_not_all_end_at_once(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(echo_server(session_age=100))
    ends: list[float] = []
    began = trio.current_time()

    async def stay() -> None:
        async with NumberedPeer(await running.connect()) as peer:
            await peer.ask(a=1)
            assert await peer.read(200) == Answer("LEAVING", 1, None)
            ends.append(trio.current_time() - began)
            assert await peer.read() is None

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(stay)
    assert 90 <= min(ends) <= max(ends) <= 110.001
    assert len({round(end) for end in ends}) > 2


async def test_sessions_of_version_22_have_no_age(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(echo_server(session_age=10))
    async with Peer(await running.connect()) as peer:
        assert await peer.ask(a=1) == {"a": 1}
        await trio.sleep(100)
        assert await peer.ask(a=2) == {"a": 2}
