"""Plugins that fail in `asyncapy_setup` or hang in it: the server serves without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from conftest import Start
from hooks import Plugin, manager
from trio.testing import MockClock

from asyncapy import Client, Packet, Server
from asyncapy.errors import ConfigError, PluginError


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


def noting(events: list[str], name: str, **more: Any) -> Plugin:
    """Return a plugin that notes the calls of its hooks, and has these as well."""

    async def run() -> None:
        events.append(f"{name} runs")

    hooks: dict[str, Callable[..., Any]] = {
        "asyncapy_setup": lambda: events.append(f"{name} setup"),
        "asyncapy_wrap": lambda: events.append(f"{name} wraps"),
        "asyncapy_run": run,
        "asyncapy_session": lambda: events.append(f"{name} session"),
        "asyncapy_drain": lambda: events.append(f"{name} drains"),
        "asyncapy_shutdown": lambda: events.append(f"{name} shutdown"),
    }
    attributes = {key: value for key, value in more.items() if key in ("asyncapy_requires", "asyncapy_after")}
    return Plugin(attributes, **{**hooks, **{key: value for key, value in more.items() if key not in attributes}})


def fails() -> None:
    raise ValueError("a slip")


async def hangs(server: Server) -> None:
    nursery = await server.exit_stack.enter_async_context(trio.open_nursery())
    nursery.start_soon(trio.sleep_forever)
    await trio.sleep_forever()


LIFE = ["wraps", "runs", "session", "drains", "shutdown"]


async def test_a_plugin_that_raises_in_setup_is_named_and_the_others_serve(asyncapy_server: Start) -> None:
    events: list[str] = []
    plugins = manager(a=noting(events, "a"), b=noting(events, "b", asyncapy_setup=fails))
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await running.stop()
    assert events == ["a setup", *(f"a {event}" for event in LIFE)]
    (line,) = [line for line in running.log if "plugin 'b'" in line]
    assert line == (
        "[ERROR] {Server} plugin 'b' of (registered) failed in setup: ValueError: a slip; the server starts "
        "without it, as plugins_require does not name it"
    )


async def test_a_plugin_that_hangs_in_setup_is_named_and_the_others_serve(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    events: list[str] = []
    plugins = manager(
        a=noting(events, "a"), b=noting(events, "b", asyncapy_setup=hangs), c=noting(events, "c"), d=noting(events, "d")
    )
    before = trio.current_time()
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    assert trio.current_time() - before == 60
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    assert events[:5] == ["a setup", "a shutdown", "a setup", "c setup", "d setup"]
    assert not [event for event in events if event.startswith("b")]
    lines = [line for line in running.log if "plugin 'b'" in line]
    assert lines[0] == "[WARNING] {Server} The start takes long: plugin 'b' of (registered) is in setup"
    assert [
        line for line in lines if "[ERROR] {Server} plugin 'b' of (registered) was in setup for more than 60" in line
    ]


async def test_two_plugins_that_hang_are_left_out(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    events: list[str] = []
    plugins = manager(
        a=noting(events, "a", asyncapy_setup=hangs), b=noting(events, "b", asyncapy_setup=hangs), c=noting(events, "c")
    )
    before = trio.current_time()
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    assert trio.current_time() - before == 120
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    assert {event[0] for event in events} == {"c"}


async def test_a_required_plugin_may_take_long(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    async def slow() -> None:
        await trio.sleep(1000)

    server = echoing(Server(plugins=manager(a=Plugin(asyncapy_setup=slow)), plugins_require=["a"]))
    before = trio.current_time()
    await asyncapy_server(server)
    assert trio.current_time() - before == 1000


async def test_a_stop_ends_the_setup_of_a_plugin(autojump_clock: MockClock) -> None:
    server = Server(port=0, logging_level="CRITICAL", plugins=manager(a=Plugin(asyncapy_setup=hangs)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await trio.sleep(5)
        before = trio.current_time()
        server.stop()
    assert trio.current_time() == before


async def test_a_plugin_that_requires_one_that_failed_is_left_out_too(asyncapy_server: Start) -> None:
    events: list[str] = []
    plugins = manager(
        b=noting(events, "b", asyncapy_setup=fails),
        a=noting(events, "a", asyncapy_requires=("b",)),
        c=noting(events, "c", asyncapy_after=("b",)),
    )
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    assert {event[0] for event in events} == {"c"}
    assert [line for line in running.log if "plugin 'a' of (registered) requires plugin 'b' of (registered)" in line]


@pytest.mark.parametrize("kind", [PluginError, ConfigError])
async def test_a_plugin_may_refuse_the_start(kind: type[Exception]) -> None:
    def refuse() -> None:
        raise kind("not on a Sunday")

    server = Server(port=0, plugins=manager(a=Plugin(asyncapy_setup=refuse)))
    with pytest.raises(PluginError, match=r"plugin 'a' of \(registered\) failed in setup: .*Error: not on a Sunday"):
        await server.serve()


async def test_a_plugin_that_was_left_out_is_tried_again_in_the_next_run() -> None:
    calls: list[int] = []

    def setup() -> None:
        calls.append(1)
        if len(calls) == 1:
            fails()

    wrapped: list[int] = []
    plugin = Plugin(asyncapy_setup=setup, asyncapy_wrap=lambda: wrapped.append(len(calls)))
    server = echoing(Server(port=0, logging_level="CRITICAL", plugins=manager(a=plugin)))
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()
    assert wrapped == [2]
