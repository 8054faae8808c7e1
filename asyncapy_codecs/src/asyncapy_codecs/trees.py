"""What both codecs demand of fields, whichever way they go (docs/protocol.md, "A packet").

Knows no encoding: looks at values only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final

import msgspec

from asyncapy_core.errors import EncodeError

MAX_DEPTH: Final = 128
"""How deep maps and arrays may be nested, the payload itself counted."""

PATIENCE: Final = 1_000_000
"""How much of an unusual payload is looked through in Python, so that this ends soon: see `find_fault`."""

MANY: Final = 100_000
"""So many maps and arrays at most are looked through, where they are hardly nested."""

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
    """Return what nearly all payloads are, as a type that msgspec decodes to: whatever is of it has no fault.

    That is a map with strings as keys, of maps, arrays, strings, finite numbers, booleans and null, nested a few deep.
    Payloads that are nested deeper, or hold bytes, have no such type, and are looked through by `find_fault`.
    """
    finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
    scalar: Any = None | bool | int | finite | str
    value: Any = scalar
    for _ in range(_SHALLOW):
        value = scalar | list[value] | dict[str, value]
    return dict[str, value]


def find_fault(fields: Mapping[Any, Any], patience: int = 1_000_000_000) -> str | None:
    """Return what keeps these fields from being a payload, or None.

    A payload has strings as keys and finite numbers, knows no other types than maps, arrays, strings, bytes, numbers,
    booleans and null, and is nested at most `MAX_DEPTH` deep.

    Args:
        fields: what may be one.
        patience: each map and array takes its depth and 8 of this; using it up is a fault as well.
    """
    return _fault_in_map(fields, 1, [patience])


def _fault_in_map(fields: Mapping[Any, Any], depth: int, left: list[int]) -> str | None:
    for key in fields:
        if type(key) is not str:
            return f"a key is of type {type(key).__name__}, and keys are strings"
    return _fault_among(fields.values(), depth, left)


def _fault_among(values: Collection[Any], depth: int, left: list[int]) -> str | None:
    """Look at the values of a map or an array at this depth; ``left`` is the patience."""
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
                    return "it holds too many maps and arrays in each other"
                fault = (_fault_in_map if kind is dict else _fault_among)(value, depth + 1, left)
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


def require_finite(fields: Mapping[str, Any]) -> None:
    """Check that these fields, which an encoder has written, hold no number that is not finite, and are not too deep.

    Raises:
        EncodeError: they do, or are.
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
    """Return a value with other keys than text, which an encoder has written as text, left out of the question."""
    if isinstance(value, dict):
        return {str(key): _with_text_as_keys(each) for key, each in value.items()}
    return [_with_text_as_keys(each) for each in value] if isinstance(value, (list, tuple)) else value


def plain_form(value: object) -> object:
    """Return what msgspec does not know in the form of the builtin type that it is a kind of.

    Raises:
        TypeError: it is no kind of any.
    """
    for kind, make in _FORMS.items():
        if isinstance(value, kind):
            return make(value)
    raise TypeError(f"a value is of type {type(value).__name__}")
