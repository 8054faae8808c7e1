"""`Schemas`: the named JSON Schemas of a description. It does not know handlers.

The schemas are those of draft 7, which AsyncAPI 3.0 uses; `as_draft_7` turns newer ones into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

PREFIX: Final = "#/components/schemas/"
REFERENCE: Final = f"{PREFIX}{{model}}"
"""The form of references, for `ModelType.schema`."""

_ONE: Final = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
)
_LISTS: Final = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_MAPS: Final = ("dependentSchemas", "patternProperties", "properties")
_NESTED: Final = {*_ONE, *_LISTS, *_MAPS}


class Schemas:
    """The named schemas of a description: no name is that of two, and equal ones of one name are one.

    Attributes:
        named: the schemas by name, in the order in which they were added.
    """

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}
        self._names: dict[tuple[str, str], str] = {}

    def adopt(self, schema: Any, definitions: Mapping[str, Any], variant: str) -> Any:
        """Add the definitions that a schema refers to, and return it with references to them.

        Args:
            schema: the schema.
            definitions: the schemas that it refers to, by the names in its references.
            variant: is appended to a name that is taken, such as ``"Answer"``; a number if it is empty or taken, too.
        """
        names: dict[str, str] = {}
        added: list[tuple[str, Any]] = []
        for local in reachable(schema, definitions):
            closure = {each: definitions[each] for each in reachable(definitions[local], definitions)}
            name, is_new = self._name(
                _simple_name(local, definitions[local]),
                json.dumps([definitions[local], closure], sort_keys=True),
                variant,
            )
            names[local] = name
            if is_new:
                added.append((name, definitions[local]))
        for name, definition in added:
            self.named[name] = renamed(definition, names)
        return renamed(schema, names)

    def name(self, name: str, schema: Schema, variant: str) -> Schema:
        """Add a schema without definitions of its own, and return a reference to it."""
        found, is_new = self._name(name, json.dumps([schema, {}], sort_keys=True), variant)
        if is_new:
            self.named[found] = schema
        return {"$ref": f"{PREFIX}{found}"}

    def resolve(self, schema: Any) -> Any:
        """Return the schema that one refers to, or itself."""
        while isinstance(schema, dict) and "$ref" in schema:
            schema = self.named[str(schema["$ref"]).removeprefix(PREFIX)]
        return schema

    def _name(self, wanted: str, identity: str, variant: str) -> tuple[str, bool]:
        """Return the name of a schema, and whether it is new."""
        wanted = legal_key(wanted)
        if (known := self._names.get((wanted, identity))) is not None:
            return known, False
        taken = set(self._names.values())
        name = next(each for each in _candidates(wanted, variant) if each not in taken)
        self._names[wanted, identity] = name
        return name, True


def _simple_name(name: str, definition: Any) -> str:
    """Return the name of a class alone, where pydantic puts its module before it: a model has two of this name."""
    title = legal_key(definition.get("title", "")) if isinstance(definition, dict) else ""
    return title if title and re.fullmatch(rf".+__{re.escape(title)}(__\d+)?", name) else name


def legal_key(name: str) -> str:
    """Return a name with the characters that the keys of AsyncAPI may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_") or "_"


def _candidates(name: str, variant: str) -> Iterator[str]:
    yield name
    if variant:
        yield f"{name}{variant}"
    number = 2
    while True:
        yield f"{name}{number}"
        number += 1


def reachable(schema: Any, definitions: Mapping[str, Any]) -> list[str]:
    """Return the names of the definitions that a schema refers to, also by way of others, in their order."""
    found: dict[str, None] = {}
    pending = [schema]
    while pending:
        names = [name for name in references(pending.pop(0)) if name in definitions and name not in found]
        found.update(dict.fromkeys(names))
        pending += [definitions[name] for name in dict.fromkeys(names)]
    return list(found)


def references(schema: Any) -> Iterable[str]:
    """Yield the names that the references of a schema have."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(PREFIX)
        for each in subschemas(schema):
            yield from references(each)


def renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema with other names in its references."""
    if not isinstance(schema, dict):
        return schema
    changed = with_subschemas(schema, lambda each: renamed(each, names))
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].removeprefix(PREFIX)
        changed["$ref"] = f"{PREFIX}{names.get(name, name)}"
    return changed


def subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas within a schema, those of the first level only."""
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, dict):
            yield from value.values()
        elif keyword in _LISTS and isinstance(value, list):
            yield from value
        elif keyword in _ONE:
            yield value


def with_subschemas(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> Schema:
    """Return a schema with its schemas of the first level changed."""

    def changed(keyword: str, value: Any) -> Any:
        if keyword in _MAPS and isinstance(value, dict):
            return {name: change(each) for name, each in value.items()}
        if keyword in _LISTS and isinstance(value, list):
            return [change(each) for each in value]
        return change(value) if keyword in _ONE else value

    return {keyword: changed(keyword, value) for keyword, value in schema.items()}


def as_draft_7(schema: Any) -> Any:
    """Return a schema of draft 2020-12, as pydantic and msgspec make it, as one of draft 7.

    Discriminators are left out, which have another form in AsyncAPI, and values that JSON has not, such as infinity.
    """
    if not isinstance(schema, Mapping):
        return schema
    changed = with_subschemas(schema, as_draft_7)
    changed.pop("discriminator", None)
    if "prefixItems" in changed:
        others = changed.pop("items", None)
        changed["items"] = changed.pop("prefixItems")
        if others is not None:
            changed["additionalItems"] = others
    changed = {keyword: each for keyword, each in changed.items() if keyword in _NESTED or _is_json(each)}
    if "$ref" in changed and len(changed) > 1:  # its neighbours are ignored in draft 7
        changed["allOf"] = [{"$ref": changed.pop("$ref")}, *changed.get("allOf", [])]
    return changed


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
