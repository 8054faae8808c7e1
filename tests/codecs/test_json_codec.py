from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_codecs import JsonCodec
from asyncapy_codecs.plugin import Options, asyncapy_codecs
from asyncapy_codecs.slow_numbers import has_slow_numbers
from asyncapy_core import Codec
from asyncapy_core.errors import DecodeError, EncodeError

CODEC = JsonCodec()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(st.text(max_size=6), values, max_size=5)


def nested(depth: int) -> bytes:
    """Return a payload nested this deep; the outermost map counts."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


NO_OBJECTS = [
    b"",
    b'{"a":',
    b"[1,2]",
    b"12345",
    b"null",
    b"true",
    rb'"{\"uni\":1}"',
    b'{"a":"\xff"}',
    b'{"\xff":1}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xc0\xaf"}',
    '{"a":1}'.encode("utf-16"),
    '{"a":1}'.encode("utf-16-le"),
    '{"a":1}'.encode("utf-32"),
    '{"a":1}'.encode("utf-32-be"),
    b'\xef\xbb\xbf{"a":1}',
    rb'{"a":"\ud800"}',
    rb'{"a":"\ud800x"}',
    rb'{"a":"\udc00\ud800"}',
    rb'{"\ud800":1}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":-1e999}',
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":-' + b"9" * 5000 + b"}",
    nested(129),
    nested(2000),
    nested(100_000),
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'{"a":1}{',
    b'{"a":1}\x00',
    b'{"a":1} {"b":2}',
    b'{"a":1,}',
    b"{'a':1}",
    b"{a:1}",
    b"{1:1}",
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":0x10}',
    b'{"a":"\n"}',
    b'{"a":1}//',
    b'{"a":undefined}',
]

OBJECTS: list[tuple[bytes, dict[str, Any]]] = [
    (b"{ }", {}),
    (b' \r\n\t{"a" : 1 } \n', {"a": 1}),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"a":{"b":1,"b":2}}', {"a": {"b": 2}}),
    (b'{"":0}', {"": 0}),
    ('{"käse":"\u2028 \U0001f600"}'.encode(), {"käse": "\u2028 \U0001f600"}),
    (rb'{"a":"\ud83d\ude00\u0000"}', {"a": "\U0001f600\x00"}),
    (b'{"a":18446744073709551615,"b":-9223372036854775808}', {"a": 2**64 - 1, "b": -(2**63)}),
    (b'{"a":[1.5,true,false,null,{"b":[]}]}', {"a": [1.5, True, False, None, {"b": []}]}),
    (rb'{"a":"{\"uni\":1}"}', {"a": '{"uni":1}'}),
]


def with_slow_numbers(payload: bytes) -> bytes:
    """Return a payload with 60 more fields in front, whose values msgspec converts slowly."""
    start, brace, rest = payload.partition(b"{")
    numbers = b",".join(b'"%d":1e300' % number for number in range(60))
    return start + brace + numbers + (rest if rest.strip() == b"}" else b"," + rest)


@pytest.mark.parametrize("change", [bytes, with_slow_numbers])
@pytest.mark.parametrize("payload", NO_OBJECTS, ids=lambda payload: repr(payload[:24]))
def test_what_is_not_exactly_one_json_object_is_a_decode_error(
    payload: bytes, change: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(DecodeError, match=r"^not a (JSON object|payload): ."):
        CODEC.decode(change(payload))


@pytest.mark.parametrize(("payload", "fields"), OBJECTS)
def test_a_json_object_is_decoded(payload: bytes, fields: dict[str, Any]) -> None:
    assert CODEC.decode(payload) == fields
    slow = with_slow_numbers(payload)
    assert has_slow_numbers(slow)
    assert CODEC.decode(slow) == {str(number): 1e300 for number in range(60)} | fields


@pytest.mark.parametrize("depth", [1, 64, 128])
def test_128_levels_may_be_nested(depth: int) -> None:
    decoded = CODEC.decode(nested(depth) if depth > 1 else b'{"a":1}')
    assert CODEC.decode(CODEC.encode(decoded)) == decoded


def test_brackets_in_text_are_not_levels() -> None:
    assert CODEC.decode(b'{"a":"' + b"[{" * 500 + b'"}') == {"a": "[{" * 500}


@given(payloads)
def test_what_is_encoded_is_decoded_the_same(fields: dict[str, Any]) -> None:
    assert CODEC.decode(CODEC.encode(fields)) == fields


@given(payloads)
def test_the_standard_library_reads_what_is_encoded_and_the_other_way_round(fields: dict[str, Any]) -> None:
    assert json.loads(CODEC.encode(fields)) == fields
    assert CODEC.decode(json.dumps(fields).encode()) == fields


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:1e-\\u0nul d8', max_size=30).map(str.encode))
def test_any_bytes_are_a_map_or_a_decode_error(payload: bytes) -> None:
    try:
        fields = CODEC.decode(payload)
    except DecodeError:
        return
    assert type(fields) is dict
    assert json.loads(payload) == fields


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_payload_that_is_cut_or_has_more_behind_it_is_a_decode_error(cut: int) -> None:
    payload = b'{"a":[1,{"b":"text"}]}'
    assert CODEC.decode(payload) == {"a": [1, {"b": "text"}]}
    with pytest.raises(DecodeError):
        CODEC.decode(payload[:cut])
    with pytest.raises(DecodeError):
        CODEC.decode(payload + payload[:cut])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.datetime(2020, 2, 10, 16, 39, 35, tzinfo=dt.UTC), '"2020-02-10T16:39:35Z"'),
        (dt.date(2020, 2, 10), '"2020-02-10"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (b"abc", '"YWJj"'),
        (bytearray(b"abc"), '"YWJj"'),
        (b"", '""'),
        ((1, 2), "[1,2]"),
        ({7}, "[7]"),
        ({1: {2: 3}}, '{"1":{"2":3}}'),
        ({1.5: 1}, '{"1.5":1}'),
        ({uuid.UUID(int=1): 1}, '{"00000000-0000-0000-0000-000000000001":1}'),
        (2**64, "18446744073709551616"),
        ("käse", '"käse"'),
    ],
    ids=repr,
)
def test_a_value_is_sent_in_its_usual_form(value: Any, text: str) -> None:
    assert CODEC.encode({"a": value}).decode() == f'{{"a":{text}}}'


def test_numbers_as_keys_of_the_payload_itself_become_strings() -> None:
    assert CODEC.encode({1: {2: 3}}) == b'{"1":{"2":3}}'  # type: ignore[dict-item]  # the codec accepts this mistake


def _circular() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    fields["self"] = [fields]
    return fields


@pytest.mark.parametrize(
    "value",
    [
        *[math.nan, math.inf, -math.inf, [{"b": math.nan}], object(), 1j, "\ud800", {"\ud800": 1}, _circular()],
        *[{None: 1}, {(1, 2): 3}, lambda: None, range(3)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_carry_is_an_encode_error_that_is_a_value_error(value: Any) -> None:
    with pytest.raises(EncodeError, match="these fields cannot be sent") as caught:
        CODEC.encode({"a": value})
    assert isinstance(caught.value, ValueError)


def test_what_is_nested_too_deep_is_not_sent() -> None:
    value: list[Any] = []
    for _ in range(127):
        value = [value]
    with pytest.raises(EncodeError, match="nested more than 128 deep"):
        CODEC.encode({"a": value})


def test_encoding_does_not_change_the_fields() -> None:
    fields = {"a": {1: b"x", "b": {2}}}
    CODEC.encode(fields)
    assert fields == {"a": {1: b"x", "b": {2}}}


def test_it_is_a_codec_with_the_name_and_id_of_the_protocol() -> None:
    assert isinstance(CODEC, Codec)
    assert (CODEC.name, CODEC.wire_id) == ("json", 0)
    assert repr(CODEC) == "<JsonCodec>"


def test_the_plugin_brings_both_codecs() -> None:
    assert [(codec.name, codec.wire_id) for codec in asyncapy_codecs(Options())] == [("json", 0), ("ziproto", 1)]


@pytest.mark.parametrize("beside", [{}, {"n": None}, {"n": "null"}])
@pytest.mark.parametrize(("key", "sent"), [(1, b'"1"'), (1.5, b'"1.5"')])
def test_whether_a_key_that_is_no_text_is_sent_does_not_depend_on_what_is_beside_it(
    key: Any, sent: bytes, beside: dict[str, Any]
) -> None:
    assert sent + b":true" in JsonCodec().encode({"v": {key: True}, **beside})


def test_bytes_that_cannot_be_read_in_one_piece_are_an_encode_error() -> None:
    with pytest.raises(EncodeError):
        JsonCodec().encode({"a": memoryview(b"abcdef")[::2]})
