from __future__ import annotations

from typing import Literal

import pytest

from asyncapy.core import Packet, SharedPacket
from asyncapy.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.testing import Detached


async def welcome(client: object, packet: Packet) -> None:
    await client.send({"hello": packet["name"], "from": client.address})  # type: ignore[attr-defined]  # a handler as users write it
    await client.close()  # type: ignore[attr-defined]  # as above


async def test_a_handler_is_called_with_it_and_what_it_sends_is_kept() -> None:
    peer = Detached("192.0.2.1")
    await welcome(peer.client, peer.packet({"name": "alice"}))
    assert peer.sent == [{"hello": "alice", "from": "192.0.2.1"}]
    assert peer.sent[0].encoding == "json"
    assert peer.closed


async def test_packets_are_as_the_server_makes_them() -> None:
    peer = Detached(encoding="ziproto", tls_peer={"commonName": "alice"})
    packet = peer.packet('{"a": 1}')
    assert (packet.sender, packet.encoding, packet["a"]) == (peer.client, "ziproto", 1)
    assert peer.client.tls_peer == {"commonName": "alice"}
    assert peer.client.get_sessions() == [peer.client.session]
    await peer.client.send({"b": 2})
    assert peer.sent[0].encoding == "ziproto"


async def test_nothing_can_be_sent_to_one_that_was_closed() -> None:
    peer = Detached()
    await peer.client.send({"last": 1}, close=True)
    with pytest.raises(ClientDisconnected, match="closed before"):
        await peer.client.send({"more": 1})
    assert peer.sent == [{"last": 1}]
    assert peer.client.get_sessions() == []


async def test_in_version_23_events_are_no_answers() -> None:
    peer = Detached("192.0.2.1", encoding="ziproto", tls_peer={"commonName": "alice"}, version=23)
    client, session = peer.client, peer.client.session
    await session.send({"event": 1})
    await client.send({"answer": 1})
    session.send_nowait(SharedPacket({"event": 2}))
    client.send_nowait({"answer": 2})
    assert peer.sent == [{"answer": 1}, {"answer": 2}]
    assert peer.events == [{"event": 1}, {"event": 2}]
    assert client.get_sessions() == [session]
    assert (session.client.address, session.client.tls_peer) == ("192.0.2.1", {"commonName": "alice"})
    assert {packet.encoding for packet in peer.sent + peer.events} == {"ziproto"}
    client.state.user = "alice"
    assert session.client.state.user == "alice"


async def test_in_version_23_nothing_follows_the_last_answer() -> None:
    peer = Detached(version=23)
    await peer.client.send({"n": 1}, last=True)
    for last in (False, True):
        with pytest.raises(AlreadyAnswered, match="no other can follow"):
            await peer.client.send({"n": 2}, last=last)
    await peer.client.session.send({"event": 1})
    assert peer.sent == [{"n": 1}]
    assert peer.events == [{"event": 1}]
    older = Detached()
    await older.client.send({"n": 1}, last=True)
    await older.client.send({"n": 2})
    await older.client.session.send({"event": 1})
    assert older.sent == [{"n": 1}, {"n": 2}, {"event": 1}]
    assert older.events == []


@pytest.mark.parametrize("version", [22, 23])
@pytest.mark.parametrize("by_session", [False, True])
async def test_a_close_ends_the_client_and_its_session(version: Literal[22, 23], by_session: bool) -> None:
    peer = Detached(version=version)
    assert not peer.closed
    await (peer.client.session.close() if by_session else peer.client.close())
    assert peer.closed
    for target in (peer.client, peer.client.session):
        with pytest.raises(ClientDisconnected):
            await target.send({"n": 1})
    assert peer.client.get_sessions() == peer.client.session.client.get_sessions() == []
