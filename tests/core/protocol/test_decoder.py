"""The buffer that the decoders of both versions share."""

from __future__ import annotations

import pytest

from asyncapy_core.errors import PacketTooLarge
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.kinds import Kind, Role
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.wire import WireFormat

WIRE = WireFormat(max_packet=100)
PAYLOAD = b'{"a": "a text"}'
VERSIONS = pytest.mark.parametrize(
    ("version", "packet"),
    [
        (22, WIRE.encode(0, PAYLOAD)),
        (23, WIRE.encode_numbered(Kind.REPLY, 1, 0, PAYLOAD)),
    ],
)


def decoder_of(version: int) -> FrameDecoder | NumberedDecoder:
    return FrameDecoder(WIRE, (0,)) if version == 22 else NumberedDecoder(WIRE, (0,), Role.CLIENT)


@VERSIONS
def test_missing_counts_the_bytes_that_the_current_packet_lacks(version: int, packet: bytes) -> None:
    decoder = decoder_of(version)
    assert decoder.missing == 4
    decoder.feed(packet[:1])
    assert decoder.missing == 3
    decoder.feed(packet[1:4])
    assert decoder.missing == len(packet) - 4
    decoder.feed(packet[4:-1])
    assert decoder.missing == 1
    decoder.feed(packet[-1:] + packet[:5])
    assert decoder.missing == 1
    assert len(decoder.frames(1)) == 1
    assert decoder.missing == len(packet) - 5


@VERSIONS
def test_buffered_counts_the_bytes_that_are_not_decoded(version: int, packet: bytes) -> None:
    decoder = decoder_of(version)
    for part in (packet[:3], packet[3:] + packet, packet[:2]):
        decoder.feed(part)
    assert decoder.buffered == 2 * len(packet) + 2
    assert len(decoder.frames(1)) == 1
    assert decoder.buffered == len(packet) + 2
    assert len(decoder.frames(9)) == 1
    assert decoder.buffered == 2
    decoder.feed(packet[2:])
    assert len(decoder.frames(9)) == 1
    assert decoder.buffered == 0


@VERSIONS
def test_cleared_bytes_are_not_decoded(version: int, packet: bytes) -> None:
    decoder = decoder_of(version)
    decoder.feed(packet + packet[:-1])
    assert len(decoder.frames(9)) == 1
    decoder.clear()
    assert decoder.buffered == 0
    decoder.feed(packet)
    assert len(decoder.frames(9)) == 1


@VERSIONS
def test_no_byte_after_an_error_is_held(version: int, packet: bytes) -> None:
    decoder = decoder_of(version)
    decoder.feed((106).to_bytes(4, "big") + packet[4:])
    for _ in range(10):
        with pytest.raises(PacketTooLarge):
            decoder.frames(1)
        decoder.feed(bytes(1000))
        assert decoder.buffered == 0
