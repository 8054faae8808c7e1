"""Packing and unpacking of packets, with correct and with broken codecs."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_core import Packet
from asyncapy_core.errors import BrokenCodec, DecodeError, EncodeError, MalformedPacket, PluginError, UnknownCodec
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.protocol.encoding import CACHED_SIZES, Encoding, EncodingRegistry
from asyncapy_core.protocol.kinds import WITH_PAYLOAD, Kind
from asyncapy_core.protocol.packet import SharedPacket
from asyncapy_core.protocol.wire import ByteOrder, WireFormat


class Text:
    """A codec for one text.

    Args:
        decoded: the result of decode, or the exception that it raises; None for the text.
    """

    name = "text"
    wire_id = 9

    def __init__(self, decoded: Any = None) -> None:
        self.decoded = decoded

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        text: str = fields["text"]
        return text.encode()

    def decode(self, payload: bytes) -> Any:
        if isinstance(self.decoded, Exception):
            raise self.decoded
        return self.decoded or {"text": payload.decode()}


class Other(Text):
    name = "other"
    wire_id = 3


@given(
    size=st.one_of(st.integers(3, 253), st.integers(CACHED_SIZES - 2, CACHED_SIZES + 2), st.integers(65_500, 65_533)),
    header_size=st.integers(1, 8),
    byteorder=st.sampled_from(["big", "little"]),
)
def test_a_packet_is_its_headers_and_its_payload_whatever_its_size(
    size: int, header_size: int, byteorder: ByteOrder
) -> None:
    wire = WireFormat(header_size, byteorder)
    fields = {"text": "x" * size}
    if size + 2 >= 256**header_size:
        with pytest.raises(EncodeError, match=f"a payload of {size} bytes does not fit"):
            Encoding(Text(), wire).pack(fields)
    else:
        length = (size + 2).to_bytes(header_size, byteorder)
        assert Encoding(Text(), wire).pack(fields) == length + b"\x16\x09" + b"x" * size


@pytest.mark.parametrize("size", range(3))
def test_what_is_too_short_for_a_packet_is_not_sent(size: int) -> None:
    with pytest.raises(EncodeError, match=f"a payload of {size} bytes is too short") as caught:
        Encoding(Text(), WireFormat()).pack({"text": "x" * size})
    assert caught.value.__context__ is None, "no other exception came first"


def test_a_payload_becomes_a_packet_of_its_sender_and_encoding() -> None:
    sender: Any = object()
    packet = Encoding(Text(), WireFormat()).unpack(b"abc", sender)
    assert isinstance(packet, Packet)
    assert (packet.fields, packet.encoding, packet.sender) == ({"text": "abc"}, "text", sender)


def test_a_payload_that_the_codec_refuses_is_the_fault_of_the_peer() -> None:
    with pytest.raises(MalformedPacket, match="no text") as caught:
        Encoding(Text(DecodeError("no text")), WireFormat()).unpack(b"abc")
    assert not isinstance(caught.value, BrokenCodec)


@pytest.mark.parametrize(
    ("decoded", "message"),
    [([1, 2], "it returned a list, not a map"), (KeyError("slip"), r"it raised KeyError \('slip'\)")],
)
def test_a_codec_that_fails_otherwise_is_broken(decoded: Any, message: str) -> None:
    with pytest.raises(BrokenCodec, match=f"the codec 'text' is broken: {message}"):
        Encoding(Text(decoded), WireFormat()).unpack(b"abc")


@given(
    size=st.one_of(st.integers(1, 250), st.integers(65_500, 65_530)),
    header_size=st.integers(1, 8),
    byteorder=st.sampled_from(["big", "little"]),
    kind=st.sampled_from(sorted(WITH_PAYLOAD)),
    number=st.integers(0, 2**32 - 1),
)
def test_a_numbered_packet_is_its_headers_and_its_payload_whatever_its_size(
    size: int, header_size: int, byteorder: ByteOrder, kind: Kind, number: int
) -> None:
    encoding = Encoding(Text(), WireFormat(header_size, byteorder))
    fields = {"text": "x" * size}
    if size + 7 >= 256**header_size:
        with pytest.raises(EncodeError, match=f"a payload of {size} bytes does not fit"):
            encoding.pack_numbered(kind, number, fields)
    else:
        length = (size + 7).to_bytes(header_size, byteorder)
        header = length + bytes((0x17, 9, kind)) + number.to_bytes(4, byteorder)
        assert encoding.pack_numbered(kind, number, fields) == header + b"x" * size


@pytest.mark.parametrize("header_size", [3, 4])
@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_of_more_than_four_bytes_is_not_sent(number: int, header_size: int) -> None:
    with pytest.raises(EncodeError, match=f"number is {number}; it must be 0 to 4294967295") as caught:
        Encoding(Text(), WireFormat(header_size)).pack_numbered(Kind.REPLY, number, {"text": "x"})
    assert caught.value.__context__ is None, "no other exception came first"


def test_a_codec_that_encodes_fields_to_nothing_makes_no_numbered_packet() -> None:
    with pytest.raises(EncodeError, match="the payload of REPLY is empty"):
        Encoding(Text(), WireFormat()).pack_numbered(Kind.REPLY, 1, {"text": ""})


@pytest.mark.parametrize(("codec", "payload"), [(JsonCodec(), b"{}"), (ZiProtoCodec(), b"\x80")])
def test_an_empty_map_is_a_numbered_packet(codec: Codec, payload: bytes) -> None:
    encoding = Encoding(codec, WireFormat())
    packet = encoding.pack_numbered(Kind.REQUEST, 1, {})
    assert packet == WireFormat().encode_numbered(Kind.REQUEST, 1, codec.wire_id, payload)
    assert encoding.unpack_numbered(payload).fields == {}


def test_an_event_is_encoded_once_for_all_sessions() -> None:
    encoding, shared = Encoding(Text(), WireFormat()), SharedPacket({"text": "abc"})
    event = shared.packed(encoding.pack_event)
    assert event == bytes.fromhex("0000000a 17 09 05 00000000") + b"abc"
    assert shared.packed(encoding.pack_event) is event
    assert shared.packed(encoding.pack) != event


def test_a_numbered_payload_becomes_a_packet_of_its_sender_and_encoding() -> None:
    sender: Any = object()
    packet = Encoding(Text(), WireFormat()).unpack_numbered(b"a", sender)
    assert (packet.fields, packet.encoding, packet.sender) == ({"text": "a"}, "text", sender)


def test_a_numbered_packet_without_a_payload_is_malformed_even_if_the_codec_accepts_it() -> None:
    encoding = Encoding(Text(), WireFormat())
    assert encoding.unpack(b"").fields == {"text": ""}
    with pytest.raises(MalformedPacket, match="the packet has no payload"):
        encoding.unpack_numbered(b"")


def test_encodings_are_found_by_wire_id_and_by_name() -> None:
    encodings = EncodingRegistry([Text(), Other()], WireFormat())
    assert encodings.by_name("other") is encodings.by_id[3]
    assert encodings.by_name("text") is encodings.by_id[9]


def test_names_and_the_default_go_by_the_lowest_wire_id() -> None:
    encodings = EncodingRegistry([Text(), Other()], WireFormat())
    assert list(encodings) == ["other", "text"]
    assert encodings.default.name == "other"


def test_an_unknown_name_lists_those_there_are_and_says_what_to_install() -> None:
    encodings = EncodingRegistry([Text(), Other()], WireFormat())
    with pytest.raises(UnknownCodec, match=r"called 'yaml' \(installed: other, text\); pip install asyncapy-codecs"):
        encodings.by_name("yaml")


def test_without_any_codec_there_is_no_default() -> None:
    encodings = EncodingRegistry([], WireFormat())
    with pytest.raises(UnknownCodec, match="no codec is installed; pip install asyncapy-codecs"):
        _ = encodings.default
    with pytest.raises(UnknownCodec, match="installed: none"):
        encodings.by_name("json")


@pytest.mark.parametrize("attribute", ["name", "wire_id"])
def test_two_codecs_share_neither_name_nor_id(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Other, attribute, getattr(Text, attribute))
    with pytest.raises(PluginError, match="two codecs"):
        EncodingRegistry([Text(), Other()], WireFormat())


@pytest.mark.parametrize(
    "result", [TypeError("no text"), struct.error("n"), GeneratorExit(), "text", None, 7], ids=repr
)
def test_a_codec_that_fails_to_encode_raises_an_encode_error_whatever_it_does(result: Any) -> None:
    class Fails(Text):
        def encode(self, fields: Mapping[str, Any]) -> bytes:
            if isinstance(result, BaseException):
                raise result
            return result  # type: ignore[no-any-return]  # the fault

    encoding = Encoding(Fails(), WireFormat())
    packs: list[Callable[[], bytes]] = [
        lambda: encoding.pack({"text": "secret"}),
        lambda: encoding.pack_numbered(Kind.REPLY, 1, {"text": "secret"}),
        lambda: encoding.pack_event({"text": "secret"}),
    ]
    for pack in packs:
        with pytest.raises(EncodeError) as caught:
            pack()
        assert "secret" not in str(caught.value)


def test_a_ctrl_c_while_a_codec_encodes_passes() -> None:
    class Interrupted(Text):
        def encode(self, fields: Mapping[str, Any]) -> bytes:
            signal.raise_signal(signal.SIGINT)
            return b"text"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Encoding(Interrupted(), WireFormat()).pack_numbered(Kind.REPLY, 1, {})
    finally:
        signal.signal(signal.SIGINT, before)
