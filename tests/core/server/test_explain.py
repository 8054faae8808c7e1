"""Packets as clients send them, decoded for an explanation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from numbered_peer import KINDS, numbered
from peer import framed, json_packet, zi_packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.errors import InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.server.explain import SentPacket, decode_packet, explain_packet


def decoded(data: bytes, **settings: Any) -> SentPacket | None:
    return decode_packet(Server(**settings), data)


def test_a_packet_of_version_22_has_its_fields_and_encoding() -> None:
    assert decoded(json_packet(a=1)) == SentPacket(22, Kind.REQUEST, 0, "json", {"a": 1})
    assert decoded(zi_packet(a="b")) == SentPacket(22, Kind.REQUEST, 0, "ziproto", {"a": "b"})
    little = framed(0, b'{"a":1}', header_size=2, byteorder="little")
    assert decoded(little, header_size=2, byteorder="little") == SentPacket(22, Kind.REQUEST, 0, "json", {"a": 1})


def test_a_request_of_version_23_has_its_number_as_well() -> None:
    assert decoded(numbered("REQUEST", 7, {"a": 1})) == SentPacket(23, Kind.REQUEST, 7, "json", {"a": 1})
    empty = numbered("REQUEST", 2**32 - 1, encoding=1, payload=b"\x80")
    assert decoded(empty) == SentPacket(23, Kind.REQUEST, 2**32 - 1, "ziproto", {})


@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.PING, Kind.PONG])
def test_other_kinds_have_no_fields(kind: Kind) -> None:
    assert decoded(numbered(kind.name, 7)) == SentPacket(23, kind, 7)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", " {", json.dumps({"a": "\x16" * 9}), "\n" * 9, "abc\x16", "1234\x15"]
)
@pytest.mark.parametrize("header_size", [1, 4, 8])
def test_text_is_no_packet(text: str, header_size: int) -> None:
    assert decoded(text.encode(), header_size=header_size) is None


@pytest.mark.parametrize(
    ("data", "error", "number"),
    [
        (json_packet()[:4] + b"\x16\x00{}", MalformedPacket, 0),  # the length is below the minimum
        (b'\x00\x00\x00\x09\x16\x00{"a": }', MalformedPacket, 0),
        (b'\x00\x00\x00\x09\x16\x09{"a":1}', InvalidHeader, 0),
        (b"\xff\xff\xff\xff\x16", PacketTooLarge, 0),
        (numbered("REQUEST", 7, payload=b"[]"), MalformedPacket, 7),
        (numbered("REQUEST", 7), MalformedPacket, 7),
        (numbered("REQUEST", 7, encoding=9), MalformedPacket, 7),
        (numbered("REQUEST", 7, {}, encoding=9), InvalidHeader, 7),
        (numbered("REQUEST", 0, {}), InvalidHeader, 0),
        (numbered("CANCEL", 7, {}), MalformedPacket, 0),
        *((numbered(kind, 7, {}), InvalidHeader, 0) for kind in KINDS if Kind[kind] in range(1, 6)),
    ],
)
def test_an_invalid_packet_is_the_error_of_the_server(data: bytes, error: type[ProtocolError], number: int) -> None:
    with pytest.raises(error) as caught:
        decoded(data)
    assert caught.value.number == number


@pytest.mark.parametrize("whole", [json_packet(a=1), numbered("REQUEST", 1, {"a": 1}), numbered("PING", 1)])
def test_one_whole_packet_is_wanted(whole: bytes) -> None:
    for data in (whole[:5], whole[:-1], whole + b"\0", whole * 2, whole * 3):
        with pytest.raises(ValueError, match=f"these {len(data)} bytes are not one packet"):
            decoded(data)
    skipped = bytearray(numbered("PING", 1))
    skipped[6] = 200
    with pytest.raises(ValueError, match="servers skip a packet of this kind"):
        decoded(bytes(skipped))


async def test_filters_see_the_encoding_of_the_packet(autojump_clock: MockClock) -> None:
    server = Server()
    seen: list[str] = []

    @server.guard
    def note(client: Any, packet: Any) -> bool:
        seen.extend((client.encoding, packet.encoding))
        return True

    await explain_packet(server, {"a": 1}, encoding="ziproto")
    await explain_packet(server, {"a": 1})
    assert seen == ["ziproto"] * 2 + ["json"] * 2
