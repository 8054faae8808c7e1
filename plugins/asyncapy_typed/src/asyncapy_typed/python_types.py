"""`PythonTypes`: the annotations of a generated Python module for the schemas of a description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asyncapy_typed.client_source import ClientSource, union
from asyncapy_typed.schemas import PREFIX

ANY: Final = "Any"

_NAMED: Final = {"string": "str", "number": "float", "integer": "int", "boolean": "bool", "null": "None"}
_FORMATS: Final = {
    "date": "datetime.date",
    "date-time": "datetime.datetime",
    "duration": "datetime.timedelta",
    "time": "datetime.time",
    "uuid": "UUID",
}
_OF_CLASSES: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "examples", "default"}
)


class PythonTypes:
    """The annotations for schemas.

    Args:
        source: the schemas.
        names: the identifiers of the classes and aliases for the named schemas.
    """

    def __init__(self, source: ClientSource, names: Mapping[str, str]) -> None:
        self._source = source
        self._names = names

    def is_class(self, schema: Any) -> bool:
        """Return True for a schema of objects that becomes a class."""
        if not isinstance(schema, dict) or not set(schema) <= _OF_CLASSES:
            return False
        if "properties" in schema:
            return bool(schema.get("type", "object") == "object")
        return bool(schema.get("type") == "object") and not isinstance(schema.get("additionalProperties"), dict)

    def type_of(self, schema: Any) -> str:
        """Return the annotation for the values that a schema allows, or for more."""
        if not isinstance(schema, dict):
            return ANY
        if isinstance(schema.get("$ref"), str):
            return self._names[schema["$ref"].removeprefix(PREFIX)]
        return next((each for each in self._parts(schema) if each != ANY), ANY)

    def default(self, schema: Any, type_: str) -> str | None:
        """Return the default of a property as Python writes it, or None if it has none that is of its type."""
        if not isinstance(schema, dict) or "default" not in schema:
            return None
        value = schema["default"]
        if value is None:
            return "None" if type_ in (ANY, "None") or type_.endswith(" | None") else None
        kind = type(value)
        if value in ([], {}) and type_.startswith(f"{kind.__name__}["):
            return f"default_factory={kind.__name__}"
        choices = [*type_.split(" | ")]
        if kind in (str, int, float, bool) and kind.__name__ in choices:
            return _written(value)
        return _written(value) if self._has_literal(schema, value) else None

    def _has_literal(self, schema: Any, value: Any) -> bool:
        """Return True if a schema lists a value."""
        found = self._source.resolve(schema)
        if not isinstance(found, dict) or not isinstance(value, (str, int, bool)):
            return False
        listed = [found["const"]] if "const" in found else found.get("enum", [])
        if all(map(_is_literal, listed)) and any(type(each) is type(value) and each == value for each in listed):
            return True
        parts = [each for name in ("allOf", "anyOf", "oneOf") for each in found.get(name, ())]
        return any(self._has_literal(each, value) for each in parts)

    def _parts(self, schema: dict[str, Any]) -> Iterator[str]:
        """Yield annotations, each of which is right."""
        if "const" in schema or "enum" in schema:
            listed = [schema["const"]] if "const" in schema else schema["enum"]
            if listed and all(map(_is_literal, listed)):
                yield f"Literal[{', '.join(map(_written, listed))}]" if listed != [None] else "None"
        for each in schema.get("allOf", ()):
            yield self.type_of(each)
        for combination in ("anyOf", "oneOf"):
            if combination in schema:
                yield _union(self.type_of(each) for each in schema[combination])
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is not None:
            yield _union(self._of_kind(kind, schema) for kind in (kinds if isinstance(kinds, list) else [kinds]))

    def _of_kind(self, kind: str, schema: dict[str, Any]) -> str:
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            others = schema.get("additionalProperties", True)
            return f"dict[str, {ANY if 'properties' in schema else self.type_of(others)}]"
        if kind == "string":
            if schema.get("contentEncoding") == "base64" and "format" not in schema:
                return "Binary"
            return _FORMATS.get(str(schema.get("format")), "str")
        return _NAMED.get(kind, ANY)

    def _array(self, schema: dict[str, Any]) -> str:
        items = schema.get("items", True)
        if not isinstance(items, list):
            return f"list[{self.type_of(items)}]"
        size = len(items)
        if schema.get("minItems") == size and (
            schema.get("additionalItems") is False or schema.get("maxItems") == size
        ):
            return f"tuple[{', '.join(map(self.type_of, items)) or '()'}]"
        return f"list[{ANY}]"


def _union(types: Iterator[str]) -> str:
    """Return a union, with None at its end."""
    listed = list(types)
    members = [each for each in listed if each != "None"]
    if len(members) == len(listed) or not members:
        return union(listed, ANY)
    found = union(members, ANY)
    return found if found == ANY else f"{found} | None"


def _is_literal(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, bool))


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
