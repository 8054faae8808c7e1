"""`counted`: bounds the alternatives that pydantic tries in models that contain themselves.

pydantic tries all members of a union without a discriminator. If two members have a field of that union, each level of
a packet doubles the number of trials: 300 bytes with 40 levels would take days.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asyncapy_typed.core_schemas import Node, called_before, inner_nodes, with_inner

MAX_UNIONS: Final = 1000
"""Unions that may be tried for a packet."""

UNIONS_A_VALUE: Final = 4
"""Unions that may be tried for each value of a packet, if that is more."""


class TooManyAlternatives(Exception):
    """A packet would be compared with too many alternatives. As it is no ValueError, pydantic does not go on."""

    def __init__(self) -> None:
        super().__init__("It is nested too deeply for a union of models without a discriminator")


class UnionCount(threading.local):
    """Counts the unions that are tried for a packet; in each thread, as clients may read answers in several."""

    def __init__(self) -> None:
        self._fields: Any = None
        self._tried = 0
        self._limit = 0

    def begin(self, fields: Any) -> None:
        """Begin to count for a packet with these fields."""
        self._fields = fields
        self._tried = 0
        self._limit = MAX_UNIONS

    def __call__(self, value: Any) -> Any:
        """Count a union, and return the value for it.

        Raises:
            TooManyAlternatives: there were too many.
        """
        self._tried += 1
        if self._tried > self._limit:
            self._limit = UNIONS_A_VALUE * count_values(self._fields)
            if self._tried > self._limit:
                raise TooManyAlternatives
        return value


def counted(schema: Node, count: UnionCount) -> Node | None:
    """Return a schema that accepts the same, and calls ``count`` before each union in models that contain themselves.

    None if there is none.
    """
    found = False

    def with_count(node: Node) -> Node:
        nonlocal found
        made = with_inner(node, with_count)
        if node.get("type") != "union":
            return made
        found = True
        return called_before(count, made)

    recursive = _recursive(schema)
    if not recursive:
        return None
    definitions = [with_count(each) if each["ref"] in recursive else each for each in schema["definitions"]]
    return {**schema, "definitions": definitions} if found else None


def count_values(value: Any, *, limit: float = float("inf")) -> int:
    """Return the number of values in a value, at any depth; any number above ``limit`` if there are more than that."""
    pending, count = [value], 0
    while pending and count <= limit:
        each = pending.pop()
        if isinstance(each, (Mapping, list, tuple)):
            count += len(each)
            pending += each.values() if isinstance(each, Mapping) else each
    return count


def _recursive(schema: Node) -> set[str]:
    """Return the references of the definitions that contain themselves."""
    inside = {each["ref"]: set(_references(each)) for each in schema.get("definitions", ())}
    return {ref for ref in inside if ref in _reachable(ref, inside)}


def _reachable(ref: str, inside: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = [*inside[ref]]
    while pending:
        each = pending.pop()
        if each not in found:
            found.add(each)
            pending += inside.get(each, ())
    return found


def _references(node: Node) -> Iterator[str]:
    """Yield the references to definitions inside a node."""
    if node.get("type") == "definition-ref":
        yield node["schema_ref"]
    for each in inner_nodes(node):
        yield from _references(each)
