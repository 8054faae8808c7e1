"""Schemas of pydantic-core, as trees: the bytes in them, and a form that bounds the number of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asyncapy_typed.binary import from_base64

_COLLECTIONS: Final = frozenset({"list", "set", "frozenset", "tuple", "dict", "generator"})
"""The kinds of nodes with any number of values, each of which may be an error."""

_FIELDS: Final = frozenset({"model-fields", "typed-dict", "dataclass-args"})
"""The kinds of nodes with named fields."""

MAX_OTHERS: Final = 100
"""How many fields that a model does not have are named one by one, if it forbids them."""

_NO_SCHEMAS: Final = frozenset({"config", "default", "expected", "members", "metadata", "serialization"})
"""The parts of a schema that are values, or say nothing about input."""


def bounded(node: Any, *, forbids: bool = False) -> Any:
    """Return a schema that accepts the same, and stops at the first error of each list, set, tuple and map.

    Without this, a packet of 1 MiB with 300,000 wrong items costs seconds. Models that forbid other fields stop if
    there are more than `MAX_OTHERS` of these.

    Args:
        node: the schema, or a part of it.
        forbids: whether the settings of the model around it forbid other fields.
    """
    if isinstance(node, (list, tuple)):
        return type(node)(bounded(each, forbids=forbids) for each in node)
    if not isinstance(node, dict):
        return node
    kind, config = node.get("type"), node.get("config")
    is_schema = isinstance(kind, str)  # otherwise it is a map of fields, which have any names
    kind, kept = (kind, _NO_SCHEMAS) if is_schema else (None, ())
    behavior = config.get("extra_fields_behavior") if isinstance(config, dict) else None
    forbids = forbids if behavior is None else behavior == "forbid"
    inner = forbids and kind not in _FIELDS
    made = {name: each if name in kept else bounded(each, forbids=inner) for name, each in node.items()}
    if kind in _COLLECTIONS:
        made["fail_fast"] = True
    if kind in _FIELDS and node.get("extra_behavior", "forbid" if forbids else None) == "forbid":
        check = _few_others(len(node["fields"]))
        return {"type": "function-before", "function": {"type": "no-info", "function": check}, "schema": made}
    return made


def _few_others(own: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > own + MAX_OTHERS:
            raise ValueError(f"it has {len(value)} fields, and the model has {own}")
        return value

    return check


def bytes_in(node: Any) -> Iterable[str]:
    """Yield for each bytes in a schema of pydantic-core: ``"binary"`` for `Binary`, ``"plain"`` for others.

    Bytes that a function of the model validates are none of both: such a function knows the form of its input.
    """
    if isinstance(node, (list, tuple)):
        for each in node:
            yield from bytes_in(each)
    elif isinstance(node, dict):
        inner = node.get("schema")
        if str(node.get("type")).startswith("function-") and isinstance(inner, dict) and inner.get("type") == "bytes":
            if node["function"].get("function") is from_base64:
                yield "binary"
        elif node.get("type") == "bytes":
            yield "plain"
        else:
            for name, each in node.items():
                if name not in _NO_SCHEMAS or not isinstance(node.get("type"), str):
                    yield from bytes_in(each)


def forbids_others(schema: Any) -> bool:
    """Return True if a model of this schema, or one of a union, refuses fields that it does not have."""
    found = False

    def note(node: Mapping[str, Any]) -> None:
        nonlocal found
        config = node.get("config") or {}
        found = found or "forbid" in (config.get("extra_fields_behavior"), node.get("extra_behavior"))

    for node in _outer_nodes(schema):
        note(node)
    return found


def _outer_nodes(schema: Any) -> Iterable[Mapping[str, Any]]:
    """Return the nodes of a schema that describe the fields of the packet itself, and not those of nested models."""
    definitions = {each["ref"]: each for each in schema.get("definitions", ()) if "ref" in each}
    pending, seen = [schema], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.get("type") == "definition-ref":
            pending.append(definitions[node["schema_ref"]])
        elif isinstance(node.get("schema"), dict):
            pending.append(node["schema"])
        if node.get("type") == "union":
            pending += [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
