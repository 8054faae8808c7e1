"""A Python module of models for the clients of a server, made of its description.

The models need asyncapy-typed, and not the server. A field that is not required and has no simple default is left out
of a packet unless it is set. The server checks the limits of values; the models do not repeat them.
"""

from __future__ import annotations

import builtins
import json
import keyword
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from asyncapy_core.errors import ErrorCode
from asyncapy_typed.client_source import ClientOperation, ClientSource, legal_name, legal_names
from asyncapy_typed.described_handlers import camel_case
from asyncapy_typed.python_types import ANY, PythonTypes
from asyncapy_typed.requests import Request, StreamRequest
from asyncapy_typed.schemas import PREFIX, reachable

IMPORTS: Final = """\
from __future__ import annotations

import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from asyncapy_typed import Binary, Request, StreamRequest


def _is_none(value: object) -> bool:
    return value is None
"""
_IMPORTED: Final = frozenset(
    {
        "Any", "BaseModel", "Binary", "ConfigDict", "Field", "Literal", "Request", "StreamRequest", "TypeAliasType",
        "UUID", "annotations", "datetime", "_is_none",
    }
)  # fmt: skip
_ANNOTATIONS: Final = frozenset({"bool", "dict", "float", "int", "list", "object", "str", "tuple"})
_RESERVED: Final = _IMPORTED | frozenset(dir(builtins)) | frozenset(keyword.kwlist)
_OF_MODELS: Final = frozenset(dir(BaseModel)) | frozenset(dir(Request)) | frozenset(dir(StreamRequest))
_OF_ATTRIBUTES: Final = _IMPORTED | _ANNOTATIONS | _OF_MODELS | frozenset(keyword.kwlist)
_STANDARD: Final = frozenset(ErrorCode)
_PROTECTED: Final = ("model_validate", "model_dump")
"""Beginnings of names of which pydantic warns."""


def python_client(description: Mapping[str, Any]) -> str:
    """Return a module of Python with a pydantic model for each model, and a `Request` for each operation of a server.

    ``await client.call(Read(id=7))`` returns a ``Book``, as with models that are shared with the server. A value that
    the generator cannot express is ``Any``. Fields that are secrets, such as API keys, are given with ``extra``.

    Args:
        description: the result of `asyncapy_typed.describe.describe_server`.
    """
    source = ClientSource(description)
    generator = _Generator(source)
    title = _one_line(source.title)
    head = _docstring(f"Models for clients of {title}. Written by `asyncapy client`: do not change it by hand.")
    parts = [IMPORTS, *generator.models(), *generator.requests()]
    return f"# ruff: noqa\n{head}\n" + "\n\n".join(parts)


class _Generator:
    """Makes the classes of a module.

    Args:
        source: the schemas and operations.
    """

    def __init__(self, source: ClientSource) -> None:
        self._source = source
        requests = [each for operation in source.operations for each in source.packets(operation.request)]
        packets = {name_of_reference(each) for each in requests} - {""}
        used = _used(source, packets)
        self._names = legal_names([name for name in source.schemas if name in used or name in packets], _RESERVED)
        self._models = [name for name in source.schemas if name in used]
        self._types = PythonTypes(source, self._names)
        self._taken = {*_RESERVED, *self._names.values()}

    def models(self) -> Iterator[str]:
        """Yield the models."""
        for name in self._models:
            schema = self._source.schemas[name]
            if self._types.is_class(schema):
                yield self._class(f"class {self._names[name]}(BaseModel):", schema, frozenset())
            else:
                text = f"{self._names[name]} = TypeAliasType({self._names[name]!r}, {self._types.type_of(schema)!r})\n"
                yield text

    def requests(self) -> Iterator[str]:
        """Yield the classes of requests."""
        for operation in self._source.operations:
            base = f"{'StreamRequest' if operation.streams else 'Request'}[{self._answer(operation)}]"
            for member in self._source.packets(operation.request):
                schema = self._source.resolve(member)
                found = operation.operation or _selecting(schema)
                if found is None:
                    yield (
                        f"# {_one_line(operation.name)} has no name in a field of its packets: send a mapping with\n"
                        "# client.request or client.stream\n"
                    )
                    break
                yield self._request(operation, member, schema, found, base)

    def _request(
        self, operation: ClientOperation, member: Any, schema: dict[str, Any], found: tuple[str, str], base: str
    ) -> str:
        field, op = found
        key = name_of_reference(member)
        name = self._names.get(key) if key not in self._models else None
        if name is None:
            name = legal_name(f"{camel_case(operation.name)}Request", self._taken)
            self._taken.add(name)
        arguments = [base, f"op={_literal(op)}"]
        arguments += [f"field={_literal(field)}"] if field != "op" else []
        codes = [code for failure in operation.failures[:-1] for code in self._codes(failure)]
        arguments += [f"errors=[{', '.join(map(_literal, codes))}]"] if codes else []
        text = operation.text or str(schema.get("description", ""))
        return self._class(
            f"class {name}({', '.join(arguments)}):", {**schema, "description": text}, operation.secrets | {field}
        )

    def _codes(self, failure: Any) -> list[str]:
        codes = self._source.resolve(failure)["properties"]["error"].get("enum", [])
        return [code for code in codes if code not in _STANDARD]

    def _answer(self, operation: ClientOperation) -> str:
        """Return the type of the answers: models, None, or a mapping."""
        types: dict[str, None] = {}
        for member in self._source.members(operation.answer):
            if self._source.is_success(member):
                types["None"] = None
            elif "$ref" in member and self._types.is_class(self._source.resolve(member)):
                types[self._types.type_of(member)] = None
            else:
                return "dict[str, Any]"
        return " | ".join(types)

    def _class(self, head: str, schema: Mapping[str, Any], left_out: frozenset[str]) -> str:
        """Return a class with the properties of a schema, but for those that are left out."""
        lines = [head]
        if isinstance(schema.get("description"), str) and schema["description"]:
            lines += ["    " + _docstring(schema["description"], "    ").rstrip("\n"), ""]
        reserved = {*_OF_ATTRIBUTES, *self._names.values()}
        fields: list[str] = []
        has_other_name = False
        for name, each in schema.get("properties", {}).items():
            if name in left_out:
                continue
            attribute = _attribute(name, reserved, schema["properties"])
            reserved.add(attribute)
            has_other_name = has_other_name or attribute != name
            fields.append(f"    {self._field(attribute, name, each, is_required=name in schema.get('required', ()))}")
        options = ["extra='allow'"] if schema.get("additionalProperties", False) is not False else []
        options += ["validate_by_alias=True", "validate_by_name=True"] if has_other_name else []
        if options:
            lines += [f"    model_config = ConfigDict({', '.join(options)})", ""]
        lines += fields
        if not fields:
            lines = lines[:-1] if lines[-1] == "" else [*lines, "    pass"]
        return "\n".join(lines) + "\n"

    def _field(self, attribute: str, name: str, schema: Any, *, is_required: bool) -> str:
        type_ = self._types.type_of(schema)
        options: list[str] = []
        if not is_required:
            default = self._types.default(schema, type_)
            if default is None:
                default = "None"
                options.append("exclude_if=_is_none")
                type_ = type_ if type_ == ANY or type_.endswith("None") else f"{type_} | None"
            options.insert(0, default if default.startswith("default_factory") else f"default={default}")
        if attribute != name:
            options += [f"validation_alias={_literal(name)}", f"serialization_alias={_literal(name)}"]
        if len(options) == 1 and options[0].startswith("default="):
            value = f" = {options[0].removeprefix('default=')}"
        else:
            value = f" = Field({', '.join(options)})" if options else ""
        note = "  # the description does not express its type" if type_ == ANY else ""
        return f"{attribute}: {type_}{value}{note}"


def name_of_reference(schema: Mapping[str, Any]) -> str:
    """Return the name of the schema that one refers to; empty if it refers to none."""
    return str(schema.get("$ref", "")).removeprefix(PREFIX)


def _used(source: ClientSource, packets: Iterable[str]) -> set[str]:
    """Return the names of the schemas to which packets and answers refer, and that are no packets or failures."""
    found: set[str] = set()
    for name in packets:
        found.update(reachable(source.schemas[name], source.schemas))
    for operation in source.operations:
        answers = [each for each in source.members(operation.answer) if not source.is_success(each)]
        found.update(name for each in answers for name in reachable(each, source.schemas))
    return found


def _selecting(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return a field, and the text that it must have, if a filter of the handler demands it."""
    for name, each in schema.get("properties", {}).items():
        if name in schema.get("required", ()) and isinstance(each, dict) and isinstance(each.get("const"), str):
            return (name, each["const"]) if each["const"] else None
    return None


def _attribute(name: str, reserved: Collection[str], names: Collection[str]) -> str:
    """Return the name of an attribute for a field: the same, unless it cannot be one of a model.

    Args:
        name: the name of the field.
        reserved: the names that no attribute may have.
        names: the names of all fields; an attribute of one has not the name of another.
    """
    plain = legal_name(name, ()).lstrip("_") or "field"
    if plain[0].isdigit() or plain.startswith(_PROTECTED):
        plain = f"field_{plain}"
    return plain if plain == name and plain not in reserved else legal_name(plain, {*reserved, *names})


def _literal(text: str) -> str:
    return json.dumps(text)


def _docstring(text: str, indent: str = "") -> str:
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    escaped = "".join(each if each.isprintable() or each == "\n" else " " for each in escaped)
    lines = escaped.splitlines()
    body = f"\n{indent}".join(lines).replace(f"\n{indent}\n", "\n\n")
    body += f"\n{indent}" if len(lines) > 1 else " " if body.endswith('"') else ""
    return f'"""{body}"""\n'


def _one_line(text: str) -> str:
    return " ".join(text.split())
