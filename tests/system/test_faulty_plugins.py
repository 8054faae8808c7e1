"""Plugins that fail while a server starts and runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Serve
from peer import packet

from asyncapy import Server
from asyncapy_core import PluginManager, hookimpl
from asyncapy_core.errors import PluginError


class Codec:
    name = "faulty"
    wire_id = 9

    def __init__(self, *, encodes: bool = True) -> None:
        self._encodes = encodes

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        if not self._encodes:
            raise RuntimeError("a slip")
        return repr(dict(fields)).encode()

    def decode(self, payload: bytes) -> Any:
        if payload == b"slip":
            raise RuntimeError("a slip")
        return [1, 2, 3] if payload == b"list" else {"a": 1}


class Plugin:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @hookimpl
    def asyncapy_codecs(self) -> list[Codec]:
        return [self._codec]


class NoFilters:
    @hookimpl
    def asyncapy_filters(self) -> dict[str, Any]:
        raise ValueError("a slip")


def plugins(**kinds: object) -> PluginManager:
    manager = PluginManager(discover=False)
    for name, plugin in kinds.items():
        manager.register(plugin, name)
    return manager


@pytest.mark.parametrize("payload", [b"list", b"slip"])
async def test_a_codec_that_decodes_to_no_map_or_fails_has_its_packet_malformed(serve: Serve, payload: bytes) -> None:
    running = await serve(Server(port=0, plugins=plugins(codec=Plugin(Codec()))))
    async with await running.connect() as peer:
        await peer.send(packet(9, payload))
        reply = await peer.reply()
        assert reply is not None
        assert b"ERR_REQUEST_MALFORMED" in reply[1]
        assert await peer.closed()
    async with await running.connect() as peer:
        await peer.send(packet(9, b"fine"))
        assert await peer.reply() == (9, b"{'a': 1}")
    assert running.logged("A packet could not be decoded: the codec 'faulty' is broken")


@pytest.mark.parametrize("limit", [{"session_limit": 1}, {"max_connections": 1}])
async def test_a_codec_that_fails_on_a_refusal_does_not_end_the_server(serve: Serve, limit: dict[str, Any]) -> None:
    running = await serve(Server(port=0, plugins=plugins(codec=Plugin(Codec(encodes=False))), **limit))
    async with await running.connect():
        await running.settle(1)
        for _ in range(2):
            async with await running.connect() as refused:
                assert await refused.closed()
    assert running.logged("RuntimeError")
    await running.settle(0)
    async with await running.connect():
        await running.settle(1)


async def test_a_required_plugin_that_is_quarantined_by_its_hook_ends_the_start() -> None:
    server = Server(port=0, plugins=plugins(codec=Plugin(Codec()), broken=NoFilters()), plugins_require=["broken"])
    with pytest.raises(PluginError, match=r"plugin 'broken' .* is required but quarantined: .*a slip"):
        await server.serve()


async def test_stopping_before_the_start_is_not_lost() -> None:
    server = Server(port=0)
    with trio.fail_after(5):
        server.stop()
        await server.serve()


async def test_a_server_is_stopped_from_another_thread() -> None:
    server = Server(port=0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            await trio.to_thread.run_sync(server.stop)


async def test_a_server_that_is_being_set_up_cannot_be_served_a_second_time() -> None:
    class Slow(Server):
        async def setup(self) -> None:
            await trio.sleep(0.05)

    server = Slow(port=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(RuntimeError, match="is serving"):
            await server.serve()
        server.stop()


async def test_shutdown_may_take_its_time_when_the_server_is_stopped(autojump_clock: trio.testing.MockClock) -> None:
    done: list[str] = []

    class Thorough(Server):
        async def shutdown(self) -> None:
            await trio.sleep(100)
            done.append("shut down")

    server = Thorough(port=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        server.stop()
    assert done == ["shut down"]


async def test_shutdown_is_cut_when_the_server_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    class Thorough(Server):
        async def shutdown(self) -> None:
            await trio.sleep(100)

    server = Thorough(port=0)
    began = trio.current_time()
    with trio.move_on_after(1):
        await server.serve()
    assert trio.current_time() - began == pytest.approx(11)
