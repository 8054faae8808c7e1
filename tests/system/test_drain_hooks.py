"""`asyncapy_drain`: plugins that prepare for the end of a server."""

from __future__ import annotations

import pytest
import trio
from conftest import Start
from hooks import Plugin, manager
from trio.testing import MockClock

from asyncapy import Client, Packet, Server
from asyncapy_core.testing import serving


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


async def test_the_hook_asyncapy_drain_is_called_before_the_port_is_closed(autojump_clock: MockClock) -> None:
    events: list[str] = []

    async def drain(server: Server) -> None:
        events.append("begins")
        await trio.sleep(5)
        events.append(f"ends, {len(server.sessions)} session")

    plugins = manager(b=Plugin(asyncapy_drain=lambda: events.append("plain")), a=Plugin(asyncapy_drain=drain))
    server = echoing(Server(plugins=plugins))
    async with serving(server) as running, running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
        before = trio.current_time()
        server.stop()
        await trio.sleep(2)
        assert await client.request({"a": 2}) == {"a": 2}
        async with running.client() as other:
            assert await other.request({"a": 3}) == {"a": 3}
        await running.ended()
        assert trio.current_time() - before == 5
    assert events == ["plain", "begins", "ends, 1 session"]


async def test_the_plugins_drain_together(autojump_clock: MockClock) -> None:
    async def drain() -> None:
        await trio.sleep(5)

    server = echoing(Server(plugins=manager(b=Plugin(asyncapy_drain=drain), a=Plugin(asyncapy_drain=drain))))
    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 5


async def test_a_plugin_that_hangs_in_drain_is_cancelled_and_named(autojump_clock: MockClock) -> None:
    events: list[str] = []

    async def hangs() -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append("cancelled")

    server = echoing(Server(drain_timeout=9, plugins=manager(hangs=Plugin(asyncapy_drain=hangs))))
    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 9
    assert events == ["cancelled"]
    text = "asyncapy_drain of plugin 'hangs' of (registered) has not ended within 9 s, and is cancelled"
    assert [line for line in running.log if text in line]


async def test_a_plugin_that_shields_itself_in_drain_is_forced_to_end(autojump_clock: MockClock) -> None:
    async def hangs() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    server = echoing(Server(drain_timeout=9, plugins=manager(hangs=Plugin(asyncapy_drain=hangs))))
    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 10
    assert [
        line
        for line in running.log
        if "has not ended within 1 s after its cancellation; its shields are removed" in line
    ]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_plugin_that_raises_in_drain_is_named_and_the_others_drain(
    asyncapy_server: Start, is_async: bool
) -> None:
    events: list[str] = []

    def fails() -> None:
        raise ValueError("a slip")

    async def fails_later() -> None:
        await trio.lowlevel.checkpoint()
        fails()

    async def drain() -> None:
        await trio.lowlevel.checkpoint()
        events.append("drained")

    plugins = manager(b=Plugin(asyncapy_drain=fails_later if is_async else fails), a=Plugin(asyncapy_drain=drain))
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    await running.stop()
    assert events == ["drained"]
    (line,) = [line for line in running.log if "plugin 'b' of (registered) in asyncapy_drain failed" in line]
    assert "a slip" in line


async def test_drain_is_called_once_for_each_run_that_has_served() -> None:
    calls: list[str] = []
    plugins = manager(a=Plugin(asyncapy_drain=lambda: calls.append("drain")))
    server = Server(port=0, logging_level="CRITICAL", plugins=plugins)
    server.stop()
    await server.serve()
    assert calls == []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()
        assert calls == ["drain"]
        calls.clear()


async def test_a_server_that_is_cancelled_does_not_drain() -> None:
    calls: list[str] = []
    plugins = manager(a=Plugin(asyncapy_drain=lambda: calls.append("drain")))
    server = Server(port=0, logging_level="CRITICAL", plugins=plugins)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        nursery.cancel_scope.cancel()
    assert calls == []
