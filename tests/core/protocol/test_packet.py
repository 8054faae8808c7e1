from __future__ import annotations

from collections.abc import MutableMapping
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_core import Client, Packet
from asyncapy_core.errors import StopPropagation

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "fields",
    [{"a": 1}, '{"a": 1}', b'{"a": 1}', bytearray(b'{"a": 1}'), MappingProxyType({"a": 1}), Packet({"a": 1})],
    ids=lambda fields: type(fields).__name__,
)
def test_a_packet_is_made_of_a_mapping_text_or_bytes(fields: Any) -> None:
    packet = Packet(fields, "json")
    assert packet.fields == {"a": 1}
    assert type(packet.fields) is dict


def test_a_packet_is_json_from_nobody_unless_said_otherwise() -> None:
    assert Packet({}).encoding == "json"
    assert Packet({}).sender is None
    client = Client("192.0.2.1", cast("Any", None), cast("Any", None))
    packet = Packet({}, "ziproto", client)
    assert packet.encoding == "ziproto"
    assert packet.sender is client


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "1", "null", '"a"', '{"a": NaN}', '{"a": -Infinity}', b"\xff", b"{'a':1}"]
)
def test_text_that_is_no_json_object_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="a packet's text must be a JSON object"):
        Packet(text)


def test_text_nested_too_deep_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="a packet's text must be a JSON object"):
        Packet('{"a":' + "[" * 100_000)


@pytest.mark.parametrize("text", ['{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-32-le"), b'\xef\xbb\xbf{"a": 1}'])
def test_bytes_that_are_not_utf8_text_are_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="a packet's text must be a JSON object"):
        Packet(text)


@pytest.mark.parametrize("fields", [None, 1, [("a", 1)], {"a"}, pytest.param(object(), id="an object")], ids=repr)
def test_fields_of_another_type_are_a_type_error(fields: Any) -> None:
    with pytest.raises(TypeError, match=f"made of a mapping or of JSON text; got a {type(fields).__name__}"):
        Packet(fields)


def test_a_key_that_is_no_string_is_a_type_error_that_shows_it() -> None:
    with pytest.raises(TypeError, match="a packet's keys must be strings; got 7"):
        Packet(cast("Any", {"a": 1, 7: 2}))


@pytest.mark.parametrize("encoding", [None, 0, b"json"])
def test_an_encoding_that_is_no_name_is_a_type_error(encoding: Any) -> None:
    with pytest.raises(TypeError, match="it must be the name of a codec, such as 'json'"):
        Packet({}, encoding)


def test_the_fields_given_are_copied() -> None:
    fields = {"a": 1}
    packet = Packet(fields)
    packet["b"] = 2
    assert fields == {"a": 1}


def test_a_packet_behaves_like_a_dictionary() -> None:
    packet = Packet({"a": 1, "b": 2})
    packet["c"] = 3
    del packet["a"]
    assert packet["b"] == 2
    assert list(packet) == ["b", "c"]
    assert len(packet) == 2
    assert "c" in packet
    assert "a" not in packet
    assert cast("Any", 1) not in packet
    assert packet == {"b": 2, "c": 3}
    assert packet == Packet({"b": 2, "c": 3}, "ziproto")
    assert packet.get("nope", 4) == 4
    assert packet.pop("c") == 3
    assert dict(packet.items()) == {"b": 2}
    assert isinstance(packet, MutableMapping)
    with pytest.raises(KeyError):
        packet["nope"]
    with pytest.raises(KeyError):
        del packet["nope"]
    assert not Packet({})


def test_stop_propagation_raises_when_called() -> None:
    with pytest.raises(StopPropagation):
        Packet({}).stop_propagation()


async def test_stop_propagation_raises_when_awaited() -> None:
    with pytest.raises(StopPropagation):
        await cast("Any", Packet({})).stop_propagation()


def test_a_packet_is_printed_as_the_documentation_shows_it() -> None:
    assert str(Packet({"test": 1})) == 'Packet({"test": 1})'
    assert repr(Packet({"test": 1}, "ziproto")) == "<Packet of 1 fields, encoding='ziproto'>"


def test_what_json_does_not_have_is_printed_all_the_same() -> None:
    assert str(Packet({"a": b"\x00", "b": {1}})) == 'Packet({"a": "b\'\\\\x00\'", "b": "{1}"})'


def test_a_packet_with_a_key_that_json_does_not_have_is_printed_all_the_same() -> None:
    assert "spam" in str(Packet({"a": {(1, 2): "spam"}}))


def test_a_packet_that_holds_itself_is_printed_all_the_same() -> None:
    packet = Packet({"spam": 1})
    packet["self"] = packet.fields
    assert "spam" in str(packet)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_the_text_of_a_packet_makes_the_same_packet(fields: dict[str, Any]) -> None:
    assert Packet(str(Packet(fields))[len("Packet(") : -1]) == fields
