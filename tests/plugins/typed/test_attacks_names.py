"""Fields and defaults that look like parts of the schemas of pydantic-core."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from asyncapy import Server
from asyncapy.typed import Binary, Request
from asyncapy_core.testing import serving
from asyncapy_typed.model_types import InvalidFields
from asyncapy_typed.pydantic_models import PydanticType

NAMES = ["type", "config", "metadata", "serialization", "default", "fields", "choices", "definitions", "extra_behavior"]


class Event(Request[None], op="event"):
    type: str
    config: list[int] = Field(default=[])
    metadata: dict[str, Any] = Field(default={"type": "list"})


async def test_a_field_may_be_called_type() -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.operation(Event)
    async def event(request: Event) -> None:
        seen.append((request.type, request.metadata))

    async with serving(server) as running, running.client() as client:
        await client.call(Event(type="list"))
        assert seen == [("list", {"type": "list"})]
        assert (await client.request({"op": "event"}))["fields"] == [{"loc": ["type"], "msg": "Field required"}]


def test_a_default_stays_as_it_is() -> None:
    class Defaults(BaseModel):
        items: dict[str, Any] = {"type": "list"}
        data: dict[str, Any] = {"type": "bytes"}

    assert PydanticType(Defaults).read({}) == Defaults()


@pytest.mark.parametrize("name", NAMES)
def test_the_problems_of_a_field_are_bounded_whatever_its_name_is(name: str) -> None:
    made: Any = type("Made", (BaseModel,), {"__annotations__": {name: list[int]}})
    with pytest.raises(InvalidFields) as caught:
        PydanticType(made).read({name: ["x"] * 2000})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_found_in_a_field_of_any_name(name: str) -> None:
    with pytest.raises(TypeError, match="is bytes, which JSON has not: annotate it as"):
        PydanticType(type("Made", (BaseModel,), {"__annotations__": {name: bytes}}))
    kind: Any = type("Made", (BaseModel,), {"__annotations__": {name: Binary}})
    assert PydanticType(kind).dump(kind(**{name: b"\xff"})) == {name: b"\xff"}


@pytest.mark.parametrize("name", NAMES)
def test_a_nested_field_of_any_name_does_not_decide_on_other_fields(name: str) -> None:
    class Nested(BaseModel):
        model_config = ConfigDict(extra="forbid")

    made: Any = type("Made", (BaseModel,), {"__annotations__": {name: Nested}})
    assert not PydanticType(made).sees_others
