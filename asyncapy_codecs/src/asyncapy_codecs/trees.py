"""The rules for fields that both codecs apply when they encode and decode (docs/protocol.md, "A packet").

This module checks values and is independent of the encoding.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Annotated, Any, Final

import msgspec

from asyncapy_core.errors import EncodeError

MAX_DEPTH: Final = 128
"""Levels to which maps and arrays may be nested, including the payload itself."""

MAX_CONTAINERS: Final = 200_000
"""The maps and arrays that an unusual payload may hold, or one for each five bytes if that is more. So the time of
`find_fault` is bounded."""

MAX_DEEP: Final = 50_000
"""Those of them that may be nested deeper than `USUAL_DEPTH`, as they take twice the time, or one for each 20 bytes."""

USUAL_DEPTH: Final = 7
"""Levels to which the maps and arrays of a usual payload are nested, including the payload itself."""

_BINARY: Final = (bytes, bytearray, memoryview)
_SCALARS: Final = frozenset({type(None), bool, int, str, *_BINARY})
_CONTAINERS: Final = frozenset({dict, list, tuple})
_PLAIN: Final = _SCALARS | _CONTAINERS
_WIDE: Final = 32
_FORMS: Final[dict[type, Callable[[Any], object]]] = {
    str: str,
    bytes: bytes,
    int: int,
    float: float,
    Mapping: dict,
    list: list,
    tuple: tuple,
}


def usual_payload() -> Any:
    """Return the type of a usual payload, for msgspec to decode to. Values of this type have no fault.

    It is a map with string keys, of maps, arrays, strings, finite numbers, booleans and null, nested at most
    `USUAL_DEPTH` levels deep. Payloads that are nested deeper or hold bytes do not match it; `find_fault` checks them.
    """
    finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
    scalar: Any = None | bool | int | finite | str
    value: Any = scalar
    for _ in range(USUAL_DEPTH - 1):
        value = scalar | list[value] | dict[str, value]
    return dict[str, value]


def find_fault(fields: Mapping[Any, Any], max_deep: int | None = None) -> str | None:
    """Return the reason why these fields are not a payload, or None.

    The keys of a payload are strings. Its values are maps, arrays, strings, bytes, finite numbers, booleans and null,
    nested at most `MAX_DEPTH` levels deep.

    Args:
        fields: the fields to check.
        max_deep: the maps and arrays that may be nested deeper than `USUAL_DEPTH`; None for any number.
    """
    return _fault_in_map(fields, 1, [-1 if max_deep is None else max_deep])


def _fault_in_map(fields: Mapping[Any, Any], depth: int, left: list[int]) -> str | None:
    for key in fields:
        if type(key) is not str:
            return f"a key is of type {type(key).__name__}, and keys are strings"
    return _fault_among(fields.values(), depth, left)


def _fault_among(values: Collection[Any], depth: int, left: list[int]) -> str | None:
    """Check the values of a map or an array at this depth; ``left`` holds the rest of ``max_deep``."""
    if depth > USUAL_DEPTH:
        if left[0] == 0:
            return f"it holds too many maps and arrays that are nested more than {USUAL_DEPTH} deep"
        left[0] -= 1
    for value in values if len(values) <= _WIDE else _suspects(values, depth):
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is float:
            if not math.isfinite(value):
                return "a number is not finite"
        elif kind not in _CONTAINERS:
            return f"a value is of type {kind.__name__}"
        elif depth == MAX_DEPTH:
            return f"it is nested more than {MAX_DEPTH} deep"
        elif value:
            fault = (_fault_in_map if kind is dict else _fault_among)(value, depth + 1, left)
            if fault is not None:
                return fault
    return None


def _suspects(values: Collection[Any], depth: int) -> Iterable[Any]:
    """Return the values that may have a fault. Checks by type take a third of the time of `_fault_among`."""
    kinds = set(map(type, values))
    if kinds <= _SCALARS or (kinds == {float} and all(map(math.isfinite, values))):
        return ()
    if depth == MAX_DEPTH or not kinds <= _PLAIN:
        return values
    if kinds == {list} and _SCALARS.issuperset(map(type, chain.from_iterable(values))):
        return ()
    return filter(None, values)  # empty values have no fault


def sendable(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that any codec can encode: unchanged, or with dates, UUIDs, sets and the like in their usual form.

    Raises:
        EncodeError: a field has no such form; the message gives the reason.
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


def require_finite(fields: Mapping[str, Any]) -> None:
    """Check fields that msgspec has encoded: all numbers are finite, and the nesting is not too deep.

    Raises:
        EncodeError: a number is not finite, or the nesting is too deep.
    """
    if find_fault(fields) is None:
        return
    try:
        plain = msgspec.to_builtins(fields, builtin_types=_BINARY, enc_hook=plain_form)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise EncodeError(f"these fields cannot be sent: {error}") from error
    if fault := find_fault(_with_text_as_keys(plain)):
        raise EncodeError(f"these fields cannot be sent: {fault}")


def _with_text_as_keys(value: Any) -> Any:
    """Return a value with all keys as strings, as the encoder has written them."""
    if isinstance(value, dict):
        return {str(key): _with_text_as_keys(each) for key, each in value.items()}
    return [_with_text_as_keys(each) for each in value] if isinstance(value, (list, tuple)) else value


def plain_form(value: object) -> object:
    """Convert a value that msgspec does not support to the builtin type that it is an instance of.

    Raises:
        TypeError: it is an instance of none of them.
    """
    for kind, make in _FORMS.items():
        if isinstance(value, kind):
            return make(value)
    raise TypeError(f"a value is of type {type(value).__name__}")
