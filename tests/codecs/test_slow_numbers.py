from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_codecs import JsonCodec
from asyncapy_codecs.large import LARGE
from asyncapy_codecs.slow_numbers import EXAMINED, has_slow_numbers
from asyncapy_core.errors import DecodeError

LARGEST = "17976931348623157" + "0" * 292 + ".5"


def payload_of(number: str, size: int = EXAMINED) -> bytes:
    return ('{"a":[' + f"{number}," * (size // (len(number) + 1)) + number + "]}").encode()


@pytest.mark.parametrize(
    "number",
    ["9e300", "9E300", "9e+300", "-9.5e0300", "5e-324", "5E-324", "2.2250738585072011e-308", "1e23", "10e22", "1e310"],
)
@pytest.mark.parametrize("end", [b",", b"]", b"}", b" ", b"\t", b"\r", b"\n"])
def test_numbers_that_msgspec_converts_slowly_are_found(number: str, end: bytes) -> None:
    assert has_slow_numbers(number.encode() + end)


@pytest.mark.parametrize("number", [LARGEST, "0." + "0" * 322 + "5", "9" * 330])
def test_numbers_of_many_digits_are_found_in_large_payloads(number: str) -> None:
    for shift in range(64):
        assert has_slow_numbers(b" " * shift + payload_of("1.5", LARGE) + number.encode())


@pytest.mark.parametrize("number", ["1", "0.1", "1.5e9", "2e-05", "1e-10", "-1.7976931348623157", "9" * 200, "0"])
@pytest.mark.parametrize("size", [EXAMINED, 2 * LARGE])
def test_other_numbers_are_not(number: str, size: int) -> None:
    assert not has_slow_numbers(payload_of(number, size))


@pytest.mark.parametrize("text", ["9fe123ab", "ee000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "version 1e", "e1,"])
def test_text_that_resembles_numbers_is_not(text: str) -> None:
    assert not has_slow_numbers(json.dumps({"a": [text] * 100}).encode())


@pytest.mark.parametrize(
    ("payload", "slow"),
    [
        (payload_of("9e300"), True),
        (payload_of("9e300", LARGE), True),
        (payload_of(LARGEST, LARGE), True),
        (payload_of("1.5"), False),
        (payload_of("1.5", LARGE), False),
        (b'{"a":9e300}', False),
        (payload_of("9e300", EXAMINED - 20), False),
    ],
    ids=lambda value: str(len(value)) if isinstance(value, bytes) else str(value),
)
def test_the_standard_library_decodes_payloads_with_slow_numbers_only(
    payload: bytes, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, decoded = JsonCodec(), list[bytes]()

    def decode(payload: bytes) -> dict[str, Any]:
        decoded.append(payload)
        fields: dict[str, Any] = json.loads(payload)
        return fields

    monkeypatch.setattr(codec, "_decode_slow", decode)
    assert codec.decode(payload) == json.loads(payload)
    assert decoded == [payload] * slow


@pytest.mark.parametrize("number", ["1e309", "-1e999", "1" + "0" * 400 + ".0"])
@pytest.mark.parametrize("size", [10, EXAMINED, 2 * LARGE])
def test_numbers_beyond_a_float_are_refused(number: str, size: int) -> None:
    payload = payload_of("9e300", size)[:-2] + b"," + number.encode() + b"]}"
    with pytest.raises(DecodeError, match=r"finite|range"):
        JsonCodec().decode(payload)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40), st.text())
def test_both_ways_to_decode_agree(numbers: list[float], text: str) -> None:
    fields: dict[str, Any] = {"text": text, "numbers": numbers}
    payload = json.dumps(fields).encode()
    slow = payload[:-1] + b', "more": [' + b"9e300," * 50 + b"1]}"
    assert has_slow_numbers(slow)
    assert repr(JsonCodec().decode(slow)) == repr(fields | {"more": [9e300] * 50 + [1]})
    assert repr(JsonCodec().decode(payload)) == repr(fields)
