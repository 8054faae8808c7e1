"""The rules for fields that both codecs apply when they encode and decode (docs/protocol.md, "A packet").

This module checks values and is independent of the encoding.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

import msgspec

from asyncapy_core.errors import EncodeError

MAX_DEPTH: Final = 128
"""Levels to which maps and arrays may be nested, including the payload itself."""

PATIENCE: Final = 1_000_000
"""The budget for the check of an unusual payload in Python, which bounds its time: see `find_fault`."""

MANY: Final = 100_000
"""The number of maps and arrays that `PATIENCE` allows if they are hardly nested."""

_SHALLOW: Final = 6
_BINARY: Final = (bytes, bytearray, memoryview)
_SCALARS: Final = frozenset({type(None), bool, int, str, *_BINARY})
_WORTH_A_LOOK: Final = 32
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

    It is a map with string keys, of maps, arrays, strings, finite numbers, booleans and null, nested a few levels deep.
    Payloads that are nested deeper or hold bytes do not match it; `find_fault` checks them.
    """
    finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
    scalar: Any = None | bool | int | finite | str
    value: Any = scalar
    for _ in range(_SHALLOW):
        value = scalar | list[value] | dict[str, value]
    return dict[str, value]


def find_fault(fields: Mapping[Any, Any], patience: int = 1_000_000_000) -> str | None:
    """Return the reason why these fields are not a payload, or None.

    The keys of a payload are strings. Its values are maps, arrays, strings, bytes, finite numbers, booleans and null,
    nested at most `MAX_DEPTH` levels deep.

    Args:
        fields: the fields to check.
        patience: the budget. Each map and array costs its depth plus 8; it is a fault to exceed the budget.
    """
    return _fault_in_map(fields, 1, [patience])


def _fault_in_map(fields: Mapping[Any, Any], depth: int, left: list[int]) -> str | None:
    for key in fields:
        if type(key) is not str:
            return f"a key is of type {type(key).__name__}, and keys are strings"
    return _fault_among(fields.values(), depth, left)


def _fault_among(values: Collection[Any], depth: int, left: list[int]) -> str | None:
    """Check the values of a map or an array at this depth; ``left`` holds the rest of the budget."""
    if len(values) > _WORTH_A_LOOK and _SCALARS.issuperset(map(type, values)):
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
                left[0] -= depth + 8
                if left[0] < 0:
                    return "it holds too many nested maps and arrays"
                fault = (_fault_in_map if kind is dict else _fault_among)(value, depth + 1, left)
                if fault is not None:
                    return fault
        else:
            return f"a value is of type {kind.__name__}"
    return None


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
