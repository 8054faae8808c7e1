"""What both codecs demand of fields, whichever way they go (WIRE.md, "A packet").

Knows no encoding: looks at values only.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from asyncapy_core.errors import EncodeError

MAX_DEPTH: Final = 128
"""How deep maps and arrays may be nested, the payload itself counted."""

LARGE: Final = 16 * 1024
"""Bytes of a payload from which it is worth to stop collecting garbage while it is decoded."""

_BINARY: Final = (bytes, bytearray, memoryview)
_SCALARS: Final = frozenset({type(None), bool, int, str, *_BINARY})
_MANY: Final = 32
_FORMS: Final[dict[type, Callable[[Any], object]]] = {
    str: str,
    bytes: bytes,
    int: int,
    float: float,
    Mapping: dict,
    list: list,
    tuple: tuple,
}


def find_fault(fields: Mapping[Any, Any], depth: int = 1) -> str | None:
    """Return what keeps these fields from being a payload, or None.

    A payload has strings as keys and finite numbers, knows no other types than maps, arrays, strings, bytes, numbers,
    booleans and null, and is nested at most `MAX_DEPTH` deep.
    """
    for key in fields:
        if type(key) is not str:
            return f"a key is of type {type(key).__name__}, and keys are strings"
    return _find_fault_among(fields.values(), depth)


def _find_fault_among(values: Collection[Any], depth: int) -> str | None:
    if len(values) > _MANY and _SCALARS.issuperset(map(type, values)):
        return None
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is float:
            if not math.isfinite(value):
                return "a number is not finite"
        elif kind is dict or kind is list or kind is tuple:
            if depth == MAX_DEPTH:
                return f"it is nested more than {MAX_DEPTH} deep"
            if value:
                fault = (find_fault if kind is dict else _find_fault_among)(value, depth + 1)
                if fault is not None:
                    return fault
        else:
            return f"a value is of type {kind.__name__}"
    return None


def sendable(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that any codec can carry: as they are, or with dates, UUIDs, sets and the like in their usual form.

    Raises:
        EncodeError: that cannot be done; the message says why.
    """
    if find_fault(fields) is None:
        return fields
    try:
        plain: dict[str, Any] = msgspec.to_builtins(fields, builtin_types=_BINARY, str_keys=True, enc_hook=plain_form)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise EncodeError(f"these fields cannot be sent: {error}") from error
    if fault := find_fault(plain):
        raise EncodeError(f"these fields cannot be sent: {fault}")
    return plain


def plain_form(value: object) -> object:
    """Return what msgspec does not know in the form of the builtin type that it is a kind of.

    Raises:
        TypeError: it is no kind of any.
    """
    for kind, make in _FORMS.items():
        if isinstance(value, kind):
            return make(value)
    raise TypeError(f"a value is of type {type(value).__name__}")


def decode_large(decode: Callable[[bytes], dict[str, Any]], payload: bytes) -> dict[str, Any]:
    """Decode, and collect no garbage meanwhile where the payload is large.

    A decoder that makes many containers makes no garbage, and looking for it would make it ten times as slow.
    """
    if len(payload) < LARGE or not gc.isenabled():
        return decode(payload)
    gc.disable()
    try:
        return decode(payload)
    finally:
        gc.enable()
