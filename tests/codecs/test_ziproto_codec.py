from __future__ import annotations

import datetime as dt
import math
import struct
import tracemalloc
from typing import Any, cast

import msgpack
import pytest
import ziproto
from hostile_ziproto import HOSTILE, nested
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from strict_msgpack import strict
from work import calls_during

from asyncapy_codecs import ZiProtoCodec
from asyncapy_codecs.plugin import Options, asyncapy_codecs
from asyncapy_core import Codec
from asyncapy_core.errors import DecodeError, EncodeError

CODEC = ZiProtoCodec()
REFERENCE = ZiProtoCodec(engine="ziproto")


def trees(*, most: int, least_bytes: int) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads with at most ``most`` items in each map and array."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.binary(min_size=least_bytes)
    )
    inner = st.recursive(
        leaves,
        lambda each: st.lists(each, max_size=most) | st.dictionaries(st.text(max_size=4), each, max_size=most),
        max_leaves=12,
    )
    return st.dictionaries(st.text(max_size=6), inner, max_size=most)


payloads = trees(most=20, least_bytes=0)
small_payloads = trees(most=15, least_bytes=1)


@pytest.mark.parametrize("codec", [CODEC, REFERENCE], ids=repr)
@pytest.mark.parametrize("payload", [row[0] for row in HOSTILE], ids=[row[1] for row in HOSTILE])
def test_what_is_not_exactly_one_map_is_a_decode_error(codec: ZiProtoCodec, payload: str) -> None:
    with pytest.raises(DecodeError, match=r"^not a (ZiProto map|payload): ."):
        codec.decode(bytes.fromhex(payload))


@pytest.mark.parametrize("payload", ["dfffffffff", "81a161dfffffffff", "81a161ddffffffff", "81a16bdbffffffff68"])
def test_nothing_is_allocated_for_an_announced_size(payload: str) -> None:
    data = bytes.fromhex(payload)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            CODEC.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        ("81a3666f6fa3626172", {"foo": "bar"}),
        ("80", {}),
        ("de0001a16101", {"a": 1}),
        ("df00000001a16101", {"a": 1}),
        ("81d9016101", {"a": 1}),
        ("82a16101a16102", {"a": 2}),
        ("81a16182a16201a16202", {"a": {"b": 2}}),
        ("81a161ca3f800000", {"a": 1.0}),
        ("81a161c400", {"a": b""}),
        ("81a161d90141", {"a": "A"}),
        ("81a161c405c7cbd4de91", {"a": b"\xc7\xcb\xd4\xde\x91"}),
        ("81a161a2c387", {"a": "Ç"}),
        ("81a161cfffffffffffffffff", {"a": 2**64 - 1}),
        ("81a161d38000000000000000", {"a": -(2**63)}),
    ],
)
def test_a_map_is_decoded(payload: str, fields: dict[str, Any]) -> None:
    assert CODEC.decode(bytes.fromhex(payload)) == fields


@pytest.mark.parametrize("depth", [64, 128])
@pytest.mark.parametrize(("opening", "end"), [("91", "90"), ("81a162", "80")])
def test_128_levels_may_be_nested(depth: int, opening: str, end: str) -> None:
    payload = nested(depth, opening, end)
    assert CODEC.encode(CODEC.decode(payload)) == payload


@pytest.mark.parametrize(
    "fields",
    [
        {str(number): number for number in range(16)},
        {str(number): number for number in range(70_000)},
        {"a": list(range(16))},
        {"a": list(range(70_000))},
        {"a": "x" * 70_000},
        {"a": b"x" * 70_000},
    ],
    ids=["a map of 16", "a map of 70,000", "an array of 16", "an array of 70,000", "long text", "long bytes"],
)
def test_sizes_have_no_limit_of_their_own(fields: dict[str, Any]) -> None:
    assert CODEC.decode(CODEC.encode(fields)) == fields
    assert CODEC.encode(fields) == msgpack.packb(fields)


def test_a_small_payload_with_many_values_is_decoded_in_one_go() -> None:
    tree: list[Any] = []
    for _ in range(60):
        tree = [tree]
    payload = cast("bytes", msgpack.packb({"a": [tree] * 15, "b": [[[0] * 15] * 15] * 15}))
    assert calls_during(lambda: CODEC.decode(payload)) < len(payload)


def check_against_msgpack(payload: bytes) -> None:
    """Check that the codec and the msgpack package decode a payload to the same fields, or both refuse it."""
    try:
        expected = strict(payload)
    except (ValueError, msgpack.UnpackException, TypeError):
        with pytest.raises(DecodeError):
            CODEC.decode(payload)
    else:
        assert repr(CODEC.decode(payload)) == repr(expected)


@given(payloads)
def test_what_is_encoded_is_decoded_the_same(fields: dict[str, Any]) -> None:
    assert repr(CODEC.decode(CODEC.encode(fields))) == repr(fields)


@given(payloads)
def test_the_msgpack_package_writes_the_same_bytes_and_reads_them_the_same(fields: dict[str, Any]) -> None:
    payload = CODEC.encode(fields)
    assert payload == msgpack.packb(fields)
    check_against_msgpack(payload)


@given(st.binary(max_size=30).map(lambda rest: b"\x81\xa1a" + rest) | st.binary(max_size=30))
def test_the_msgpack_package_makes_the_same_of_any_bytes(payload: bytes) -> None:
    check_against_msgpack(payload)


wild = st.recursive(
    st.none()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=5))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**34)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=2) | st.integers(0, 300) | st.binary(max_size=2) | st.none(), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=2), wild, max_size=3), st.data())
def test_the_msgpack_package_makes_the_same_of_what_is_nearly_a_payload(fields: Any, data: st.DataObject) -> None:
    payload = cast("bytes", msgpack.packb(fields))
    check_against_msgpack(payload)
    check_against_msgpack(payload[: data.draw(st.integers(0, len(payload)))])
    check_against_msgpack(payload + data.draw(st.binary(max_size=3)))
    index = data.draw(st.integers(0, len(payload) - 1))
    check_against_msgpack(payload[:index] + bytes([data.draw(st.integers(0, 255))]) + payload[index + 1 :])


@given(small_payloads)
def test_the_ziproto_package_writes_the_same_bytes(fields: dict[str, Any]) -> None:
    assert CODEC.encode(fields) == bytes(ziproto.encode(fields)) == REFERENCE.encode(fields)


@given(small_payloads)
def test_the_ziproto_package_reads_the_same(fields: dict[str, Any]) -> None:
    payload = CODEC.encode(fields)
    assert ziproto.decode(payload) == CODEC.decode(payload) == fields


@given(small_payloads)
def test_both_engines_decode_the_same_fields_of_the_same_types(fields: dict[str, Any]) -> None:
    payload = CODEC.encode(fields)
    assert repr(REFERENCE.decode(payload)) == repr(CODEC.decode(payload))


def test_what_the_reference_engine_cannot_read_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="the reference engine cannot read this"):
        REFERENCE.decode(CODEC.encode({"a": list(range(16))}))


@pytest.mark.parametrize("fields", [{"a": b""}, {"a": [b"", 1]}, {"a": {"b": b""}}], ids=repr)
def test_the_reference_engine_sends_nothing_that_it_gets_wrong(fields: dict[str, Any]) -> None:
    try:
        payload = REFERENCE.encode(fields)
    except EncodeError:
        return
    assert CODEC.decode(payload) == fields


def test_an_empty_byte_string_keeps_its_length() -> None:
    assert CODEC.encode({"a": b""}) == bytes.fromhex("81a161c400")


@pytest.mark.parametrize("codec", [CODEC, REFERENCE], ids=repr)
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (dt.datetime(2020, 2, 10, 16, 39, 35, tzinfo=dt.UTC), "2020-02-10T16:39:35Z"),
        (dt.date(2020, 2, 10), "2020-02-10"),
        (bytearray(b"abc"), b"abc"),
        pytest.param(memoryview(b"abc"), b"abc", id="a view"),
        ((1, 2), [1, 2]),
        ({7}, [7]),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        ({1.5: 1}, {"1.5": 1}),
    ],
    ids=repr,
)
def test_a_value_is_sent_in_its_usual_form(codec: ZiProtoCodec, value: Any, sent: Any) -> None:
    assert CODEC.decode(codec.encode({"a": value})) == {"a": sent}


def _circular() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    fields["self"] = [fields]
    return fields


@pytest.mark.parametrize("codec", [CODEC, REFERENCE], ids=repr)
@pytest.mark.parametrize(
    "value",
    [
        *[math.nan, math.inf, 2**64, -(2**63) - 1, 10**5000, [{"b": 2**64}], object(), 1j, "\ud800", _circular()],
        *[{None: 1}, {(1, 2): 3}, {b"a": 1}],
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_ziproto_cannot_carry_is_an_encode_error_that_is_a_value_error(codec: ZiProtoCodec, value: Any) -> None:
    with pytest.raises(EncodeError, match="these fields cannot be sent") as caught:
        codec.encode({"a": value})
    assert isinstance(caught.value, ValueError)


def test_numbers_as_keys_of_the_payload_itself_become_strings() -> None:
    assert CODEC.encode({1: 2}) == bytes.fromhex("81a13102")  # type: ignore[dict-item]  # the codec accepts this mistake


def test_floats_are_sent_with_64_bits() -> None:
    assert CODEC.encode({"a": 0.5}) == b"\x81\xa1a\xcb" + struct.pack(">d", 0.5)


def test_it_is_a_codec_with_the_name_and_id_of_the_protocol() -> None:
    assert isinstance(CODEC, Codec)
    assert (CODEC.name, CODEC.wire_id) == ("ziproto", 1)
    assert repr(CODEC) == "<ZiProtoCodec engine='msgspec'>"
    assert repr(REFERENCE) == "<ZiProtoCodec engine='ziproto'>"


def test_the_engine_is_an_option_of_the_plugin() -> None:
    engines = [
        cast("ZiProtoCodec", asyncapy_codecs(Options(engine=engine))[1]).engine for engine in ("msgspec", "ziproto")
    ]
    assert engines == ["msgspec", "ziproto"]
    assert cast("ZiProtoCodec", asyncapy_codecs(Options())[1]).engine == "msgspec"
    with pytest.raises(ValidationError, match="engine"):
        Options(engine=cast("Any", "spam"))


def test_an_engine_that_there_is_not_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="spam"):
        ZiProtoCodec(engine=cast("Any", "spam"))
