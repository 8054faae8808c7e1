from __future__ import annotations

from typing import Any

import pytest

from asyncapy_core.errors import EncodeError
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.wire import NUMBERED_VERSION, ByteOrder, WireFormat, numbered_header_writer


@pytest.mark.parametrize("payload", [b"", b"{", b"{}"])
def test_a_payload_below_the_minimum_is_not_sent(payload: bytes) -> None:
    with pytest.raises(
        EncodeError, match=rf"^a payload of {len(payload)} bytes is too short .* at least 3; send at least one field$"
    ):
        WireFormat().encode(0, payload)


def test_a_payload_that_does_not_fit_into_the_header_is_not_sent() -> None:
    wire = WireFormat(header_size=2)
    assert wire.encode(0, b"x" * 65_533)[:4] == b"\xff\xff\x16\x00"
    with pytest.raises(EncodeError, match=r"65534 bytes does not fit .* 2-byte Content-Length.*larger header_size"):
        wire.encode(0, b"x" * 65_534)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"byteorder": "middle"}, "byteorder is 'middle'; it must be 'big' or 'little'"),
        ({"header_size": 0}, "header_size is 0; it must be 1 to 8 bytes"),
        ({"header_size": 9}, "header_size is 9; it must be 1 to 8 bytes"),
        ({"max_packet": 4}, "max_packet is 4; no packet is shorter than 5 bytes"),
    ],
)
def test_an_impossible_format_is_a_value_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WireFormat(**arguments)


@pytest.mark.parametrize("byteorder", ["big", "little"])
@pytest.mark.parametrize("header_size", range(1, 9))
def test_a_numbered_header_has_all_fields_in_the_byte_order(header_size: int, byteorder: ByteOrder) -> None:
    wire = WireFormat(header_size, byteorder)
    expected = (9).to_bytes(header_size, byteorder) + b"\x17\x01\x02" + (258).to_bytes(4, byteorder)
    assert wire.numbered_header(Kind.PART, 258, 1, 2) == expected
    assert wire.encode_numbered(Kind.PART, 258, 1, b"{}") == expected + b"{}"
    assert numbered_header_writer(wire)(9, NUMBERED_VERSION, 1, Kind.PART, 258) == expected


def test_a_packet_without_a_payload_needs_no_encoding() -> None:
    assert WireFormat().encode_numbered(Kind.PING, 7) == bytes.fromhex("00000007 17 00 07 00000007")


@pytest.mark.parametrize(("header_size", "most"), [(1, 248), (2, 65_528), (3, 16_777_208)])
def test_a_payload_that_does_not_fit_into_a_numbered_header_is_not_sent(header_size: int, most: int) -> None:
    wire = WireFormat(header_size)
    assert wire.numbered_header(Kind.REPLY, 1, 0, most)[:header_size] == b"\xff" * header_size
    advice = rf"{most + 1} bytes does not fit .* {header_size}-byte Content-Length.*larger header_size"
    with pytest.raises(EncodeError, match=advice):
        wire.numbered_header(Kind.REPLY, 1, 0, most + 1)


@pytest.mark.parametrize(
    ("kind", "number", "size", "message"),
    [
        (Kind.REQUEST, 1, 0, r"^the payload of REQUEST is empty; it must be a map, such as \{\} in JSON$"),
        (Kind.CANCEL, 1, 1, "^CANCEL has no payload; got one of 1 bytes$"),
        (Kind.REQUEST, 2**32, 2, "^number is 4294967296; it must be 0 to 4294967295; then use another connection$"),
        (Kind.REPLY, -1, 2, "^number is -1; it must be 0 to 4294967295"),
    ],
)
def test_an_impossible_numbered_packet_is_not_sent(kind: Kind, number: int, size: int, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        WireFormat().numbered_header(kind, number, 0, size)


def test_the_largest_numbered_packet_has_the_largest_payload_of_version_22() -> None:
    wire = WireFormat(max_packet=100)
    packet, numbered = wire.encode(0, b"x" * 98), wire.encode_numbered(Kind.REQUEST, 1, 0, b"x" * 98)
    assert int.from_bytes(packet[:4], "big") == wire.max_packet
    assert int.from_bytes(numbered[:4], "big") == wire.max_numbered
