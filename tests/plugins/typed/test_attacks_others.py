"""The fields of filters, guards and operations are no fields of a model, whenever they are registered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from asyncapy import Client, Packet, Server
from asyncapy.filters import Filters
from asyncapy.typed import Request
from asyncapy_core.testing import serving


class Book(BaseModel):
    id: int


class Strict(Request[Book], op="strict", extra="forbid"):
    id: int


class Open(Request[Book], op="open", extra="allow"):
    id: int


class Cat(BaseModel, extra="forbid"):
    kind: Literal["cat"]


class Dog(BaseModel, extra="forbid"):
    kind: Literal["dog"]


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class Counts(RootModel[dict[str, int]]):
    pass


async def test_a_guard_may_be_registered_after_a_handler() -> None:
    server = Server(port=0)

    @server.operation(Strict)
    async def strict(request: Strict) -> Book:
        return Book(id=request.id)

    @server.operation("struct")
    async def struct(request: StrictStruct) -> Book:
        return Book(id=request.id)

    server.guard(Filters.HasFields(key=None))
    async with serving(server) as running, running.client() as client:
        for operation in ("strict", "struct"):
            assert await client.request({"op": operation, "id": 7, "key": "k"}) == {"id": 7}
            answer = await client.request({"op": operation, "id": 7, "key": "k", "token": "t"})
            assert answer["fields"][0]["loc"] == ["token"]
        with server.guard(Filters.HasFields(token=None)):
            assert await client.request({"op": "strict", "id": 7, "key": "k", "token": "t"}) == {"id": 7}
        answer = await client.request({"op": "strict", "id": 7, "key": "k", "token": "t"})
        assert answer["fields"][0]["loc"] == ["token"]


async def test_a_model_that_keeps_other_fields_does_not_get_these() -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.operation(Open, Filters.HasFields(token=None))
    async def keeps(request: Open) -> Book:
        seen.append(request.model_extra)
        return Book(id=request.id)

    @server.operation("counts")
    async def counts(request: Counts) -> None:
        seen.append(request.root)

    async with serving(server) as running, running.client() as client:
        await client.call(Open(id=7), extra={"token": "t", "more": 1})
        assert await client.request({"op": "counts", "a": 1}) == {"status": "success"}
        assert seen == [{"more": 1}, {"a": 1}]


@pytest.mark.parametrize("kind", [Annotated[Cat | Dog, Field(discriminator="kind")], Cat | Dog], ids=str)
async def test_each_model_of_a_union_may_refuse_others(kind: Any) -> None:
    server = Server(port=0)

    async def pet(request: Any) -> None: ...

    pet.__annotations__ = {"request": kind, "return": None}
    server.operation("pet")(pet)
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "pet", "kind": "dog"}) == {"status": "success"}
        assert (await client.request({"op": "pet", "kind": "dog", "more": 1}))["error"] == "ERR_INVALID"


class Keyed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    key: str


async def test_a_model_gets_its_own_field_though_a_guard_examines_it() -> None:
    server = Server(port=0)
    server.guard(Filters.HasFields(key=None, token=None))

    @server.operation("keyed")
    async def keyed(request: Keyed) -> dict[str, str]:
        return {"key": request.key}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "keyed", "key": "k", "token": "t"}) == {"key": "k"}


class Renamed(BaseModel):
    id: int

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, fields: Any) -> Any:
        fields["id"] = fields.pop("number")
        return fields


class Wrapped(BaseModel):
    id: int

    @model_validator(mode="wrap")
    @classmethod
    def _rename(cls, fields: Any, validate: Any) -> Any:
        fields["id"] = fields.pop("number")
        return validate(fields)


@pytest.mark.parametrize("kind", [Renamed, Wrapped])
async def test_a_validator_does_not_change_the_packet_for_other_handlers(kind: Any) -> None:
    server = Server(port=0)
    seen: list[Any] = []

    async def first(request: Any) -> None: ...

    first.__annotations__ = {"request": kind, "return": None}
    server.register_handler(first, Filters.HasFields(number=None))

    @server.add_handler(Filters.HasFields(number=None), group=1)
    async def second(client: Client, packet: Packet) -> dict[str, Any]:
        seen.append(dict(packet))
        return {}

    async with serving(server) as running, running.client() as client:
        await client.request({"number": 7})
        assert seen == [{"number": 7}]
        if kind is Renamed:
            answer = await client.request({"number": "x"})
            assert answer["fields"][0]["loc"] == ["id"]
