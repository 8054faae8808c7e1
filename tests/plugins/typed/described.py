"""A server with many kinds of models, for descriptions of it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel
from typing_extensions import TypeAliasType, TypedDict

from asyncapy import Client, Failure, Packet, Router, Server
from asyncapy.filters import Filters
from asyncapy.typed import Binary, Depends, Request, StreamRequest
from asyncapy.util import APIKeyFactory

T = TypeVar("T")
Nested = TypeAliasType("Nested", "list[Nested] | int")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Author(BaseModel):
    name: str
    born: dt.date | None = None


class Book(BaseModel):
    """A book.

    It has "quotes", a \\ backslash, \"\"\" three quotes, and */ the end of a comment.
    """

    id: int
    title: str = Field("none", description="Its title, in */ any language.\nIn two lines.")
    authors: list[Author] = []
    color: Color = Color.RED
    level: Level | None = None
    size: tuple[int, str] = (1, "a")
    more: tuple[int, ...] = ()
    pair: Pair = Pair(1)
    tags: set[str] = set()
    counts: dict[str, float] = {}
    data: Binary = b"\xff"
    class_: str = Field("x", alias="class")
    odd_name: int = Field(1, alias="odd-name \"'")
    under: int = Field(1, alias="_under")
    json_: str = Field("j", alias="json")
    int_: int = Field(1, alias="int")
    default_: bool = Field(default=True, alias="default")
    price: Decimal = Decimal(1)
    at: dt.datetime | dt.timedelta | dt.time = dt.timedelta(1)
    uuid: UUID = UUID(int=1)
    endless: float = 1.5
    anything: Any = None
    json_value: JsonValue = None
    nested: Nested = 1
    kind: Literal["book", 1, True] | None = "book"
    weights: list[list[int | None] | None] = []
    nothing: None = None


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    friend: Dog | None = None


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["dog"] = "dog"
    tree: Tree


class Box(BaseModel, Generic[T]):
    item: T


class Words(RootModel[list[str]]):
    pass


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]

    words: Words = Words([])


class Node(msgspec.Struct, forbid_unknown_fields=True):
    """A struct."""

    a: int
    b: list[Node] = []
    c: tuple[int, str] | None = None
    d: msgspec.UnsetType | int = msgspec.UNSET
    e: bytes = b""
    f: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass
class Point:
    x: int
    y: int = 0
    names: list[str] = field(default_factory=list)


class Shape(TypedDict):
    points: list[Point]
    label: NotRequired[str]


def other_book() -> type[BaseModel]:
    class Book(BaseModel):
        isbn: str

    return Book


OtherBook: Any = other_book()


class Read(Request[Book], op="books.read", errors=["ERR_NOT_FOUND"]):
    """Read a book."""

    id: int


class Add(Request[Book | None], op="books.add"):
    book: Book
    other: OtherBook
    tree: Tree


class ListBooks(StreamRequest[Book], op="books.list"):
    prefix: str = ""
    endless: float = float("inf")


class Find(Request[dict[str, Any]], op="find", field="call"):
    text: str


server = Server(port=1500)
keys = APIKeyFactory()
key = keys.issue()
server.guard(Filters.APIFactory(keys, "key"))
calls = Router(field="call")


def origin(point: Point) -> int:
    return point.x


@server.operation(Read)
async def read(request: Read) -> Book:
    """Return a book.

    If there is one of this id.
    """
    if request.id != 7:
        raise Failure("ERR_NOT_FOUND")
    return Book.model_validate({"id": request.id})


@server.operation(ListBooks)
async def list_books(request: ListBooks) -> AsyncIterator[Book]:
    for number in range(3):
        yield Book.model_validate({"id": number, "title": f"{request.prefix}{number}"})


@server.operation(Add, Filters.Rate("100/second"))
async def add(request: Add) -> Book | None:
    return request.book if request.book.id else None


@server.operation("pets.add")
async def add_pet(pet: Cat | Dog) -> Cat | Dog | None:
    return pet


@server.operation("box")
async def box(packed: Box[int]) -> Box[Tree]:
    return Box[Tree](item=Tree(value=packed.item))


@server.operation("nodes")
async def nodes(node: Node) -> Node:
    return node


@server.operation("shapes", Filters.HasFields(points=None, unit=r"mm\Z", scale=r"\d+"))
async def shapes(shape: Shape) -> Shape:
    return shape


@server.operation("other")
async def other(book: OtherBook) -> Extra:
    return Extra.model_validate({"more": 1})


@server.operation("origin")
async def move(x: Annotated[int, Depends(origin)]) -> None:
    assert x


@server.operation("odd/name ~1 {x}")
async def odd(client: Client, packet: Packet) -> dict[str, Any]:
    return {"a": 1}


@server.operation("either", Filters.HasFields(a=None) | Filters.HasFields(b=None), ~Filters.HasFields(c=None))
async def either(client: Client, packet: Packet) -> Any:
    return {"a": 1}


@calls.operation(Find)
async def find(request: Find) -> dict[str, Any]:
    return {"found": request.text}


server.include(calls)


@server.add_handler(Filters.Fields(command=r"start\Z", key=None))
async def start(client: Client, packet: Packet) -> dict[str, Any]:
    return {"started": True}


@server.add_handler(Filters.Ip("10.0.0.1"), group=1)
async def nameless(client: Client, packet: Packet) -> None:
    pass
