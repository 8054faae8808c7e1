"""Checks of the results of hooks, which may be any object. A wrong result raises TypeError."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asyncapy_core.keys.store import KeyStore
from asyncapy_core.logs import Mistake
from asyncapy_core.plugins.implementations import short_repr
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter

LIMIT: Final = 256
"""The most codecs of one plugin, which is the number of wire ids."""

NamedCodec = tuple[str, int, Codec]


def codecs(result: Any) -> list[NamedCodec]:
    """Return the result of `asyncapy_codecs`, checked: each codec with its name and its wire id."""
    refuse_coroutine(result)
    if not isinstance(result, Iterable):
        raise TypeError(f"expected codecs in a list, got {short_repr(result)}")
    found = list(itertools.islice(result, LIMIT + 1))
    if len(found) > LIMIT:
        raise TypeError(f"expected at most {LIMIT} codecs, got more from {short_repr(result)}")
    return [_named_codec(codec) for codec in found]


def _named_codec(codec: Any) -> NamedCodec:
    if not isinstance(codec, Codec) or not all(map(callable, (codec.encode, codec.decode))):
        raise TypeError(f"{short_repr(codec)} is not a codec: it needs name, wire_id, encode and decode")
    name: Any = codec.name
    wire_id: Any = codec.wire_id
    if type(name) is not str or type(wire_id) is not int or not 0 <= wire_id <= 255:
        raise TypeError(f"{short_repr(codec)} needs a string as its name, and a wire id from 0 to 255")
    return name, wire_id, codec


def filters(result: Any) -> dict[str, type[Filter]]:
    """Return the result of `asyncapy_filters`, checked."""
    found = _named(result)
    for name, value in found.items():
        if not name.isidentifier() or name.startswith("_") or hasattr(Filter, name):
            raise TypeError(f"{name!r} cannot be used as Filters.{name}")
        if not (inspect.isclass(value) and issubclass(value, Filter)):
            raise TypeError(f"{name} is {short_repr(value)}, which is not a subclass of Filter")
    return found


def key_stores(result: Any) -> dict[str, Callable[[str], KeyStore]]:
    """Return the result of `asyncapy_key_stores`, checked."""
    found = _named(result)
    for scheme, value in found.items():
        if not callable(value):
            raise TypeError(f"{scheme} is {short_repr(value)}, which is not a function that opens a key store")
    return found


def contracts(result: Any) -> list[type]:
    """Return the result of `asyncapy_contracts`, checked."""
    refuse_coroutine(result)
    if not isinstance(result, Iterable):
        raise TypeError(f"expected contract classes in a list, got {short_repr(result)}")
    found = list(itertools.islice(result, LIMIT))
    for contract in found:
        if not inspect.isclass(contract) or inspect.isabstract(contract):
            raise TypeError(f"{short_repr(contract)} is not a contract: a class whose abstract methods are defined")
    return found


def refuse_coroutine(result: Any) -> Any:
    """Return the result of a hook that cannot be ``async``, unless it is a coroutine."""
    if inspect.iscoroutine(result):
        result.close()
        raise Mistake(
            f"this hook cannot be async; write 'def' instead of 'async def', or, if {result.__name__!r} is another "
            "function, return the function itself and not the result of a call"
        )
    return result


def _named(result: Any) -> dict[str, Any]:
    refuse_coroutine(result)
    if not isinstance(result, Mapping):
        raise TypeError(f"expected a mapping with names, got {short_repr(result)}")
    found = dict(result)
    for name in found:
        if type(name) is not str:  # a subclass may have other methods
            raise TypeError(f"the name {short_repr(name)} is not a string")
    return found
