"""`ClientSource`: the schemas and operations of a description, as generators of clients need them.

It reads the result of `describe_server`, and no other descriptions of AsyncAPI. The names in generated code are made
here, too: no name is that of two things, nor a word that the language has reserved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asyncapy_typed.schemas import PREFIX

SUCCESS: Final = {"status": {"const": "success"}}
"""The properties of the answer that stands for None."""


@dataclass(frozen=True, slots=True)
class ClientOperation:
    """An operation of a description.

    Attributes:
        name: the name of the operation, or that of the function of its handler.
        key: its key in the description.
        operation: the field and the name of the operation, or None.
        text: its summary and description.
        streams: whether it has any number of answers.
        request, answer: the schemas of packets and answers.
        failures: the schemas of the failures.
        secrets: the fields that are secrets.
    """

    name: str
    key: str
    operation: tuple[str, str] | None
    text: str
    streams: bool
    request: Any
    answer: Any
    failures: list[Any]
    secrets: frozenset[str]


class ClientSource:
    """The schemas and operations of a description.

    Args:
        description: the result of `describe_server`.

    Attributes:
        title: the name of the application, and its version.
        schemas: the schemas by their names in the description.
        operations: the operations.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        info = description["info"]
        self.title: str = f"{info['title']} {info['version']}"
        self.schemas: dict[str, Any] = description["components"]["schemas"]
        self._description = description
        self.operations: list[ClientOperation] = [
            self._operation(key, each) for key, each in description["operations"].items()
        ]

    def resolve(self, schema: Any) -> Any:
        """Return the schema that one refers to, or itself."""
        while isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            schema = self.schemas[schema["$ref"].removeprefix(PREFIX)]
        return schema

    def members(self, schema: Any, depth: int = 16) -> list[Any]:
        """Return the members of a union, with those of unions that it refers to; otherwise the schema itself."""
        found = self.resolve(schema)
        if depth and isinstance(found, dict):
            for combination in ("anyOf", "oneOf"):
                if combination in found:
                    return [member for each in found[combination] for member in self.members(each, depth - 1)]
        return [schema]

    def packets(self, schema: Any) -> list[Any]:
        """Return the schemas of objects of which a packet is one."""
        return self._objects(schema, 16) or [schema]

    def _objects(self, schema: Any, depth: int) -> list[Any]:
        found = self.resolve(schema)
        if not isinstance(found, dict) or not depth:
            return []
        if "properties" in found:
            return [schema]
        parts = [*found.get("anyOf", ()), *found.get("allOf", ())]
        return [each for part in parts for each in self._objects(part, depth - 1)]

    def is_success(self, schema: Any) -> bool:
        """Return True for the schema of the answer that stands for None."""
        found = self.resolve(schema)
        return isinstance(found, dict) and found.get("properties") == SUCCESS

    def _operation(self, key: str, each: Mapping[str, Any]) -> ClientOperation:
        request, *_ = map(self._payload, each["messages"])
        answer, *failures = map(self._payload, each["reply"]["messages"])
        operation = each.get("x-asyncapy-operation")
        schemes = self._description["components"]["securitySchemes"]
        secrets = (
            schemes[scheme["$ref"].rpartition("/")[2]]["x-asyncapy-field"] for scheme in each.get("security", ())
        )
        return ClientOperation(
            name=each["title"],
            key=key,
            operation=None if operation is None else (operation["field"], operation["name"]),
            text="\n\n".join(each[part] for part in ("summary", "description") if part in each),
            streams=each.get("x-asyncapy-stream", False),
            request=request,
            answer=answer,
            failures=failures,
            secrets=frozenset(secrets),
        )

    def _payload(self, reference: Mapping[str, str]) -> Any:
        _, _, channel, _, message = reference["$ref"].split("/")
        return self._description["channels"][channel]["messages"][message]["payload"]


def legal_names(names: Iterable[str], reserved: Collection[str]) -> dict[str, str]:
    """Return an identifier for each name, the same ones for the same names.

    Args:
        names: the names.
        reserved: the identifiers that are not to be used.
    """
    found: dict[str, str] = {}
    taken = set(reserved)
    for name in names:
        identifier = legal_name(name, taken)
        taken.add(identifier)
        found[name] = identifier
    return found


def legal_name(name: str, taken: Collection[str]) -> str:
    """Return an identifier of ASCII characters that is not taken: the name itself, if it is one."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name) or "_"
    plain = f"_{plain}" if plain[0].isdigit() else plain
    identifier, number = plain, 1
    while identifier in taken:
        number += 1
        identifier = f"{plain}_" if number == 2 else f"{plain}_{number}"
    return identifier


def union(types: Iterable[str], unknown: str, whole: Callable[[str], str] = str) -> str:
    """Return a union of types without repetitions; the unknown type if one of them is unknown or there are none."""
    listed = list(dict.fromkeys(types))
    if not listed or unknown in listed:
        return unknown
    return " | ".join(map(whole, listed)) if len(listed) > 1 else listed[0]
