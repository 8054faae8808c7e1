"""Checks of the results of hooks, which may be any object. A wrong result raises TypeError."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from asyncapy_core.keys.store import KeyStore
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter


def codecs(result: Any) -> list[Codec]:
    """Return the result of `asyncapy_codecs`, checked."""
    if not isinstance(result, Iterable):
        raise TypeError(f"expected codecs in a list, got {result!r}")
    found = list(result)
    for codec in found:
        if not isinstance(codec, Codec):
            raise TypeError(f"{codec!r} is not a codec: it needs name, wire_id, encode and decode")
        name: Any = codec.name
        wire_id: Any = codec.wire_id
        if type(name) is not str or type(wire_id) is not int or not 0 <= wire_id <= 255:
            raise TypeError(f"{codec!r} needs a string as its name, and a wire id from 0 to 255")
    return found


def filters(result: Any) -> dict[str, type[Filter]]:
    """Return the result of `asyncapy_filters`, checked."""
    found = _named(result)
    for name, value in found.items():
        if not name.isidentifier() or name.startswith("_") or hasattr(Filter, name):
            raise TypeError(f"{name!r} cannot be used as Filters.{name}")
        if not (inspect.isclass(value) and issubclass(value, Filter)):
            raise TypeError(f"{name} is {value!r}, which is not a subclass of Filter")
    return found


def key_stores(result: Any) -> dict[str, Callable[[str], KeyStore]]:
    """Return the result of `asyncapy_key_stores`, checked."""
    found = _named(result)
    for scheme, value in found.items():
        if not callable(value):
            raise TypeError(f"{scheme} is {value!r}, which is not a function that opens a key store")
    return found


def _named(result: Any) -> dict[str, Any]:
    if not isinstance(result, Mapping):
        raise TypeError(f"expected a mapping with names, got {result!r}")
    found = dict(result)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} is not a string")
    return found
