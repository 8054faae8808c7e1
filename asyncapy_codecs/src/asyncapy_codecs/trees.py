"""What both codecs demand of fields, whichever way they go (WIRE.md, "A packet").

Knows no encoding: looks at values only, level by level, which costs no Python code per value where nothing is nested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from asyncapy_core.errors import EncodeError

MAX_DEPTH: Final = 128
"""How deep maps and arrays may be nested, the payload itself counted."""

_BINARY: Final = (bytes, bytearray, memoryview)
_SCALARS: Final = frozenset({type(None), bool, int, str, *_BINARY})
_KINDS: Final = _SCALARS | {float, dict, list, tuple}


def find_fault(fields: Mapping[str, Any]) -> str | None:
    """Return what keeps these fields from being a payload, or None.

    A payload has strings as keys and finite numbers, knows no other types than maps, arrays, strings, bytes, numbers,
    booleans and null, and is nested at most `MAX_DEPTH` deep.
    """
    maps: list[Mapping[str, Any]] = [fields]
    arrays: list[Any] = []
    for _ in range(MAX_DEPTH):
        for kind in set(map(type, chain.from_iterable(maps))):
            if kind is not str:
                return f"a key is of type {kind.__name__}, and keys are strings"
        values = [*chain.from_iterable(each.values() for each in maps), *chain.from_iterable(arrays)]
        kinds = set(map(type, values))
        if kinds <= _SCALARS:
            return None
        if strange := kinds - _KINDS:
            return f"a value is of type {strange.pop().__name__}"
        if float in kinds and not all(math.isfinite(value) for value in values if type(value) is float):
            return "a number is not finite"
        maps = [value for value in values if type(value) is dict]
        arrays = [value for value in values if type(value) is list or type(value) is tuple]
        if not (maps or arrays):
            return None
    return f"it is nested more than {MAX_DEPTH} deep"


def sendable(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that any codec can carry: as they are, or with dates, UUIDs, sets and the like in their usual form.

    Raises:
        EncodeError: that cannot be done; the message says why.
    """
    if find_fault(fields) is None:
        return fields
    try:
        plain: dict[str, Any] = msgspec.to_builtins(fields, builtin_types=_BINARY, str_keys=True)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise EncodeError(f"these fields cannot be sent: {error}") from error
    if fault := find_fault(plain):
        raise EncodeError(f"these fields cannot be sent: {fault}")
    return plain
