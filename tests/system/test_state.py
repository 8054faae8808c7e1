"""The state of sessions and servers, and the sessions of a server."""

from __future__ import annotations

import gc
import weakref
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import ZIPROTO, Peer, json_packet, packet

from asyncapy import Client, Packet, Server
from asyncapy.core import Session, SharedPacket
from asyncapy.errors import ClientDisconnected, EncodeError
from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_core.testing import Detached


def counting() -> Server:
    """Return a server that counts the packets of each session, and of all."""
    server = Server(port=0)
    server.state.count = 0

    @server.add_handler()
    async def count(client: Client, packet: Packet) -> dict[str, Any]:
        client.server.state.count += 1
        client.state.count = client.state.count + 1 if "count" in client.state else 1
        assert client.state is client.session.state
        return {"mine": client.state.count, "all": client.server.state.count}

    return server


async def test_each_session_has_a_state_and_the_server_has_one(serve: Serve) -> None:
    running = await serve(counting())
    async with await running.connect() as one, await running.connect() as other:
        assert [await one.ask(a=1) for _ in range(2)] == [{"mine": 1, "all": 1}, {"mine": 2, "all": 2}]
        assert await other.ask(a=1) == {"mine": 1, "all": 3}
    async with await running.connect() as later:
        assert await later.ask(a=1) == {"mine": 1, "all": 4}
    assert running.server.state.count == 4


async def test_the_open_sessions_are_listed(serve: Serve) -> None:
    server = counting()
    assert server.sessions == []
    running = await serve(server)
    async with await running.connect() as one, await Peer.connect_from("127.0.0.2", running.port) as other:
        await one.ask(a=1)
        await other.ask(a=1)
        sessions = server.sessions
        assert {session.client.address for session in sessions} == {"127.0.0.1", "127.0.0.2"}
        assert [session.state.count for session in sessions] == [1, 1]
        for session in sessions:
            await session.client.send({"pushed": session.client.address})
        assert await one.json() == {"pushed": "127.0.0.1"}
        assert await other.json() == {"pushed": "127.0.0.2"}
    await running.settle()
    assert server.sessions == []


async def test_a_session_has_a_memo_for_filters_until_it_ends(serve: Serve) -> None:
    sessions: list[Session] = []
    server = Server(port=0)

    @server.guard
    def remember(client: Client, packet: Packet) -> bool:
        sessions.append(client.session)
        client.session.memo["packets"] = [*client.session.memo.get("packets", []), packet["number"]]
        return True

    running = await serve(server)
    async with await running.connect() as one, await running.connect() as other:
        for number in range(3):
            assert await one.ask(number=number) == {"number": number}
        await other.ask(number=5)
        assert [session.memo["packets"] for session in sessions] == [[0, 1, 2]] * 3 + [[5]]
        assert "packets" not in sessions[0].state
    await running.settle()
    sessions[0].memo["late"] = True
    assert [session.memo for session in sessions] == [{}] * 4


async def test_the_state_of_an_ended_session_is_freed_with_it(serve: Serve) -> None:
    class Marker:
        pass

    markers: list[weakref.ref[Marker]] = []
    sessions: list[Session] = []
    server = Server(port=0)

    @server.add_handler()
    async def keep(client: Client, packet: Packet) -> dict[str, Any]:
        client.state.marker = Marker()
        markers.append(weakref.ref(client.state.marker))
        if "keep" in packet:
            sessions.append(client.session)
        return {"kept": True}

    running = await serve(server)
    gc.disable()
    try:
        async with await running.connect() as peer:
            await peer.ask(a=1)
        async with await running.connect() as peer:
            await peer.ask(keep=1)
        await running.settle()
        assert [marker() is None for marker in markers] == [True, False]
        assert sessions[0].state.marker is markers[1]()
        assert sessions[0].client.state is sessions[0].state
    finally:
        gc.enable()


def test_a_state_names_what_is_missing_and_hides_its_values() -> None:
    state = Detached().client.state
    with pytest.raises(AttributeError, match="'user' is not set in this state, which has no attribute; set it before"):
        print(state.user)
    state.user, state.key = "alice", "secret"
    assert (state.user, "user" in state, "other" in state) == ("alice", True, False)
    assert repr(state) == "<State of user, key>"
    with pytest.raises(AttributeError, match="'usr' is not set in this state, which has 'user', 'key'"):
        print(state.usr)
    del state.user
    assert vars(state) == {"key": "secret"}
    assert not hasattr(state, "user")


async def test_a_session_pushes_to_its_client(serve: Serve) -> None:
    server = counting()
    running = await serve(server)
    async with await running.connect() as one, await running.connect() as other:
        await one.ask(a=1)
        await other.ask(a=1)
        (first, second) = server.sessions
        await first.send({"n": 1})
        first.send_nowait({"n": 2})
        second.send_nowait(Packet({"n": 3}))
        assert [await one.json(), await one.json(), await other.json()] == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await one.ask(a=1) == {"mine": 2, "all": 3}
    await running.settle()
    with pytest.raises(ClientDisconnected):
        await first.send({"n": 4})
    with pytest.raises(ClientDisconnected):
        first.send_nowait({"n": 4})
    with pytest.raises(ClientDisconnected):
        first.send_nowait(SharedPacket({"n": 4}))


async def test_send_nowait_raises_when_the_peer_does_not_read(serve: Serve) -> None:
    server = Server(port=0, max_output=100_000)
    sent: list[int] = []

    def fill(client: Client) -> None:
        for number in range(10_000):
            client.send_nowait({"number": number, "text": "x" * 10_000})
            sent.append(number)

    @server.add_handler()
    async def flood(client: Client, packet: Packet) -> None:
        with pytest.raises(trio.WouldBlock):
            fill(client)
        with pytest.raises(trio.WouldBlock):
            client.session.send_nowait({"text": "x" * 10_000})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        while not sent:
            await trio.lowlevel.checkpoint()
        received = [await peer.json() or {} for _ in sent]
    assert [each["number"] for each in received] == sent
    assert 10 < len(sent) < 10_000


async def test_an_answer_by_send_nowait_is_an_answer(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def answer(client: Client, packet: Packet) -> None:
        client.send_nowait({"n": packet["n"]})
        if packet["n"] == 2:
            raise ValueError("after the answer")

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.stream.send_all(json_packet(n=1) + json_packet(n=2) + json_packet(n=3))
        assert [await peer.json(), await peer.json()] == [{"n": 1}, {"n": 2}]
        await peer.closed()


async def test_send_nowait_sends_nothing_that_cannot_be_encoded(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def answer(client: Client, packet: Packet) -> dict[str, Any]:
        with pytest.raises(EncodeError):
            client.send_nowait({"n": object()})
        return {"ok": True}

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(n=1) == {"ok": True}


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_shared_packet_is_encoded_once_for_each_encoding(
    serve: Serve, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    for kind in (JsonCodec, ZiProtoCodec):

        def encode(self: Any, fields: Any, *, real: Any = kind.encode) -> bytes:
            if "news" in fields:
                encoded.append(self.name)
            data: bytes = real(self, fields)
            return data

        monkeypatch.setattr(kind, "encode", encode)
    server = counting()
    running = await serve(server)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await running.connect()) for _ in range(6)]
        for peer in peers[:3]:
            await peer.ask(a=1)
        for peer in peers[3:]:
            await peer.send(packet(ZIPROTO, bytes.fromhex("81a16101")))
            assert await peer.reply() is not None
        fields = {"news": ["one"]}
        shared = SharedPacket(fields)
        fields["news"].append("two")
        for session in server.sessions:
            if waiting:
                await session.send(shared)
            else:
                session.send_nowait(shared)
        for peer in peers[:3]:
            assert await peer.json() == {"news": ["one"]}
        for peer in peers[3:]:
            assert await peer.reply() == (ZIPROTO, bytes.fromhex("81a46e65777391a36f6e65"))
    assert sorted(encoded) == ["json", "ziproto"]
    assert repr(shared) == "<SharedPacket of 1 fields>"
