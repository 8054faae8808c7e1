"""JSON with numbers that msgspec converts slowly, decoded by the standard library's `json` instead.

msgspec takes 6 to 20 us for a number near the largest or the smallest that a float can hold, and 0.5 us for a number
half-way between two floats. The standard library takes 0.1 us. This module is independent of the rules for fields.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec

from asyncapy_codecs.large import LARGE

EXAMINED: Final = 256
"""Bytes of the smallest payload to examine. A shorter one holds at most 42 slow numbers, which take 0.5 ms."""

_KINDS: Final = bytes(
    ord("0" if byte in b"0123456789+-" else "e" if byte in b"eE" else " " if byte in b",]} \t\r\n" else "x")
    for byte in range(256)
)
"""Translates each byte to its kind, so that one search for a few letters finds all exponents, at 0.6 ns a byte."""

_may_have_exponent: Final = re.compile(rb"e000* ").search
_find_exponent: Final = re.compile(rb"[eE](?:\+?[0-9]{2}|-[0-9]{3})[0-9]*[,\]} \t\r\n]").search
_may_hold_surrogate: Final = re.compile(rb"\\u[dD][89a-fA-F]").search

_MANY_DIGITS: Final = b"0" * 280
_STEP: Final = 64
_SAMPLES: Final = b"0" * (len(_MANY_DIGITS) // _STEP)


def has_slow_numbers(payload: bytes) -> bool:
    """Return whether a payload may hold numbers that msgspec converts slowly.

    These are numbers with a positive exponent of at least two digits or a negative one of at least three and, in a
    large payload, numbers of 280 digits. The same characters in a string are found, too.
    """
    kinds = payload.translate(_KINDS)
    if _may_have_exponent(kinds) and _find_exponent(payload):
        return True
    return len(payload) >= LARGE and _SAMPLES in kinds[::_STEP] and _MANY_DIGITS in kinds


def decode(payload: bytes) -> Any:
    """Decode a JSON text in UTF-8. Numbers that are too large for a float become infinite.

    Raises:
        ValueError: it is not JSON, not UTF-8, or a string holds a lone surrogate.
        RecursionError: it is nested too deep.
    """
    value = _decode_text(payload.decode("utf-8"))
    if _may_hold_surrogate(payload):
        msgspec.json.encode(value)  # raises UnicodeEncodeError for lone surrogates
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode_text: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode
