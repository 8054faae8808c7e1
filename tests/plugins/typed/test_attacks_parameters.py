"""Parameters and answers that are easily taken for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import msgspec
import pytest
from pydantic import BaseModel, RootModel
from typing_extensions import TypedDict

import asyncapy
from asyncapy import Packet, Server
from asyncapy.errors import PluginError
from asyncapy.filters import Filter
from asyncapy.typed import FromContext, Request
from asyncapy_core.testing import serving


class Client(BaseModel):
    """A model that has the name of a class of AsyncAPY."""

    name: str


class Book(BaseModel):
    id: int = 1


class Read(Request[Book], op="read"):
    id: int = 1


class Numbers(RootModel[list[int]]):
    pass


class Named(RootModel[dict[str, Any]]):
    pass


class Row(msgspec.Struct, array_like=True):
    id: int


class HasName(Protocol):
    name: str


class User(TypedDict):
    name: str


class Found(Filter):
    def check(self, c: asyncapy.Client, p: Packet) -> Mapping[str, Any] | bool:
        return {"user": {"name": "alice"}, "named": Client(name="bob")}


async def test_a_model_may_have_the_name_of_a_class_of_asyncapy() -> None:
    server = Server(port=0)

    @server.operation("create")
    async def create(request: Client, packet: Packet) -> dict[str, Any]:
        return {"name": request.name, "size": len(packet)}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "create", "name": "alice"}) == {"name": "alice", "size": 2}


async def test_a_value_of_a_class_without_instances_is_found_by_its_name() -> None:
    server = Server(port=0)

    @server.operation("found", Found())
    async def found(
        user: Annotated[User, FromContext("user")], named: Annotated[HasName, FromContext("named")]
    ) -> dict[str, Any]:
        return {"names": [user["name"], named.name]}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "found"}) == {"names": ["alice", "bob"]}


async def by_protocol(named: Annotated[HasName, FromContext()]) -> Book:
    raise AssertionError


async def by_typed_dict(user: Annotated[User, FromContext()]) -> Book:
    raise AssertionError


async def optional(book: Book | None = None) -> Book:
    raise AssertionError


async def a_list(numbers: Numbers) -> Book:
    raise AssertionError


async def of_a_list(book: Book) -> Numbers:
    raise AssertionError


async def a_row(row: Row) -> Book:
    raise AssertionError


async def of_rows(book: Book) -> Row | None:
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            by_protocol,
            r"'named' .* is a HasName, by which nothing is found in the context; write FromContext\('name'\)",
        ),
        (by_typed_dict, r"'user' .* is a User, by which nothing is found in the context; write FromContext\('name'\)"),
        (optional, r"'book' .* is a Book or None, but a packet always has fields: annotate it as Book, and give"),
        (a_list, "Numbers is a list, and a packet is a map of fields: use a model with a field for it"),
        (of_a_list, "Numbers is a list, and a packet is a map of fields: use a model with a field for it"),
        (a_row, "Row is a list, and a packet is a map of fields: use a model with a field for it"),
        (of_rows, "Row is a list, and a packet is a map of fields: use a model with a field for it"),
    ],
)
def test_a_mistake_is_named_where_the_handler_is_registered(function: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Server(port=0).operation("x")(function)


async def test_an_optional_model_beside_that_of_the_packet_has_its_default() -> None:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read, book: Book | None = None) -> Book:
        return book or Book(id=request.id)

    @server.operation("named")
    async def named(values: Named) -> Named:
        return values

    async with serving(server) as running, running.client() as client:
        assert await client.call(Read(id=7)) == Book(id=7)
        assert await client.request({"op": "named", "a": 1}) == {"a": 1}
