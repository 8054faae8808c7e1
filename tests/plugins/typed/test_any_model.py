"""Descriptions of any models: their schemas allow what is sent, and generated code reads it."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from decimal import Decimal
from ipaddress import IPv4Address
from types import ModuleType
from typing import Any, Literal, Union
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import BaseModel, create_model

from asyncapy import Server
from asyncapy.typed import Binary
from asyncapy_typed.describe import describe_server
from asyncapy_typed.models import model_type
from asyncapy_typed.python_client import python_client
from asyncapy_typed.typescript import typescript


class Kind(enum.Enum):
    ONE = "one"
    TWO = 2


PLAIN: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text(max_size=3)),
    (int, st.integers(-5, 5)),
    (float, st.floats(-5, 5)),
    (bool, st.booleans()),
    (None, st.none()),
    (Any, st.integers(0, 3)),
    (Binary, st.binary(max_size=3)),
    (Kind, st.sampled_from(Kind)),
    (Literal["a", 1, True], st.sampled_from(["a", 1, True])),
    (dt.date, st.dates()),
    (dt.timedelta, st.timedeltas(dt.timedelta(0), dt.timedelta(9))),
    (UUID, st.uuids()),
    (Decimal, st.decimals(-5, 5, places=1)),
    (IPv4Address, st.ip_addresses(v=4)),
]
Kinds = tuple[Any, st.SearchStrategy[Any]]


def unions(kinds: list[Kinds]) -> Kinds:
    members = tuple(kind for kind, _ in kinds)
    return Union[members], st.one_of([values for _, values in kinds])  # noqa: UP007  # the members are variables


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Kinds]) -> Kinds:
    """A model, and its values."""
    fields: dict[str, Any] = {}
    values: dict[str, st.SearchStrategy[Any]] = {}
    for name in draw(st.lists(st.sampled_from(["id", "class_", "json", "list", "name"]), unique=True, max_size=4)):
        kind, found = draw(inner)
        default = draw(st.one_of(st.just(...), found))
        fields[f"{name}_"], values[f"{name}_"] = (kind, default), found
    model: Any = create_model(draw(st.sampled_from(["Book", "Author", "Any"])), **fields)
    return model, st.fixed_dictionaries(values).map(lambda given: model.model_construct(**given))


def containers(inner: st.SearchStrategy[Kinds]) -> st.SearchStrategy[Kinds]:
    """Lists, maps, tuples, unions and models of other kinds."""

    def listed(kind: Any, values: st.SearchStrategy[Any]) -> Kinds:
        return list[kind], st.lists(values, max_size=2)

    def mapped(kind: Any, values: st.SearchStrategy[Any]) -> Kinds:
        return dict[str, kind], st.dictionaries(st.text(max_size=2), values, max_size=2)

    def paired(one: Kinds, other: Kinds) -> Kinds:
        return tuple[one[0], other[0]], st.tuples(one[1], other[1])  # type: ignore[valid-type]  # variables are types here

    return st.one_of(
        inner.map(lambda kind: listed(*kind)),
        inner.map(lambda kind: mapped(*kind)),
        st.tuples(inner, inner).map(lambda two: paired(*two)),
        st.lists(inner, min_size=2, max_size=3).map(unions),
        models(inner),
    )


KINDS: st.SearchStrategy[Kinds] = st.recursive(st.sampled_from(PLAIN), containers, max_leaves=6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_schemas_allow_the_answers_and_generated_models_read_them(data: st.DataObject) -> None:
    kind, values = data.draw(models(KINDS))
    value = data.draw(values)
    server = Server()

    async def echo(fields: Any) -> Any:
        return fields

    echo.__annotations__ = {"fields": kind, "return": kind}
    server.operation("echo")(echo)
    document = describe_server(server)
    components, messages = document["components"], document["channels"]["packets"]["messages"]
    for schema in components["schemas"].values():
        Draft7Validator.check_schema(schema)
    found = model_type(kind)
    assert found is not None
    sent = found.dump(value)
    answer = messages["echo.answer"]["payload"]
    Draft7Validator({"components": components, "allOf": [answer]}).validate(in_json(sent))
    assert typescript(document).count("{") == typescript(document).count("}")
    module = ModuleType("any_model_api")
    sys.modules[module.__name__] = module
    try:
        exec(compile(python_client(document), "any_model_api", "exec"), module.__dict__)
        read = module.EchoRequest.__asyncapy_result__()
        assert issubclass(read, BaseModel)
        assert type(read.model_validate(sent)) is read
    finally:
        del sys.modules[module.__name__]


def in_json(value: Any) -> Any:
    """Return the value that JSON has for one in a packet."""
    if isinstance(value, bytes):
        return "base64"
    if isinstance(value, dict):
        return {name: in_json(each) for name, each in value.items()}
    return [in_json(each) for each in value] if isinstance(value, (list, tuple)) else value
