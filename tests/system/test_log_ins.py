"""Servers whose sessions log in with a key: revocations beside slow peers, handlers that run, and a stop."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from typing import Any

import trio
from conftest import Serve
from peer import Peer, failure, json_packet

from asyncapy import Client, Packet, Server
from asyncapy.errors import ClientDisconnected
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core import MemoryKeyStore
from asyncapy_core.keys.factory import digest


def members(factory: APIKeyFactory, **settings: Any) -> Server:
    server = Server(port=0, **settings)
    server.guard(Filters.APIFactory(factory, "key", once=True))

    @server.add_handler(Filters.HasFields(size=None))
    async def large(client: Client, packet: Packet) -> dict[str, Any]:
        return {"text": "x" * packet["size"]}

    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


async def test_a_peer_that_does_not_read_delays_the_end_of_no_other_session(serve: Serve) -> None:
    factory = APIKeyFactory()
    running = await serve(members(factory, max_packet=16 * 1024 * 1024))
    key, other = factory.issue(), factory.issue()
    async with AsyncExitStack() as stack:
        stuck = [
            await stack.enter_async_context(await Peer.connect_from("127.0.0.1", running.port, receive_buffer=4096))
            for _ in range(3)
        ]
        peers = [await stack.enter_async_context(await running.connect()) for _ in range(5)]
        for peer in stuck:
            await peer.send(json_packet(size=8 * 1024 * 1024, key=key))
            assert (await peer.read(1)) != b"", "the server has begun to send"
        for peer in peers:
            assert await peer.ask(key=key) == {"key": key}
        assert await peers[-1].ask(key=other) == {"key": other}
        factory.revoke(key)
        with trio.fail_after(1):
            for peer in peers[:-1]:
                assert await peer.closed()
        assert await peers[-1].ask(a=1) == {"a": 1}
        assert len(running.server.sessions) == 1, "sessions whose peers do not read have ended as well"


async def test_packets_in_transit_do_not_pass_after_the_revocation(serve: Serve) -> None:
    factory = APIKeyFactory()
    server, handled = Server(port=0), list[int]()
    server.guard(Filters.APIFactory(factory, "key", once=True))

    @server.add_handler()
    async def handle(client: Client, packet: Packet) -> dict[str, Any]:
        handled.append(packet["number"])
        if packet["number"] == 2:
            factory.revoke(key)
        return {"number": packet["number"]}

    running, key = await serve(server), factory.issue()
    async with await running.connect() as peer:
        await peer.send(json_packet(key=key, number=0) + b"".join(json_packet(number=number) for number in range(1, 9)))
        for number in range(3):
            assert await peer.json() == {"number": number}
        while (answer := await peer.json()) is not None:
            assert answer == failure("ERR_UNAUTHORIZED")
    assert handled == [0, 1, 2]


async def test_a_handler_that_runs_is_not_interrupted_and_cannot_send_any_more(serve: Serve) -> None:
    factory = APIKeyFactory()
    server, begun, go, outcome = Server(port=0), trio.Event(), trio.Event(), list[str]()
    server.guard(Filters.APIFactory(factory, "key", once=True))

    @server.add_handler()
    async def handle(client: Client, packet: Packet) -> None:
        begun.set()
        await go.wait()
        try:
            await client.send({"too": "late"})
        except ClientDisconnected:
            outcome.append("disconnected")

    running, key = await serve(server), factory.issue()
    async with await running.connect() as peer:
        await peer.send(json_packet(key=key))
        await begun.wait()
        factory.revoke(key)
        with trio.fail_after(1):
            assert await peer.closed()
        go.set()
        await running.settle()
    assert outcome == ["disconnected"]
    assert not running.logged("[ERROR]")


async def test_a_server_stops_at_once_with_sessions_that_are_logged_in(serve: Serve) -> None:
    class Away(MemoryKeyStore):
        blocking = True
        timeout = 60.0
        hangs = False
        is_asked = threading.Event()

        def peek(self, digest: str) -> None:
            return None

        def get(self, digest: str) -> Any:
            if self.hangs:
                self.is_asked.set()
                trio.from_thread.run(trio.sleep_forever)
            return super().get(digest)

    store = Away()
    factory = APIKeyFactory(store=store)
    running, key = await serve(members(factory)), factory.issue()
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == {"key": key}
        store.hangs = True
        assert await trio.to_thread.run_sync(store.is_asked.wait, 10), "the key is checked again"
        with trio.fail_after(2):
            running.server.stop()
            assert await peer.closed()


async def test_two_servers_in_one_run_share_the_watch_of_a_factory(serve: Serve) -> None:
    store = MemoryKeyStore()
    factory = APIKeyFactory(store=store)
    one, other = await serve(members(factory)), await serve(members(factory))
    key = factory.issue()
    async with await one.connect() as first, await other.connect() as second, await other.connect() as third:
        for peer in (first, second):
            assert await peer.ask(key=key) == {"key": key}
        assert await third.ask(a=1) == failure("ERR_UNAUTHORIZED")
        one.server.stop()
        assert await first.closed()
        assert await second.ask(a=1) == {"a": 1}
        store.remove(digest(key))
        with trio.fail_after(1):
            assert await second.closed()
