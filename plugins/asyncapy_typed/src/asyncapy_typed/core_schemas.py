"""Schemas of pydantic-core, as trees: questions about them, and forms for packets that bound the number of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from asyncapy_typed.binary import from_base64

Node = Mapping[str, Any]
"""A schema of pydantic-core, or a part of one, such as a field of a model: a mapping with a ``"type"``."""

_INNER: Final = frozenset(
    """
    schema fields choices definitions items_schema keys_schema values_schema extras_schema extras_keys_schema steps
    lax_schema strict_schema json_schema python_schema arguments_schema var_args_schema var_kwargs_schema
    """.split()  # noqa: SIM905  # a list of words is easier to read
)
"""The names under which a node has nodes that validate. Under others, it has values of any form, such as a default."""

_COLLECTIONS: Final = frozenset({"list", "set", "frozenset", "tuple", "dict", "generator"})
"""The kinds of nodes with any number of values, each of which may be an error."""

_FIELDS: Final = frozenset({"model-fields", "typed-dict", "dataclass-args"})
"""The kinds of nodes with named fields."""

MAX_OTHERS: Final = 100
"""How many fields that a model does not have are named one by one, if it forbids them."""


def with_inner(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return a node in which the nodes directly inside are changed by a function."""
    return {name: _changed(each, change) if name in _INNER else each for name, each in node.items()}


def inner_nodes(node: Node) -> list[Node]:
    """Return the nodes directly inside a node."""
    found: list[Node] = []

    def note(each: Node) -> Node:
        found.append(each)
        return each

    with_inner(node, note)
    return found


def _changed(part: Any, change: Callable[[Node], Node]) -> Any:
    if isinstance(part, list):
        return [_changed(each, change) for each in part]
    if isinstance(part, tuple):  # a choice of a union, and its label
        return (change(part[0]), *part[1:])
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("type"), str):
        return change(part)
    return {name: _changed(each, change) for name, each in part.items()}  # the fields, or choices, by name


def called_before(function: Callable[[Any], Any], node: Node) -> Node:
    """Return a node that calls a function with each value before another node validates it.

    References to that node are references to the new one.
    """
    inner = {name: each for name, each in node.items() if name != "ref"}
    outer = {"type": "function-before", "function": {"type": "no-info", "function": function}, "schema": inner}
    return {**outer, "ref": node["ref"]} if "ref" in node else outer


def finite(node: Node) -> Node:
    """Return a schema in which floats are finite, as all numbers in packets, unless their settings allow others.

    pydantic makes a float of the text ``"NaN"``, which no answer can have.
    """
    if (node.get("config") or {}).get("allow_inf_nan"):
        return node
    made = with_inner(node, finite)
    return {"allow_inf_nan": False, **made} if node.get("type") == "float" else made


def is_strict(node: Node) -> bool:
    """Return True if a schema, or a part of it, is strict."""
    return bool(
        node.get("strict") or (node.get("config") or {}).get("strict") or any(map(is_strict, inner_nodes(node)))
    )


def lax_for_text(node: Node) -> Node:
    """Return a schema that is strict for no type that packets do not have: dates, UUIDs, enums, sets and the like.

    A strict model of pydantic takes only objects of these types from Python code. Packets have text, numbers and lists
    for them, as JSON does.
    """
    made = with_inner(node, lax_for_text)
    if node.get("type") in _NOT_IN_PACKETS:
        return {**made, "strict": False}
    if node.get("type") == "lax-or-strict":
        return {**made, "strict_schema": made["lax_schema"]}
    return made


_NOT_IN_PACKETS: Final = frozenset(
    """
    bytes complex dataclass date datetime decimal enum frozenset model multi-host-url set time timedelta tuple url uuid
    """.split()  # noqa: SIM905  # as above
)


def bounded(node: Node, *, forbids: bool = False) -> Node:
    """Return a schema that accepts the same, and stops at the first error of each list, set, tuple and map.

    Without this, a packet of 1 MiB with 300,000 wrong items costs seconds. Models that forbid other fields stop if
    there are more than `MAX_OTHERS` of these.

    Args:
        node: the schema, or a part of it.
        forbids: whether the settings of the model around it forbid other fields.
    """
    kind, config = node.get("type"), node.get("config")
    behavior = config.get("extra_fields_behavior") if isinstance(config, dict) else None
    forbids = forbids if behavior is None else behavior == "forbid"
    inner = forbids and kind not in _FIELDS
    made = with_inner(node, lambda each: bounded(each, forbids=inner))
    if kind in _COLLECTIONS:
        return {**made, "fail_fast": True}
    if kind in _FIELDS and node.get("extra_behavior", "forbid" if forbids else None) == "forbid":
        return called_before(_few_others(len(node["fields"])), made)
    return made


def _few_others(own: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > own + MAX_OTHERS:
            raise ValueError(f"it has {len(value)} fields, and the model has {own}")
        return value

    return check


def bytes_in(node: Node) -> Iterable[str]:
    """Yield for each bytes in a schema of pydantic-core: ``"binary"`` for `Binary`, ``"plain"`` for others.

    Bytes that a function of the model validates are ``"other"``: such a function knows the form of its input.
    """
    inner = node.get("schema")
    if str(node.get("type")).startswith("function-") and isinstance(inner, dict) and inner.get("type") == "bytes":
        yield "binary" if node["function"].get("function") is from_base64 else "other"
    elif node.get("type") == "bytes":
        yield "plain"
    else:
        for each in inner_nodes(node):
            yield from bytes_in(each)


def has_secrets(node: Node) -> bool:
    """Return True if there is a ``SecretStr``, ``SecretBytes`` or ``Secret`` in a schema."""
    function: Any = (node.get("serialization") or {}).get("function")
    is_secret = getattr(function, "__module__", "") == "pydantic.types" and "secret" in function.__name__
    return is_secret or any(map(has_secrets, inner_nodes(node)))


def sees_others(schema: Node) -> bool:
    """Return True if a model of this schema, or one of a union, refuses or keeps fields that it does not have."""
    for node in _outer_nodes(schema):
        behavior = node.get("extra_behavior") or (node.get("config") or {}).get("extra_fields_behavior")
        if behavior in ("forbid", "allow") or node.get("type") == "dict":
            return True
    return False


def may_change_fields(schema: Node) -> bool:
    """Return True if a function of the model gets the fields of the packet, and may change them."""
    return any(str(node.get("type")).startswith("function-") for node in _outer_nodes(schema))


def _outer_nodes(schema: Node) -> Iterable[Node]:
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
        if node.get("type") in ("union", "tagged-union"):
            pending += inner_nodes(node)
