"""A codec for AsyncAPY: CBOR (RFC 8949), with the wire id 99."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import cbor2

from asyncapy_core import Codec, hookimpl
from asyncapy_core.errors import DecodeError, EncodeError

DEPTH = 64
"""The most levels of arrays and maps in a payload."""


class CborCodec:
    """CBOR without tags: maps with string keys, arrays, strings, bytes, numbers, booleans and null."""

    name = "cbor"
    wire_id = 99

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return the payload for these fields."""
        for name, value in fields.items():
            try:
                _check(name, 0)
                _check(value, 1)
            except ValueError as error:
                raise EncodeError(f"the field {name!r} cannot be sent as CBOR: {error}") from error
        return bytes(cbor2.dumps(dict(fields)))

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload, which is exactly one map with string keys."""
        stream = io.BytesIO(payload)
        try:
            fields = cbor2.load(stream)
            _check(fields, 0)
        except (cbor2.CBORError, ValueError, RecursionError, OverflowError, TypeError) as error:
            raise DecodeError(f"the payload is not CBOR: {type(error).__name__}") from error
        if stream.read(1):
            raise DecodeError("the payload has trailing bytes")
        if not isinstance(fields, dict):
            raise DecodeError(f"a payload must be a map; got a {type(fields).__name__}")
        return fields


def _check(value: object, depth: int) -> None:
    """Raise ValueError for a value that other codecs could not send."""
    if depth > DEPTH:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise ValueError("a key is no string")
        for inner in (*value, *value.values()):
            _check(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check(inner, depth + 1)
    elif isinstance(value, str):
        value.encode()  # a lone surrogate is a ValueError
    elif not isinstance(value, (bytes, int, float, type(None))):
        raise ValueError(f"it is a {type(value).__name__}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it is not a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("it has more than 64 bits")


@hookimpl
def asyncapy_codecs() -> list[Codec]:
    """Return the codecs of this plugin."""
    return [CborCodec()]
