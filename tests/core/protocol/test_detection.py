"""The version of a session by its first header; test_vectors.py has the rules one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_reference import Settings, decode, first_version

from asyncapy_core.errors import InvalidHeader, MalformedPacket, ProtocolError
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.wire import WireFormat

ENCODINGS = (0, 1)
PACKET = WireFormat().encode(0, b'{"a": 1}')
NUMBERED = WireFormat().encode_numbered(Kind.REQUEST, 1, 0, b'{"a": 1}')


def all_frames(decoder: FrameDecoder | NumberedDecoder) -> tuple[list[Any], tuple[str, int] | None]:
    """Return the frames in the bytes that were fed, and the code and number of the error at their end."""
    frames: list[Any] = []
    try:
        while some := decoder.frames(2):
            frames += some
    except ProtocolError as error:
        return frames, (error.code.value, error.number)
    return frames, None


def test_version_22_is_decoded_as_ever() -> None:
    decoder = DetectingDecoder(WireFormat(), ENCODINGS)
    assert decoder.version is None
    decoder.feed(PACKET * 3)
    assert decoder.frames(2) == [(0, b'{"a": 1}')] * 2
    assert decoder.version == 22
    assert decoder.frames(2) == [(0, b'{"a": 1}')]
    assert decoder.frames(2) == []


def test_version_23_is_left_to_the_decoder_that_goes_on() -> None:
    decoder = DetectingDecoder(WireFormat(), ENCODINGS)
    decoder.feed(NUMBERED[:5])
    assert decoder.frames(9) == []
    assert decoder.version == 23
    assert decoder.frames(9) == []
    decoder.feed(NUMBERED[5:])
    numbered = decoder.numbered()
    assert decoder.buffered == 0
    assert numbered.frames(9) == [(Kind.REQUEST, 1, 0, b'{"a": 1}')]
    numbered.feed(NUMBERED)
    with pytest.raises(InvalidHeader, match="it must be 2 or more"):
        numbered.frames(9)


@pytest.mark.parametrize("data", [b"", NUMBERED[:4], PACKET])
def test_there_is_no_other_decoder_before_version_23_is_known(data: bytes) -> None:
    decoder = DetectingDecoder(WireFormat(), ENCODINGS)
    decoder.feed(data)
    decoder.frames(1)
    with pytest.raises(ValueError, match=rf"^the version of this session is {decoder.version}, not 23$"):
        decoder.numbered()


def test_a_later_packet_of_version_23_is_an_error() -> None:
    decoder = DetectingDecoder(WireFormat(), ENCODINGS)
    decoder.feed(PACKET + NUMBERED)
    assert decoder.frames(9) == [(0, b'{"a": 1}')]
    with pytest.raises(InvalidHeader, match="protocol version 23; this is version 22"):
        decoder.frames(9)
    assert decoder.version == 22


def test_a_first_packet_of_version_23_that_is_too_short_is_malformed() -> None:
    decoder = DetectingDecoder(WireFormat(), ENCODINGS)
    decoder.feed(bytes.fromhex("00000006 17"))
    with pytest.raises(MalformedPacket, match=r"^Content-Length is 6; in version 23 it is at least 7$"):
        decoder.frames(9)
    assert decoder.version is None


@given(
    st.builds(
        Settings,
        header_size=st.integers(1, 4),
        byteorder=st.sampled_from(["big", "little"]),
        max_packet=st.sampled_from([5, 6, 12, 300]),
    ),
    st.integers(0, 20),
    st.sampled_from([22, 23, 23, 24]),
    st.binary(max_size=40),
)
def test_any_first_bytes_give_the_version_of_the_reference(
    settings: Settings, length: int, version: int, rest: bytes
) -> None:
    stream = length.to_bytes(settings.header_size, settings.byteorder) + bytes((version,)) + rest
    wire = WireFormat(settings.header_size, settings.byteorder, settings.max_packet)
    for end in range(len(stream) + 1):
        decoder, plain = DetectingDecoder(wire, ENCODINGS), FrameDecoder(wire, ENCODINGS)
        decoder.feed(stream[:end])
        plain.feed(stream[:end])
        result, expected = all_frames(decoder), first_version(stream[:end], settings)
        if expected in (22, 23):
            assert decoder.version == expected
        else:
            assert decoder.version is None
            assert result == ([], expected and (expected, 0))
        if expected == 22:
            assert result == all_frames(plain)
        if expected == 23:
            assert result == ([], None)
            assert decoder.buffered == end
            outcome = decode(stream[:end], settings)
            assert all_frames(decoder.numbered()) == (outcome.frames, outcome.error)
