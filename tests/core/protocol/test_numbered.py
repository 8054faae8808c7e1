"""The decoder of version 23, compared with the reference decoder; test_vectors.py has the rules one by one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_reference import Settings, decode

from asyncapy_core.errors import InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError
from asyncapy_core.protocol.kinds import MAX_NUMBER, RECEIVED, WITH_PAYLOAD, WITHOUT_PAYLOAD, Kind, Role
from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
from asyncapy_core.protocol.wire import WireFormat

ENCODINGS = (0, 1)
Result = tuple[list[NumberedFrame], tuple[str, int] | None, int]


def decoder_of(settings: Settings) -> NumberedDecoder:
    wire = WireFormat(settings.header_size, settings.byteorder, settings.max_packet)
    return NumberedDecoder(wire, settings.encodings, Role.SERVER if settings.server else Role.CLIENT)


def decoded(pieces: Iterable[bytes], settings: Settings, limit: int = 20) -> Result:
    """Return all frames in these pieces, the code and number of the error at their end, and how many bytes are left."""
    decoder = decoder_of(settings)
    frames: list[NumberedFrame] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while some := decoder.frames(limit):
                assert len(some) <= limit
                frames += some
            assert decoder.buffered < settings.header_size + settings.max_packet + 5
            assert decoder.missing >= 1
    except ProtocolError as error:
        return frames, (error.code.value, error.number), decoder.buffered
    return frames, None, decoder.buffered


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[index : index + 1] for index in range(len(data)))


def packet(
    kind: int, number: int, payload: bytes = b"", *, encoding: int = 0, version: int = 23, length: int | None = None
) -> bytes:
    """A packet of any fields in the default wire format."""
    size = 7 + len(payload) if length is None else length
    return size.to_bytes(4, "big") + bytes((version, encoding, kind)) + number.to_bytes(4, "big") + payload


settings_of_receivers = st.builds(
    Settings,
    header_size=st.integers(1, 8),
    byteorder=st.sampled_from(["big", "little"]),
    max_packet=st.sampled_from([5, 12, 40, 1024 * 1024]),
    server=st.booleans(),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Settings, bytes]:
    """A receiver, and a stream for it of packets that are mostly valid, with arbitrary bytes at the end."""
    settings = draw(settings_of_receivers)
    usual_kinds = sorted(RECEIVED[Role.SERVER if settings.server else Role.CLIENT])
    stream = b""
    highest = 0
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(
            st.sampled_from(usual_kinds) | st.sampled_from(usual_kinds) | st.sampled_from([*range(12), 127, 128, 255])
        )
        number = draw(
            st.just(0 if kind == 5 else min(highest + 1, MAX_NUMBER)) | st.integers(0, 4) | st.just(MAX_NUMBER)
        )
        highest = max(highest, number) if kind == 0 else highest
        payload = draw(st.binary(max_size=12)) if kind not in WITHOUT_PAYLOAD or draw(st.integers(0, 9)) == 9 else b""
        encoding = draw(st.sampled_from([0, 1, 0, 1, 7]))
        version = draw(st.sampled_from([23] * 9 + [22]))
        length = len(payload) + 7 + draw(st.sampled_from([0] * 9 + [1, -1]))
        stream += max(length, 0).to_bytes(settings.header_size, settings.byteorder)
        stream += bytes((version, encoding, kind)) + number.to_bytes(4, settings.byteorder) + payload
    return settings, stream + draw(st.binary(max_size=12))


@given(streams(), st.data())
def test_a_stream_cut_anyhow_gives_the_result_of_the_reference(
    stream: tuple[Settings, bytes], data: st.DataObject
) -> None:
    settings, content = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    outcome = decode(content, settings)
    expected = (outcome.frames, outcome.error, outcome.rest)
    assert decoded([content], settings) == expected
    assert decoded(pieces, settings) == expected
    assert decoded(bytewise(content), settings) == expected
    assert decoded([content], settings, limit=data.draw(st.integers(1, 5))) == expected


@given(st.binary(max_size=60), settings_of_receivers)
def test_any_bytes_give_the_result_of_the_reference(content: bytes, settings: Settings) -> None:
    outcome = decode(content, settings)
    expected = (outcome.frames, outcome.error, outcome.rest)
    assert decoded([content], settings) == decoded(bytewise(content), settings) == expected


@st.composite
def frames_for(draw: st.DrawFn, role: Role) -> list[NumberedFrame]:
    """Valid frames that a side may receive."""
    frames: list[NumberedFrame] = []
    highest = 0
    for kind in draw(st.lists(st.sampled_from(sorted(RECEIVED[role])), max_size=8)):
        number = draw(st.integers(0, MAX_NUMBER))
        if kind is Kind.REQUEST:
            number = highest = draw(st.integers(highest + 1, highest + 1000))
        elif kind is Kind.EVENT:
            number = 0
        payload = draw(st.binary(min_size=1, max_size=40)) if kind in WITH_PAYLOAD else b""
        frames.append((kind, number, draw(st.sampled_from(ENCODINGS)), payload))
    return frames


@given(
    st.sampled_from(Role).flatmap(lambda role: st.tuples(st.just(role), frames_for(role))),
    st.integers(1, 8),
    st.sampled_from(["big", "little"]),
    st.data(),
)
def test_frames_that_are_encoded_and_cut_anyhow_are_decoded(
    sent: tuple[Role, list[NumberedFrame]], header_size: int, byteorder: str, data: st.DataObject
) -> None:
    role, frames = sent
    wire = WireFormat(header_size, "big" if byteorder == "big" else "little")
    content = b"".join(
        wire.encode_numbered(kind, number, encoding, payload) for kind, number, encoding, payload in frames
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    decoder = NumberedDecoder(wire, ENCODINGS, role)
    found: list[NumberedFrame] = []
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        decoder.feed(content[start:end])
        while some := decoder.frames(3):
            found += some
    assert found == frames
    assert decoder.buffered == 0


@given(st.lists(st.binary(max_size=30), max_size=12), st.sampled_from([5, 12]), st.sampled_from(Role))
def test_no_more_is_held_than_one_packet_and_the_last_piece(pieces: list[bytes], max_packet: int, role: Role) -> None:
    decoder = NumberedDecoder(WireFormat(1, "big", max_packet), range(256), role)
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.buffered <= 1 + max_packet + 5 + len(piece)
        try:
            while decoder.frames(20):
                pass
        except ProtocolError:
            assert decoder.buffered == 0
            return
        assert decoder.buffered < 1 + max_packet + 5


WRONG = (
    packet(0, 5, b"{}", encoding=9),
    packet(0, 5, b"{" + b" " * 40 + b"}", encoding=9),
    packet(0, 0, b"{}"),
    packet(10, 5, b"{}"),
    packet(127, 0),
    packet(Kind.REPLY, 5, b"{}"),
    packet(Kind.EVENT, 0, b"{}", encoding=9),
    packet(Kind.CANCEL, 1, b"{}"),
    packet(Kind.PING, 1, b"{}"),
)
"""Packets whose length and version are right, and which a server does not accept."""


@given(
    st.sampled_from(WRONG),
    st.lists(st.one_of(st.sampled_from(WRONG), st.integers(1, 9)), max_size=8),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_after_a_wrong_packet_with_the_right_length_further_packets_are_decoded(
    first: bytes, then: list[bytes | int], cuts: list[int]
) -> None:
    content = first + b"".join(each if isinstance(each, bytes) else packet(Kind.CANCEL, each) for each in then)
    decoder, resumed = decoder_of(Settings()), False
    found: list[NumberedFrame] = []
    cuts = sorted(min(cut, len(content)) for cut in cuts)
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        decoder.feed(content[start:end])
        try:
            found += decoder.frames(100)
        except ProtocolError:
            assert not resumed
            resumed = decoder.resume()
            found += decoder.frames(100)
    assert resumed
    assert found == [(Kind.CANCEL, each, 0, b"") for each in then if isinstance(each, int)]
    assert decoder.buffered == 0


@pytest.mark.parametrize(
    "wrong",
    [
        packet(0, 5, b"{}", version=22),
        packet(0, 5, b"{}", length=6),
        packet(0, 5, b"{}", length=2_000_000),
        packet(Kind.CANCEL, 5, length=2_000_000),
    ],
)
@pytest.mark.parametrize("before", [b"", WRONG[0]])
def test_nothing_is_decoded_after_a_wrong_length_or_version(wrong: bytes, before: bytes) -> None:
    decoder = decoder_of(Settings())
    decoder.feed(before + wrong + packet(Kind.CANCEL, 1))
    if before:
        with pytest.raises(InvalidHeader):
            decoder.frames(9)
        assert decoder.resume()
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.frames(9)
        assert not decoder.resume()


def test_an_error_is_final_and_keeps_its_number() -> None:
    decoder = decoder_of(Settings())
    decoder.feed(packet(0, 5, b"{}", encoding=9))
    with pytest.raises(InvalidHeader) as first:
        decoder.frames(1)
    decoder.feed(packet(0, 6, b"{}"))
    with pytest.raises(InvalidHeader) as second:
        decoder.frames(1)
    assert first.value is not second.value
    assert (str(first.value), first.value.number) == (str(second.value), second.value.number)
    assert second.value.number == 5


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (packet(0, 1, length=6), MalformedPacket, "Content-Length is 6; in version 23 it is at least 7"),
        (packet(0, 1, length=306), PacketTooLarge, "Content-Length is 306; at most 305 are accepted in version 23"),
        (packet(0, 1, version=22), InvalidHeader, "protocol version 22; this session has version 23"),
        (packet(0, 1, b"{}", encoding=9), InvalidHeader, "no codec claims encoding 9"),
        (packet(77, 1), InvalidHeader, "kind 77, which a server does not receive"),
        (packet(1, 1), InvalidHeader, "kind 1, which a server does not receive"),
        (packet(6, 1, b"{}"), MalformedPacket, "CANCEL has no payload; this one has 2 bytes"),
        (packet(0, 0, b"{}"), InvalidHeader, "the number of REQUEST is 0; it must be 1 or more"),
        (packet(0, 7, b"{}") * 2, InvalidHeader, "the number of REQUEST is 7; it must be 8 or more"),
    ],
)
def test_an_error_names_the_fault(data: bytes, error: type[ProtocolError], message: str) -> None:
    decoder = decoder_of(Settings())
    decoder.feed(data)
    with pytest.raises(error) as caught:
        _ = [decoder.frames(1) for _ in range(2)]
    assert str(caught.value) == message


def test_an_error_for_a_client_names_the_fault() -> None:
    decoder = decoder_of(Settings(server=False))
    decoder.feed(packet(5, 3, b"{}"))
    with pytest.raises(InvalidHeader, match=r"^the number of EVENT is 3; it must be 0$"):
        decoder.frames(1)


def test_kinds_and_payloads_have_their_types_however_they_came() -> None:
    for pieces in ([packet(0, 1, b"{}")], bytewise(packet(0, 1, b"{}"))):
        ((kind, _, _, payload),), _, _ = decoded(pieces, Settings())
        assert kind is Kind.REQUEST
        assert type(payload) is bytes


def test_nothing_is_allocated_for_a_length() -> None:
    decoder = decoder_of(Settings(header_size=8, max_packet=2**40))
    tracemalloc.start()
    try:
        decoder.feed((2**40).to_bytes(8, "big") + b"\x17\0\0\0\0\0\1")
        assert decoder.frames(1) == []
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(40)  # it takes 2 s; a decoder that copies the buffer for each piece or packet takes minutes
def test_the_cost_is_linear() -> None:
    large = packet(0, 1, b"x" * 2_000_000)
    pieces = (large[index : index + 4] for index in range(0, len(large), 4))
    frames, error, _ = decoded(pieces, Settings(max_packet=4_000_000))
    assert (len(frames), error) == (1, None)
    many = packet(7, 1) * 400_000 + packet(200, 1, b"{}") * 400_000
    frames, error, _ = decoded([many[:3], many[3:]], Settings(max_packet=2**31))
    assert (len(frames), error) == (400_000, None)
