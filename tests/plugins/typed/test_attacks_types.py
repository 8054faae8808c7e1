"""Types of parameters and answers that are unions, generic, annotated further, or have a name of their own."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import msgspec
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from asyncapy import Client, Server
from asyncapy.errors import HandlerFailed, PluginError
from asyncapy.typed import Binary, Depends, Request
from asyncapy_core.testing import serving

T = TypeVar("T")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel, extra="forbid"):
    kind: Literal["dog"] = "dog"


class Page(BaseModel, Generic[T]):
    items: list[T]


class Point(msgspec.Struct):
    x: int


class Circle(msgspec.Struct, tag="circle"):
    radius: int


class Square(msgspec.Struct, tag="square", forbid_unknown_fields=True):
    side: int


class Box(msgspec.Struct, Generic[T]):
    item: T


@dataclasses.dataclass
class Pair(Generic[T]):
    first: T


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
NamedPet = TypeAliasType("NamedPet", Pet)
NewPet = NewType("NewPet", Cat)
Boxes = TypeAliasType("Boxes", Annotated[Box[T], "of anything"], type_params=(T,))


def seven() -> int:
    return 7


Seven = TypeAliasType("Seven", Annotated[int, Depends(seven)])
HereIsAClient = TypeAliasType("HereIsAClient", Client)

CASES: list[Any] = [
    (Pet, {"kind": "dog"}, {"kind": "dog"}),
    (NamedPet, {"kind": "cat", "lives": 3}, {"kind": "cat", "lives": 3}),
    (Annotated[NamedPet, "a pet"], {"kind": "dog"}, {"kind": "dog"}),
    (NewPet, {}, {"kind": "cat", "lives": 9}),
    (Boxes[int], {"item": 7}, {"item": 7}),
    (Page[Pet], {"items": [{"kind": "dog"}]}, {"items": [{"kind": "dog"}]}),
    (Annotated[Page[int], "a page"], {"items": [7]}, {"items": [7]}),
    (Pair[int], {"first": 7}, {"first": 7}),
    (Circle | Square, {"type": "square", "side": 7}, {"type": "square", "side": 7}),
    (Annotated[Circle | Square, "a form"], {"type": "circle", "radius": 7}, {"type": "circle", "radius": 7}),
    (Box[int], {"item": 7}, {"item": 7}),
    (Annotated[Point, msgspec.Meta(title="A point")], {"x": 7}, {"x": 7}),
]


def echo_of(kind: Any, answer: Any) -> Any:
    async def echo(value: Any) -> Any:
        return value

    echo.__annotations__ = {"value": kind, "return": answer}
    return echo


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize(("kind", "fields", "answer"), CASES, ids=lambda case: str(case)[:40])
async def test_a_type_is_that_of_a_parameter_and_of_an_answer(
    kind: Any, fields: dict[str, Any], answer: Any, optional: bool
) -> None:
    server = Server(port=0)
    server.operation("echo")(echo_of(kind, kind | None if optional else kind))
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "echo", **fields}) == answer
        for wrong in ({"kind": "fish"}, {"items": 7}, {"type": "fish"}, {"first": "x"}, {"item": "x"}, {"x": "x"}):
            refused = await client.request({"op": "echo", **wrong, "lives": "x"})
            assert refused["error"] == "ERR_INVALID"


@pytest.mark.parametrize("kind", [Pet, NamedPet, Point, Circle | Square, Box[int], Page[int]], ids=str)
async def test_an_optional_answer_may_be_none(kind: Any) -> None:
    server = Server(port=0)

    async def nothing(client: Any, n: Any) -> Any:
        return None

    nothing.__annotations__ = {"client": Client, "n": Annotated[int, Depends(seven)], "return": kind | None}
    server.operation("nothing")(nothing)
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "nothing"}) == {"status": "success"}


async def test_an_answer_of_another_struct_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    @server.operation("form")
    async def form(point: Point) -> Circle | Square:
        return point  # type: ignore[return-value]

    async with serving(server) as running, running.client() as client:
        with pytest.raises(HandlerFailed):
            await client.call(Form(x=7))
    assert "it returned a Point; return Circle | Square" in caplog.text


class Form(Request[Cat], op="form"):
    x: int


async def test_a_name_of_a_type_may_stand_for_a_dependency_or_the_client() -> None:
    server = Server(port=0)

    @server.operation("seven")
    async def get_seven(n: Seven, client: HereIsAClient) -> dict[str, Any]:
        return {"n": n, "address": client.address}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "seven"}) == {"n": 7, "address": "127.0.0.1"}


class FindPet(Request[Pet | None], op="pets.find"):
    kind: str


async def test_a_client_reads_a_union_with_a_discriminator() -> None:
    server = Server(port=0)

    @server.operation(FindPet)
    async def find(request: FindPet) -> Cat | Dog | None:
        pets: dict[str, Cat | Dog] = {"cat": Cat(lives=1), "dog": Dog()}
        return pets.get(request.kind)

    async with serving(server) as running, running.client() as client:
        assert await client.call(FindPet(kind="cat")) == Cat(lives=1)
        assert await client.call(FindPet(kind="dog")) == Dog()
        assert await client.call(FindPet(kind="fish")) is None


async def test_a_handler_may_announce_fewer_types_than_its_request() -> None:
    server = Server(port=0)

    @server.operation(FindPet)
    async def find(request: FindPet) -> Dog:
        return Dog()

    async with serving(server) as running, running.client() as client:
        assert await client.call(FindPet(kind="dog")) == Dog()


def test_a_handler_may_not_announce_more_types_than_its_request() -> None:
    server = Server(port=0)

    async def find(request: FindPet) -> Dog | Page[int]:
        raise AssertionError

    with pytest.raises(PluginError, match=r"returns .*Dog \| .*Page.*, but FindPet is a Request.*Cat"):
        server.operation(FindPet)(find)


def test_a_union_of_structs_without_tags_is_a_mistake() -> None:
    with pytest.raises(PluginError, match=r"msgspec cannot validate .* all Struct types must be tagged"):
        Server(port=0).operation("echo")(echo_of(Point | Circle, Circle))


class Dated(BaseModel, Generic[T]):
    item: T
    data: Binary = b""


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_a_generic_model_without_its_arguments_is_an_answer(encoding: str) -> None:
    server = Server(port=0)

    @server.operation("page")
    async def page(request: Cat) -> Page[Page[Cat]]:
        return Page(items=[Page(items=[request])])

    @server.operation("dated")
    async def dated(request: Cat) -> Dated[Cat] | None:
        return Dated(item=request)

    async with serving(server) as running, running.client(encoding=encoding) as client:
        cat = {"kind": "cat", "lives": 9}
        assert await client.request({"op": "page"}) == {"items": [{"items": [cat]}]}
        assert (await client.request({"op": "dated"}))["item"] == cat


async def test_a_generic_model_of_other_values_is_no_answer() -> None:
    server = Server(port=0)

    @server.operation("page")
    async def page(request: Cat) -> Page[Dog]:
        return Page(items=[request])  # type: ignore[list-item]

    async with serving(server) as running, running.client() as client:
        assert (await client.request({"op": "page"}))["error"] == "ERR_HANDLER_FAILED"
