"""A reference decoder for ZiProto: the msgpack package with the rules of docs/protocol.md."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgpack


def strict(payload: bytes) -> dict[str, Any]:
    """Decode a payload.

    Raises:
        ValueError, TypeError, msgpack.UnpackException: the payload breaks a rule of docs/protocol.md.
    """

    def pairs(items: list[tuple[Any, Any]]) -> dict[str, Any]:
        if not all(type(key) is str for key, _ in items):
            raise ValueError("keys")
        return dict(items)

    def no_extension(code: int, data: bytes) -> Any:
        raise ValueError("ext")

    fields = msgpack.unpackb(payload, strict_map_key=True, object_pairs_hook=pairs, ext_hook=no_extension)
    if type(fields) is not dict:
        raise ValueError("no map")
    for value in leaves(fields):
        if isinstance(value, msgpack.Timestamp):
            raise ValueError("timestamp")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
    return fields


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        yield value
        return
    for each in value:
        yield from leaves(each)
