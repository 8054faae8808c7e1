from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core.errors import InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError
from asyncapy_core.protocol.frames import Frame, FrameDecoder
from asyncapy_core.protocol.wire import ByteOrder, WireFormat

ENCODINGS = (0, 1)
JSON_PACKET = bytes.fromhex("000000101600") + b'{"foo": "bar"}'
ZIPROTO_PACKET = bytes.fromhex("0000000b160181a3") + b"foo\xa3bar"


def decoded(
    pieces: Iterable[bytes], wire: WireFormat | None = None, limit: int = 20
) -> tuple[list[Frame], tuple[type[ProtocolError], str] | None]:
    """Return all frames in these pieces, and the error at their end."""
    decoder = FrameDecoder(wire or WireFormat(), ENCODINGS)
    frames = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while some := decoder.frames(limit):
                assert len(some) <= limit
                frames += some
    except ProtocolError as error:
        return frames, (type(error), str(error))
    return frames, None


def next_frame(decoder: FrameDecoder) -> Frame | None:
    return next(iter(decoder.frames(1)), None)


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def header(length: int, wire: WireFormat | None = None) -> bytes:
    wire = wire or WireFormat()
    return length.to_bytes(wire.header_size, wire.byteorder)


wires = st.builds(
    WireFormat, st.integers(1, 8), st.sampled_from(["big", "little"]), st.sampled_from([5, 40, 200, 1024 * 1024])
)
payloads = st.binary(min_size=3, max_size=40)


@st.composite
def streams(draw: st.DrawFn) -> tuple[WireFormat, bytes]:
    """A wire format, and a stream of packets in it with arbitrary bytes at the end."""
    wire = draw(wires)
    packets = draw(st.lists(st.tuples(st.sampled_from([0, 1, 1, 0, 2]), payloads), max_size=6))
    tail = draw(
        st.binary(max_size=20) | st.sampled_from([header(4, wire), header(5, wire) + b"\x15", b"GET / HTTP/1.1"])
    )
    return wire, b"".join(wire.encode(*packet) for packet in packets) + tail


@pytest.mark.parametrize(("packet", "encoding"), [(JSON_PACKET, 0), (ZIPROTO_PACKET, 1)])
def test_the_packets_of_the_specification_are_made_and_read(packet: bytes, encoding: int) -> None:
    assert WireFormat().encode(encoding, packet[6:]) == packet
    assert decoded([packet]) == ([(encoding, packet[6:])], None)


@pytest.mark.parametrize("byteorder", ["big", "little"])
@pytest.mark.parametrize("header_size", range(1, 9))
def test_every_header_size_and_byteorder_is_read_as_it_is_written(header_size: int, byteorder: ByteOrder) -> None:
    wire = WireFormat(header_size, byteorder)
    packet = wire.encode(1, b"abcd")
    assert packet == (6).to_bytes(header_size, byteorder) + b"\x16\x01abcd"
    assert decoded(bytewise(packet * 2), wire) == ([(1, b"abcd")] * 2, None)


@pytest.mark.parametrize("header_size", [1, 3, 4])
def test_an_encoding_may_have_any_byte(header_size: int) -> None:
    wire = WireFormat(header_size)
    decoder = FrameDecoder(wire, (255,))
    decoder.feed(wire.encode(255, b"abcd"))
    assert next_frame(decoder) == (255, b"abcd")


@pytest.mark.parametrize("cut", range(len(JSON_PACKET) + 1))
def test_a_frame_cut_anywhere_is_the_same_frame(cut: int) -> None:
    assert decoded([JSON_PACKET[:cut], JSON_PACKET[cut:]]) == ([(0, JSON_PACKET[6:])], None)


def test_a_frame_is_there_with_its_last_byte_and_not_before() -> None:
    decoder = FrameDecoder(WireFormat(), ENCODINGS)
    for byte in bytewise(JSON_PACKET)[:-1]:
        decoder.feed(byte)
        assert next_frame(decoder) is None
    decoder.feed(JSON_PACKET[-1:])
    assert next_frame(decoder) == (0, JSON_PACKET[6:])
    assert next_frame(decoder) is None
    assert decoder.buffered == 0


@pytest.mark.parametrize("pieces", [lambda data: [data], bytewise])
def test_what_follows_a_frame_is_kept_for_the_next(pieces: Any) -> None:
    decoder = FrameDecoder(WireFormat(), ENCODINGS)
    for piece in pieces(JSON_PACKET + ZIPROTO_PACKET[:7]):
        decoder.feed(piece)
    assert next_frame(decoder) == (0, JSON_PACKET[6:])
    assert next_frame(decoder) is None
    assert decoder.buffered == 7
    decoder.feed(ZIPROTO_PACKET[7:] + b"\x00")
    assert next_frame(decoder) == (1, ZIPROTO_PACKET[6:])
    assert next_frame(decoder) is None
    assert decoder.buffered == 1


def test_frames_are_given_out_as_bytes_however_they_came() -> None:
    whole, _ = decoded([JSON_PACKET])
    cut, _ = decoded(bytewise(JSON_PACKET))
    assert {type(payload) for _, payload in whole + cut} == {bytes}


@given(streams(), st.data())
def test_a_stream_cut_at_random_gives_the_same_frames_and_the_same_error(
    stream: tuple[WireFormat, bytes], data: st.DataObject
) -> None:
    wire, content = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    whole = decoded([content], wire)
    assert decoded(pieces, wire) == whole
    assert decoded(bytewise(content), wire) == whole
    assert decoded([content], wire, limit=data.draw(st.integers(1, 5))) == whole


@given(st.lists(st.tuples(st.sampled_from(ENCODINGS), payloads), max_size=8), wires)
def test_what_is_encoded_is_decoded(packets: list[tuple[int, bytes]], wire: WireFormat) -> None:
    fitting = [(encoding, payload) for encoding, payload in packets if len(payload) + 2 <= wire.max_packet]
    content = b"".join(wire.encode(*packet) for packet in fitting)
    assert decoded([content], wire) == (fitting, None)


@given(st.lists(st.binary(max_size=30), max_size=12), st.sampled_from([5, 12]))
def test_no_more_is_held_than_one_packet_and_what_was_fed_last(pieces: list[bytes], max_packet: int) -> None:
    decoder = FrameDecoder(WireFormat(1, "big", max_packet), range(256))
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.buffered <= 1 + max_packet + len(piece)
        try:
            while decoder.frames(20):
                pass
        except ProtocolError:
            return
        assert decoder.buffered < 1 + max_packet


@pytest.mark.timeout(40)  # it takes 1 s; a decoder that copies the buffer for each piece takes minutes
def test_a_large_packet_in_small_pieces_takes_linear_time() -> None:
    wire = WireFormat(max_packet=4_000_000)
    packet = wire.encode(0, b"x" * 2_000_000)
    frames, error = decoded((packet[index : index + 4] for index in range(0, len(packet), 4)), wire)
    assert error is None
    assert [len(payload) for _, payload in frames] == [2_000_000]


@pytest.mark.timeout(40)  # it takes 1 s; a decoder that copies the rest for each packet takes minutes
def test_many_packets_in_one_piece_take_linear_time() -> None:
    frames, error = decoded([JSON_PACKET[:3], (JSON_PACKET * 800_000)[3:]])
    assert error is None
    assert len(frames) == 800_000


@pytest.mark.parametrize("length", range(5))
def test_a_length_below_the_minimum_is_malformed_before_anything_else_is_read(length: int) -> None:
    for rest in (b"", b"\x16", b"\xff\xff", b"\x16\x00{}"):
        assert decoded([header(length) + rest]) == (
            [],
            (MalformedPacket, f"Content-Length is {length}; a packet has at least 5"),
        )


def test_the_shortest_packet_is_read() -> None:
    assert decoded([WireFormat().encode(0, b"{ }")]) == ([(0, b"{ }")], None)


@pytest.mark.parametrize("length", [101, 0x47455420, 0xFFFFFFFF])
def test_a_length_above_max_packet_is_too_large_on_the_header_alone(length: int) -> None:
    frames, error = decoded([header(length)], WireFormat(max_packet=100))
    assert frames == []
    assert error == (PacketTooLarge, f"Content-Length is {length}; at most 100 are accepted")


def test_a_packet_of_exactly_max_packet_is_read() -> None:
    wire = WireFormat(max_packet=100)
    assert decoded([wire.encode(0, b"x" * 98)], wire) == ([(0, b"x" * 98)], None)
    assert decoded([wire.encode(0, b"x" * 99)], wire)[1] is not None


def test_nothing_is_allocated_for_a_length() -> None:
    decoder = FrameDecoder(WireFormat(8, "big", 2**40), ENCODINGS)
    tracemalloc.start()
    try:
        decoder.feed((2**40).to_bytes(8, "big") + b"\x16\x00")
        assert next_frame(decoder) is None
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [0, 15, 17, 21, 23, 255])
def test_another_version_is_an_invalid_header_as_soon_as_it_is_here(version: int) -> None:
    expected = (InvalidHeader, f"protocol version {version}; this is version 22")
    assert decoded([header(5) + bytes([version])]) == ([], expected)


@pytest.mark.parametrize("encoding", [2, 255])
def test_an_encoding_that_no_codec_claims_is_an_invalid_header_as_soon_as_it_is_here(encoding: int) -> None:
    expected = (InvalidHeader, f"no codec claims encoding {encoding}")
    assert decoded([header(5) + bytes([22, encoding])]) == ([], expected)


def test_frames_before_an_error_are_given_out() -> None:
    frames, error = decoded([JSON_PACKET + ZIPROTO_PACKET + header(1) + JSON_PACKET])
    assert frames == [(0, JSON_PACKET[6:]), (1, ZIPROTO_PACKET[6:])]
    assert error is not None
    assert error[0] is MalformedPacket


def test_an_error_is_final() -> None:
    decoder = FrameDecoder(WireFormat(), ENCODINGS)
    decoder.feed(header(0))
    with pytest.raises(MalformedPacket) as first:
        next_frame(decoder)
    decoder.feed(JSON_PACKET)
    with pytest.raises(MalformedPacket) as second:
        next_frame(decoder)
    assert str(first.value) == str(second.value)
