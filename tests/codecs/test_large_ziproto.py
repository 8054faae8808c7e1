"""Large and dense ZiProto payloads, which are decoded in another way than small ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import msgpack
import msgspec
import pytest
from hostile_ziproto import HOSTILE

from asyncapy_codecs import ZiProtoCodec
from asyncapy_codecs.large import LARGE
from asyncapy_codecs.trees import MAX_CONTAINERS
from asyncapy_codecs.ziproto_codec import EXAMINED
from asyncapy_core.errors import DecodeError, EncodeError

CODEC = ZiProtoCodec()
TEXT = "x" * LARGE
BYTES = b"x" * LARGE
ROWS = [[1, 2, 3]] * EXAMINED
"""A quarter of the bytes of its payload begin an array."""


def arrays_as_keys(count: int) -> bytes:
    """Return a map whose keys are arrays that CPython hashes to the same value if they are tuples."""
    prime_1, prime_2, prime_5, mask = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64 - 1
    inverse = pow(prime_2, -1, 2**64)
    pairs: list[tuple[int, int]] = []
    number, target = 0, None
    while len(pairs) < count:
        lane = (prime_5 + number * prime_2) & mask
        lane = ((lane << 31 | lane >> 33) * prime_1) & mask
        target = (lane + 12345 * prime_2) & mask if target is None else target
        second = (target - lane) * inverse & mask
        if second < 2**61 - 1:
            pairs.append((number, second))
        number += 1
    assert len({hash(pair) for pair in pairs}) == 1
    return b"\xde" + count.to_bytes(2, "big") + b"".join(msgspec.msgpack.encode(pair) + b"\x01" for pair in pairs)


def after(value: Any) -> Callable[[bytes], bytes]:
    """Return a function that adds a field to a payload with a single field, in front."""
    return lambda payload: b"\x82\xa1z" + cast("bytes", msgpack.packb(value)) + payload[1:]


@pytest.mark.parametrize("value", [TEXT, BYTES, ROWS, [b"", *ROWS]], ids=["text", "bytes", "rows", "rows and bytes"])
@pytest.mark.parametrize(
    "payload", [row[0] for row in HOSTILE if row[0][:2] == "81"], ids=[row[1] for row in HOSTILE if row[0][:2] == "81"]
)
def test_a_large_payload_is_refused_for_the_same_reasons(payload: str, value: Any) -> None:
    with pytest.raises(DecodeError, match=r"^not a (ZiProto map|payload): ."):
        CODEC.decode(after(value)(bytes.fromhex(payload)))


@pytest.mark.parametrize("end", [b"\xc0", b"\x80", b"\x81\xa1"])
@pytest.mark.parametrize("value", [TEXT, BYTES, ROWS, b"x"], ids=["text", "bytes", "rows", "small"])
def test_bytes_after_the_map_are_refused(value: Any, end: bytes) -> None:
    with pytest.raises(DecodeError, match="trailing characters"):
        CODEC.decode(cast("bytes", msgpack.packb({"a": value})) + end)


@pytest.mark.parametrize("depth", range(1, 12))
@pytest.mark.parametrize("before", [b"", b"\xc4\x00"], ids=["", "bytes"])
def test_arrays_as_keys_are_refused_before_they_are_hashed(depth: int, before: bytes) -> None:
    keys = arrays_as_keys(20_000)  # as tuples in a dictionary they take 3 s, and 20 s at five times the length
    inner = b"\x92" + before + keys if before else b"\x91" + keys
    with pytest.raises(DecodeError, match=r"Expected `str`, got `array`|FixArray"):
        CODEC.decode(b"\x81\xa1a" * depth + inner)


@pytest.mark.parametrize(
    "fields",
    [
        {"a": TEXT, "b": [1.5, None, True, {"c": []}]},
        {"a": BYTES, "b": [1.5, None, True, {"c": []}]},
        {"a": ROWS, "b": b"x"},
        {"a": ROWS, "b": [[[[[[[[[[1]]]]]]]]]]},
        {"a": [{}] * 190_000},
        {"a": [[]] * 190_000, "b": b""},
        {"a": random.Random(1).randbytes(2 * 1024 * 1024), "b": [[[[[[[[b""]]]]]]]]},
        {"a": "漢字かな交じり文" * 100_000, "b": [[[[[[[[[]]]]]]]]]},
        {"a": "é" * 1_000_000, "b": b"x"},
        {str(number): [number] for number in range(100_000)},
        {"a": [nested_list] * 5 if (nested_list := [[[[[[[0]]]]]]]) else None},
    ],
    ids=lambda fields: repr(fields)[:20],
)
def test_large_payloads_survive(fields: dict[str, Any]) -> None:
    payload = CODEC.encode(fields)
    assert payload == msgpack.packb(fields)
    assert CODEC.decode(payload) == fields


@pytest.mark.parametrize("item", [b"\x90", b"\x80", b"\x91\xc0", b"\x81\xa0\xc2"])
def test_too_many_maps_and_arrays_are_refused(item: bytes) -> None:
    few, many = MAX_CONTAINERS - 2, MAX_CONTAINERS + 200  # CPython reuses a few objects without counting them
    CODEC.decode(b"\x81\xa1a\xdd" + few.to_bytes(4, "big") + item * few)
    payload = b"\x81\xa1a\xdd" + many.to_bytes(4, "big") + item * many
    with pytest.raises(DecodeError, match=f"more than 200000 maps and arrays, the limit for {len(payload)} bytes"):
        CODEC.decode(payload)


def test_a_longer_payload_may_hold_more_of_them() -> None:
    fields = {"a": [[1, 2, 3, 4, 5]] * (MAX_CONTAINERS + 1)}
    assert CODEC.decode(CODEC.encode(fields)) == fields


@pytest.mark.parametrize("value", [TEXT, BYTES, ROWS], ids=["text", "bytes", "rows"])
@pytest.mark.parametrize("fault", [float("nan"), object(), [[[[[[[[float("inf")]]]]]]]]], ids=["NaN", "object", "deep"])
def test_large_fields_are_not_sent_with_a_fault(value: Any, fault: object) -> None:
    with pytest.raises(EncodeError, match="cannot be sent"):
        CODEC.encode({"a": value, "b": fault})


def test_large_fields_are_sent_in_their_usual_form() -> None:
    for value in (TEXT, BYTES, ROWS):
        assert CODEC.decode(CODEC.encode({"a": value, "b": (1, {2}), "c": {3: 4}})) == {
            "a": value,
            "b": [1, [2]],
            "c": {"3": 4},
        }
