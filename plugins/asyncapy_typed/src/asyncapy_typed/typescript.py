"""TypeScript interfaces for the clients of a server, made of its description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from asyncapy_typed.client_source import ClientOperation, ClientSource, legal_names, union
from asyncapy_typed.schemas import PREFIX

UNKNOWN: Final = "unknown"

_RESERVED: Final = frozenset(
    """
    Array Operations OperationName Record any arguments as async await bigint boolean break case catch class const
    continue debugger default delete do else enum eval export extends false finally for function if implements import
    in infer instanceof interface keyof let never new null number object package private protected public readonly
    return static string super switch symbol this throw true try type typeof undefined unique unknown var void while
    with yield
    """.split()  # noqa: SIM905  # a list of words is easier to read
)
_NAMED: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def typescript(description: Mapping[str, Any]) -> str:
    """Return a module of TypeScript with an interface for each model, request and answer of a server.

    ``Operations`` maps the name of each operation to the types of its packets. A value that the types of TypeScript
    cannot express is ``unknown``.

    Args:
        description: the result of `asyncapy_typed.describe.describe_server`.
    """
    source = ClientSource(description)
    types = _Types(legal_names(source.schemas, _RESERVED))
    parts = [f"// The types of {one_line(source.title)}. Written by `asyncapy client`: do not change it by hand.\n"]
    parts += [types.declaration(name, schema) for name, schema in source.schemas.items()]
    names = operations_by_name(source.operations)
    parts.append(
        "/** The types of each operation, by its name. */\n"
        "export interface Operations {\n"
        + "".join(_operation(types, name, each) for name, each in names.items())
        + "}\n"
    )
    parts.append("export type OperationName = keyof Operations;\n")
    return "\n".join(parts)


def operations_by_name(operations: list[ClientOperation]) -> dict[str, ClientOperation]:
    """Return the operations by their names; by their keys in the description where another one has the name."""
    found: dict[str, ClientOperation] = {}
    for each in operations:
        found[each.key if each.name in found else each.name] = each
    return found


def _operation(types: _Types, name: str, operation: ClientOperation) -> str:
    failure = union((types.type_of(each) for each in operation.failures), UNKNOWN)
    lines = [
        f"  {property_name(name)}: {{",
        f"    request: {types.type_of(operation.request)};",
        f"    answer: {types.type_of(operation.answer)};",
        f"    failure: {failure};",
        f"    streams: {json.dumps(operation.streams)};",
        "  };",
    ]
    return comment(operation.text, "  ") + "\n".join(lines) + "\n"


class _Types:
    """The types of schemas.

    Args:
        names: the identifiers of the named schemas.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def declaration(self, name: str, schema: Any) -> str:
        """Return the declaration of a named schema."""
        identifier = self._names[name]
        text = comment(_text_of(schema), "")
        if isinstance(schema, dict) and set(schema) <= _OF_INTERFACES and "properties" in schema:
            return f"{text}export interface {identifier} {self._members(schema, '')}\n"
        return f"{text}export type {identifier} = {self.type_of(schema)};\n"

    def type_of(self, schema: Any, indent: str = "") -> str:
        """Return the type of the values that a schema allows, or a wider one."""
        if not isinstance(schema, dict):
            return "never" if schema is False else UNKNOWN
        parts = list(self._parts(schema, indent))
        known = [part for part in dict.fromkeys(parts) if part != UNKNOWN]
        return " & ".join(map(_enclosed, known)) if len(known) > 1 else known[0] if known else UNKNOWN

    def _parts(self, schema: dict[str, Any], indent: str) -> Iterator[str]:
        """Yield types of which a value has all."""
        if isinstance(schema.get("$ref"), str):
            yield self._names[schema["$ref"].removeprefix(PREFIX)]
            return
        for each in schema.get("allOf", ()):
            yield self.type_of(each, indent)
        for combination in ("anyOf", "oneOf"):
            if combination in schema:
                yield union((self.type_of(each, indent) for each in schema[combination]), UNKNOWN)
        if "const" in schema or "enum" in schema:
            yield union(map(_literal, [schema["const"]] if "const" in schema else schema["enum"]), UNKNOWN)
            return
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is not None:
            listed = kinds if isinstance(kinds, list) else [kinds]
            yield union((self._of_kind(kind, schema, indent) for kind in listed), UNKNOWN)

    def _of_kind(self, kind: str, schema: dict[str, Any], indent: str) -> str:
        if kind == "array":
            return self._array(schema, indent)
        if kind != "object":
            return _NAMED.get(kind, UNKNOWN)
        if "properties" in schema:
            return self._members(schema, indent)
        others = schema.get("additionalProperties", True)
        return f"Record<string, {self.type_of(others, indent)}>"

    def _array(self, schema: dict[str, Any], indent: str) -> str:
        items = schema.get("items", True)
        if not isinstance(items, list):
            return f"{_enclosed(self.type_of(items, indent))}[]"
        least = schema.get("minItems", 0)
        parts = [
            self.type_of(each, indent) if index < least else f"{_enclosed(self.type_of(each, indent))}?"
            for index, each in enumerate(items)
        ]
        others = schema.get("additionalItems", True)
        if others is not False and schema.get("maxItems", len(items) + 1) > len(items):
            parts.append(f"...{_enclosed(self.type_of(others, indent))}[]")
        return f"[{', '.join(parts)}]"

    def _members(self, schema: dict[str, Any], indent: str) -> str:
        """Return the members of an object, in braces."""
        inner = f"{indent}  "
        required = schema.get("required", ())
        lines = []
        for name, each in schema["properties"].items():
            mark = "" if name in required else "?"
            lines.append(
                f"{comment(_text_of(each), inner)}{inner}{property_name(name)}{mark}: {self.type_of(each, inner)};\n"
            )
        if schema.get("additionalProperties", False) is not False or "patternProperties" in schema:
            lines.append(f"{inner}[key: string]: unknown;\n")
        return "{\n" + "".join(lines) + indent + "}" if lines else "Record<string, unknown>"


_OF_INTERFACES: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "examples", "default"}
)


def property_name(name: str) -> str:
    """Return a name as that of a property: quoted, unless it is an identifier."""
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name)


def comment(text: str, indent: str) -> str:
    """Return a documentation comment; nothing for an empty text."""
    lines = text.replace("*/", "*\\/").splitlines()
    if not lines:
        return ""
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines) + f"{indent} */\n"


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def _text_of(schema: Any) -> str:
    if not isinstance(schema, dict):
        return ""
    parts = [schema["description"]] if isinstance(schema.get("description"), str) else []
    if schema.get("contentEncoding"):
        parts.append(f"In {schema['contentEncoding']}.")
    if isinstance(schema.get("format"), str):
        parts.append(f"A text of the format {schema['format']}.")
    if "not" in schema:
        parts.append("The type does not express all values that are refused.")
    return " ".join(parts)


def _literal(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, (str, int, float, bool)) else UNKNOWN


def _enclosed(type_: str) -> str:
    """Return a type in parentheses if it is a union or an intersection."""
    return f"({type_})" if re.search(r"[|&]", type_) else type_
