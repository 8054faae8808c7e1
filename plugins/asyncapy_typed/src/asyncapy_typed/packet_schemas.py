"""The schema of the packets of one handler, made of those of its model and its filters. It does not know either.

A packet passes if it passes all of them. A schema of several ``allOf`` would say so, but a part that refuses other
fields would refuse those of the other parts, and generated clients want one object. So the properties are joined.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from asyncapy_typed.schemas import PREFIX, Schema

MAX_ALTERNATIVES: Final = 16
"""The most objects of a schema for one of several; if there are more, the parts are not joined."""

_JOINED: Final = {"type", "properties", "required", "additionalProperties"}
_TEXTS: Final = {"title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly"}


def alternatives(schema: Any, definitions: Mapping[str, Any], depth: int = 16) -> list[Schema] | None:
    """Return the objects of which a packet may be one, or None if the schema has another form.

    Args:
        schema: a schema of objects.
        definitions: the schemas that it refers to, by name.
        depth: the most references and combinations within each other.
    """
    if not isinstance(schema, Mapping) or not depth:
        return None
    others = {name: each for name, each in schema.items() if name not in _TEXTS and not name.startswith("x-")}
    if "$ref" in others:
        found = definitions.get(str(others.pop("$ref")).removeprefix(PREFIX))
        return None if others else alternatives(found, definitions, depth - 1)
    for combination in ("anyOf", "oneOf"):
        if set(others) == {combination}:
            parts = [alternatives(each, definitions, depth - 1) for each in others[combination]]
            if None in parts:
                return None
            return [each for part in parts if part is not None for each in part]
    if set(others) == {"allOf"}:
        return joined([alternatives(each, definitions, depth - 1) for each in others["allOf"]])
    if set(others) <= _JOINED and others.get("type", "object") == "object":
        return [{name: each for name, each in schema.items() if name in _JOINED or name in ("title", "description")}]
    return None


def joined(parts: Sequence[list[Schema] | None]) -> list[Schema] | None:
    """Return the objects that pass all parts, or None if one part is None, or if there are too many."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or math.prod(map(len, known)) > MAX_ALTERNATIVES:
        return None
    return [_join(choice) for choice in itertools.product(*known)]


def _join(parts: Iterable[Schema]) -> Schema:
    """Return the object that has the properties of all parts."""
    result: Schema = {"type": "object"}
    properties: dict[str, Any] = {}
    required: dict[str, None] = {}
    for part in parts:
        for name in ("title", "description"):
            if name in part:
                result.setdefault(name, part[name])
        for name, each in part.get("properties", {}).items():
            properties[name] = both(properties[name], each) if name in properties else each
        required.update(dict.fromkeys(part.get("required", ())))
        if "additionalProperties" in part and result.get("additionalProperties") is not False:
            result["additionalProperties"] = part["additionalProperties"]
    result["properties"] = properties
    if required:
        result["required"] = list(required)
    if result.get("additionalProperties") is True:
        del result["additionalProperties"]
    return result


def both(one: Any, other: Any) -> Any:
    """Return the schema of values that pass both."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other if one is True else one if other is True else {"allOf": [one, other]}
    if one == other:
        return one
    clash = {name for name in one.keys() & other.keys() if name not in _TEXTS and one[name] != other[name]}
    if clash or ("$ref" in one and other.keys() - _TEXTS) or ("$ref" in other and one.keys() - _TEXTS):
        return {"allOf": [one, other]}
    result = {**other, **one}
    if "$ref" in result and len(result) > 1:
        result = {
            **{name: each for name, each in result.items() if name != "$ref"},
            "allOf": [{"$ref": result["$ref"]}],
        }
    return result


def secrets(schema: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a filter that are secrets, each with its description."""
    for part in _asserted(schema):
        for name, each in part.get("properties", {}).items():
            if isinstance(each, Mapping) and each.get("writeOnly") is True:
                yield name, str(each.get("description", "a secret"))


def errors(schema: Any) -> Iterator[str]:
    """Yield the codes of the failures that a filter answers with."""
    for part in _asserted(schema):
        yield from map(str, part.get("x-errors", ()))


def _asserted(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a schema, and those that it combines with ``&`` and ``|``."""
    if isinstance(schema, Mapping):
        yield schema
        for combination in ("allOf", "anyOf", "oneOf"):
            for each in schema.get(combination, ()):
                yield from _asserted(each)


def without_extensions(schema: Any) -> Any:
    """Return the schema of a filter without ``x-errors``, also in those that it combines."""
    if not isinstance(schema, Mapping):
        return schema
    changed = {name: each for name, each in schema.items() if name != "x-errors"}
    for combination in ("allOf", "anyOf", "oneOf"):
        if combination in changed:
            changed[combination] = [without_extensions(each) for each in changed[combination]]
    if "not" in changed:
        changed["not"] = without_extensions(changed["not"])
    return changed
