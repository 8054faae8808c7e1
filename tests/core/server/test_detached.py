from __future__ import annotations

import pytest

from asyncapy.core import Packet
from asyncapy.errors import ClientDisconnected
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
