"""AsyncAPY: operations with models of pydantic and msgspec, by asyncapy-typed and by hand, and with a dependency."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.typed import Depends

server = Server(port=0)


class Read(BaseModel):
    """A request."""

    test: int


class Book(BaseModel):
    """An answer."""

    id: int
    title: str


class ReadStruct(msgspec.Struct):
    """A request."""

    test: int


class BookStruct(msgspec.Struct):
    """An answer."""

    id: int
    title: str


def database() -> dict[int, str]:
    """Return the same object each time."""
    return BOOKS


BOOKS: dict[int, str] = {}


@server.operation("pydantic")
async def read(request: Read) -> Book:
    """Return a model."""
    return Book(id=request.test, title="Walden")


@server.operation("pydantic_by_hand")
async def read_by_hand(client: Client, packet: Packet) -> Mapping[str, Any]:
    """Return the fields of a model."""
    request = Read.model_validate(packet.fields)
    return Book(id=request.test, title="Walden").model_dump()


@server.operation("msgspec")
async def read_struct(request: ReadStruct) -> BookStruct:
    """Return a model."""
    return BookStruct(id=request.test, title="Walden")


@server.operation("msgspec_by_hand")
async def read_struct_by_hand(client: Client, packet: Packet) -> Any:
    """Return the fields of a model."""
    request = msgspec.convert(packet.fields, ReadStruct)
    return msgspec.to_builtins(BookStruct(id=request.test, title="Walden"))


@server.operation("usual")
async def usual(client: Client, packet: Packet) -> Mapping[str, Any]:
    """Return a mapping."""
    return {"id": packet["test"], "title": "Walden"}


@server.operation("dependency")
async def dependency(client: Client, packet: Packet, books: Annotated[dict[int, str], Depends(database)]) -> Any:
    """Return a mapping."""
    return {"id": packet["test"], "title": "Walden"}


server.start()
