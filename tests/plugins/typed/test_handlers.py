"""Handlers with models over a connection: arguments by type, answers, wrong fields, in both versions and encodings."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from asyncapy import Client, Failure, Packet, Router, Server
from asyncapy.core import Session
from asyncapy.errors import (
    FailureReply,
    HandlerFailed,
    InvalidFields,
    InvalidReply,
    NoHandlerFound,
    PluginError,
    Unauthorized,
)
from asyncapy.filters import Filter, Filters
from asyncapy.typed import Binary, FromContext, Request, StreamRequest, invalid
from asyncapy.util import APIKeyFactory
from asyncapy_core import KeyRecord
from asyncapy_core.testing import serving

VERSIONS = pytest.mark.parametrize("version", [22, 23])
ENCODINGS = pytest.mark.parametrize("encoding", ["json", "ziproto"])
Version = Literal[22, 23]


class Book(BaseModel):
    id: int
    title: str


class Read(Request[Book], op="books.read"):
    id: int


class Strict(Request[Book], op="books.strict", extra="forbid"):
    id: int


class Remove(Request[None], op="books.remove"):
    id: int


class Find(Request[Book | None], op="books.find"):
    title: str


class ListBooks(StreamRequest[Book], op="books.list"):
    count: int = Field(default=3, ge=0)


class Point(BaseModel):
    x: int
    y: int


@dataclasses.dataclass
class Plain:
    x: int
    y: int = 2


class Typed(TypedDict):
    x: int
    y: int


class Struct(msgspec.Struct):
    x: int
    y: int = 2


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    x: int


class Many(Request[None], op="many"):
    numbers: list[int] = Field(default=[])
    named: dict[str, int] = Field(default={})


class Call(Request[Book], op="read", field="call"):
    op: str


class Aliased(BaseModel):
    class_: str = Field(alias="class")


class Get(Request[Aliased], op="get"):
    from_: str = Field(alias="from")


class Even(Request[None], op="even"):
    n: int

    @field_validator("n")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


class Broken(Request[None], op="broken"):
    n: int

    @field_validator("n")
    @classmethod
    def _fails(cls, value: int) -> int:
        raise RuntimeError("broken")


class Inner(msgspec.Struct):
    n: int


class Outer(msgspec.Struct):
    items: list[Inner]
    by_name: dict[str, Inner] = msgspec.field(default_factory=dict)


def bookshop() -> Server:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read) -> Book:
        if request.id == 404:
            raise Failure("ERR_NOT_FOUND", detail="no such book")
        return Book(id=request.id, title="Walden")

    @server.operation(Strict)
    async def strict(request: Strict) -> Book:
        return Book(id=request.id, title="Strict")

    @server.operation(Remove)
    async def remove(request: Remove) -> None:
        return None

    @server.operation(Find)
    async def find(request: Find) -> Book | None:
        return None if request.title == "none" else Book(id=1, title=request.title)

    @server.operation(ListBooks)
    async def list_books(request: ListBooks) -> AsyncIterator[Book]:
        for number in range(request.count):
            yield Book(id=number, title=f"Book {number}")

    return server


@VERSIONS
@ENCODINGS
async def test_a_request_is_answered_by_an_object_of_its_type(version: Version, encoding: str) -> None:
    async with serving(bookshop()) as running, running.client(version=version, encoding=encoding) as client:
        book = await client.call(Read(id=7))
        assert book == Book(id=7, title="Walden")
        assert (await client.call(Strict(id=8))).title == "Strict"
        assert await client.call(Find(title="Emma")) == Book(id=1, title="Emma")
        assert await client.call(Find(title="none")) is None


@VERSIONS
@ENCODINGS
async def test_a_request_without_a_result_has_an_answer(version: Version, encoding: str) -> None:
    async with serving(bookshop()) as running, running.client(version=version, encoding=encoding) as client:
        await client.call(Remove(id=7))
        assert await client.request({"op": "books.remove", "id": 7}) == {"status": "success"}


async def test_answers_are_streamed_as_objects() -> None:
    async with serving(bookshop()) as running, running.client(version=23) as client:
        titles = [book.title async for book in client.stream_call(ListBooks(count=2))]
        assert titles == ["Book 0", "Book 1"]
        assert [book async for book in client.stream_call(ListBooks(count=0))] == []
        async with client.stream_call(ListBooks()) as books:
            assert (await anext(books)).id == 0
        with pytest.raises(InvalidFields):
            await anext(client.stream_call(ListBooks.model_construct(count=-1)))
        assert (await client.call(Read(id=1))).id == 1


@VERSIONS
@ENCODINGS
async def test_wrong_fields_are_answered_with_their_places(version: Version, encoding: str) -> None:
    async with serving(bookshop()) as running, running.client(version=version, encoding=encoding) as client:
        assert await client.request({"op": "books.read"}) == {
            "status": "failure",
            "error": "ERR_INVALID",
            "fields": [{"loc": ["id"], "msg": "Field required"}],
        }
        answer = await client.request({"op": "books.strict", "id": "secret", "more": "secret"})
        assert [each["loc"] for each in answer["fields"]] == [["id"], ["more"]]
        assert "secret" not in str(answer)


async def test_at_most_twenty_places_of_bounded_length_are_named() -> None:
    server = Server(port=0)

    @server.operation(Many)
    async def many(request: Many) -> None: ...

    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "many", "numbers": ["x"] * 50})
        assert len(answer["fields"]) == 20
        assert answer["fields"][18]["loc"] == ["numbers", 18]
        assert answer["fields"][19] == {"loc": [], "msg": "31 more"}
        assert len((await client.request({"op": "many", "numbers": ["x"] * 20}))["fields"]) == 20
        answer = await client.request({"op": "many", "named": {"x" * 100_000: "y"}})
        assert len(str(answer)) < 1000


async def test_a_place_of_a_recursive_model_is_shortened() -> None:
    server = Server(port=0)

    @server.operation(Nested)
    async def nested(request: Nested) -> None: ...

    tree: dict[str, Any] = {"inner": "no tree"}
    for _ in range(40):
        tree = {"inner": tree}
    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "nested", **tree})
        assert answer["fields"][0]["loc"] == ["inner"] * 16


class Tree(BaseModel):
    inner: Tree | None = None


class Nested(Request[None], op="nested"):
    inner: Tree | None = None


@VERSIONS
@pytest.mark.parametrize("kind", [Point, Plain, Typed, Struct])
async def test_each_kind_of_model_is_an_argument_and_an_answer(version: Version, kind: Any) -> None:
    server = Server(port=0)

    async def move(point: Any) -> Any:
        x = point["x"] if isinstance(point, dict) else point.x
        return kind(x=x + 1, y=5)

    move.__annotations__ = {"point": kind, "return": kind}
    server.register_handler(move, Filters.HasFields(x=None))
    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"x": 1, "y": 1}) == {"x": 2, "y": 5}
        answer = await client.request({"x": "secret", "y": 1})
        assert answer["error"] == "ERR_INVALID"
        assert answer["fields"][0]["loc"] == ["x"]
        assert "secret" not in str(answer)


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        ({"op": "s"}, ["x"], "Object missing required field `x`"),
        ({"op": "s", "x": 1, "z": 2}, ["z"], "Object contains unknown field `z`"),
        ({"op": "s", "x": None}, ["x"], "Expected `int`, got `null`"),
    ],
)
async def test_places_of_structs_are_those_of_the_fields(fields: Any, place: list[Any], message: str) -> None:
    server = Server(port=0)

    @server.operation("s")
    async def struct(request: StrictStruct) -> None: ...

    async with serving(server) as running, running.client() as client:
        answer = await client.request(fields)
        assert answer["fields"] == [{"loc": place, "msg": message}]
        assert await client.request({"op": "s", "x": 1}) == {"status": "success"}


async def test_a_place_inside_a_struct_is_a_path() -> None:
    server = Server(port=0)

    async def outer(request: Any) -> None: ...

    outer.__annotations__ = {"request": Outer, "return": None}
    server.operation("o")(outer)
    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "o", "items": [{"n": 1}, {"n": "x"}]})
        assert answer["fields"][0]["loc"] == ["items", 1, "n"]
        answer = await client.request({"op": "o", "items": [], "by_name": {"secret": {"n": "x"}}})
        assert answer["fields"][0]["loc"] == ["by_name", "...", "n"]


class Colour(enum.Enum):
    RED = "red"


class Everything(BaseModel):
    id: uuid.UUID
    at: dt.datetime
    price: Decimal
    colour: Colour
    tags: set[str]
    data: Binary


class Echo(Request[Everything], op="echo"):
    value: Everything


@VERSIONS
@ENCODINGS
async def test_values_of_all_types_arrive_as_they_were_sent(version: Version, encoding: str) -> None:
    server = Server(port=0)

    @server.operation(Echo)
    async def echo(request: Echo) -> Everything:
        return request.value

    value = Everything(
        id=uuid.uuid4(),
        at=dt.datetime.now(dt.UTC),
        price=Decimal("1.50"),
        colour=Colour.RED,
        tags={"a"},
        data=b"\x00\xff",
    )
    async with serving(server) as running, running.client(version=version, encoding=encoding) as client:
        assert await client.call(Echo(value=value)) == value
        plain = await client.request(
            {"op": "echo", "value": {**value.model_dump(mode="json", exclude={"data"}), "data": "AP8="}}
        )
        assert plain["data"] == ("AP8=" if encoding == "json" else b"\x00\xff")
        wrong = await client.request(
            {"op": "echo", "value": {**value.model_dump(mode="json", exclude={"data"}), "data": "?"}}
        )
        assert wrong["fields"][0]["loc"] == ["value", "data"]


class Seen(BaseModel):
    address: str
    fields: int
    same: bool


async def test_client_packet_session_and_server_are_arguments_by_type_and_in_any_order() -> None:
    server = Server(port=0)

    @server.operation("look")
    async def look(session: Session, packet: Packet, here: Server, client: Client, *, limit: int = 3) -> Seen:
        assert here is server
        assert limit == 3
        return Seen(address=client.address, fields=len(packet), same=session is client.session)

    async with serving(server) as running, running.client(address="192.0.2.7") as client:
        assert await client.request({"op": "look"}) == {"address": "192.0.2.7", "fields": 1, "same": True}


async def test_client_and_packet_are_known_by_name() -> None:
    server = Server(port=0)

    @server.operation("size")
    async def size(request: Point, client, packet) -> dict[str, int]:  # type: ignore[no-untyped-def]
        assert packet.sender.session is client.session
        return {"size": len(packet)}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "size", "x": 1, "y": 2}) == {"size": 3}


@VERSIONS
async def test_the_record_of_a_key_is_an_argument(version: Version) -> None:
    server, keys = Server(port=0), APIKeyFactory()
    key = keys.issue({"owner": "alice"})

    @server.operation(Read, Filters.APIFactory(keys, "key", tell=True))
    async def read(request: Read, record: KeyRecord) -> Book:
        return Book(id=request.id, title=record.metadata["owner"])

    async with serving(server) as running, running.client(version=version) as client:
        assert (await client.call(Read(id=7), extra={"key": key})).title == "alice"
        with pytest.raises(Unauthorized):
            await client.call(Read(id=7), extra={"key": "wrong"})


async def test_fields_for_filters_are_none_of_a_model_that_forbids_others() -> None:
    server, keys = Server(port=0), APIKeyFactory()
    key = keys.issue()
    server.guard(Filters.APIFactory(keys, "key"))

    @server.operation(Strict, Filters.HasFields(token=None))
    async def strict(request: Strict) -> Book:
        return Book(id=request.id, title="")

    @server.operation("exact", Filters.HasFields(id=None))
    async def exact(request: ExactId) -> None: ...

    async with serving(server) as running, running.client() as client:
        assert (await client.call(Strict(id=7), extra={"key": key, "token": 1})).id == 7
        with pytest.raises(InvalidFields, match="ERR_INVALID"):
            await client.call(Strict(id=7), extra={"key": key, "token": 1, "other": 2})
        assert await client.request({"op": "exact", "id": 1, "key": key}) == {"status": "success"}


async def test_fields_for_combined_filters_are_none_of_a_model_that_forbids_others() -> None:
    server, keys = Server(port=0), APIKeyFactory()
    key = keys.issue()

    @server.operation(Strict, Filters.APIFactory(keys, "key") & (Filters.HasFields(a=None) | Filters.HasFields(b=None)))
    async def strict(request: Strict) -> Book:
        return Book(id=request.id, title="")

    async with serving(server) as running, running.client() as client:
        assert (await client.call(Strict(id=7), extra={"key": key, "a": 1, "b": 2})).id == 7
        with pytest.raises(InvalidFields, match="ERR_INVALID"):
            await client.call(Strict(id=7), extra={"key": key, "a": 1, "c": 2})


class Undescribed(Filter):
    def check(self, c: Client, p: Packet) -> bool:
        return True

    def schema(self) -> Mapping[str, Any]:
        raise ZeroDivisionError("no schema")

    def __repr__(self) -> str:
        return "Undescribed()"


def test_a_filter_whose_schema_raises_is_named_where_a_handler_with_models_is_registered() -> None:
    server = Server(port=0)
    with pytest.raises(
        PluginError, match=r"schema\(\) of the filter Undescribed\(\) raised ZeroDivisionError: no schema"
    ):

        @server.operation(Strict, Undescribed())
        async def strict(request: Strict) -> Book:
            raise AssertionError


class ExactId(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: int


class User:
    name = "alice"


class LogIn(Filter):
    def check(self, c: Client, p: Packet) -> Mapping[str, Any] | bool:
        return {"user": User(), "age": 7} if p.get("user") == "alice" else p.get("user") != "bob"


async def test_findings_of_filters_are_arguments_by_type_or_by_name() -> None:
    server = Server(port=0)

    @server.operation("who", LogIn())
    async def who(
        user: Annotated[User, FromContext()],
        age: Annotated[int, FromContext("age")],
        other: Annotated[str | None, FromContext("other")],
        last: Annotated[str, FromContext("last")] = "none",
    ) -> dict[str, Any]:
        return {"name": user.name, "age": age, "other": other, "last": last}

    @server.operation("maybe", LogIn())
    async def maybe(user: Annotated[User | None, FromContext]) -> dict[str, Any]:
        return {"known": user is not None}

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "who", "user": "alice"}) == {
            "name": "alice",
            "age": 7,
            "other": None,
            "last": "none",
        }
        assert await client.request({"op": "maybe", "user": "carol"}) == {"known": False}
        assert await client.request({"op": "maybe", "user": "alice"}) == {"known": True}
        assert await client.request({"op": "who", "user": "carol"}) == {
            "status": "failure",
            "error": "ERR_HANDLER_FAILED",
        }


async def test_a_missing_finding_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    @server.operation("who")
    async def who(record: KeyRecord) -> dict[str, Any]:
        return dict(record.metadata)

    async with serving(server) as running, running.client() as client:
        await client.request({"op": "who"})
    assert "there is no KeyRecord: put a filter or guard before it" in caplog.text


async def test_a_handler_raises_the_failure_for_wrong_fields_itself() -> None:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read) -> Book:
        raise invalid((["id"], "there is no such book"))

    async with serving(server) as running, running.client() as client:
        with pytest.raises(InvalidFields) as caught:
            await client.call(Read(id=7))
        assert caught.value.fields == {"fields": [{"loc": ["id"], "msg": "there is no such book"}]}


async def test_an_invalid_model_inside_a_handler_is_a_failure_of_the_handler() -> None:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read) -> Book:
        return Book(id="no number", title="")  # type: ignore[arg-type]

    async with serving(server) as running, running.client() as client:
        with pytest.raises(HandlerFailed):
            await client.call(Read(id=7))


async def test_an_answer_of_a_subclass_has_the_fields_of_the_announced_class() -> None:
    server = Server(port=0)

    class Secret(Book):
        password: str = "secret"

    @server.operation(Read)
    async def read(request: Read) -> Book:
        return Secret(id=request.id, title="x")

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "books.read", "id": 7}) == {"id": 7, "title": "x"}


@pytest.mark.parametrize("answer", [{"id": 7, "title": "x"}, None, "text", Plain(1), [Book(id=1, title="")]])
async def test_an_answer_of_another_type_is_a_failure_that_names_both(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read) -> Book:
        return answer  # type: ignore[no-any-return]

    async with serving(server) as running, running.client() as client:
        with pytest.raises(HandlerFailed):
            await client.call(Read(id=7))
    assert f"it returned a {type(answer).__name__}; return Book, as announced" in caplog.text


async def test_answers_are_checked_if_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for checked in ("0", "1"):
        monkeypatch.setenv("ASYNCAPY_CHECK_REPLIES", checked)
        server = Server(port=0)

        @server.operation(Read)
        async def read(request: Read) -> Book:
            return Book.model_construct(id="no number", title="x") if request.id else Book(id=0, title="x")

        async with serving(server) as running, running.client() as client:
            assert (await client.call(Read(id=0))).title == "x"
            with pytest.warns(UserWarning, match="Pydantic serializer warnings"):
                answer = await client.request({"op": "books.read", "id": 7})
            assert answer.get("error") == (None if checked == "0" else "ERR_HANDLER_FAILED")
    assert "no valid Book: id: Input should be a valid integer" in caplog.text


async def test_a_handler_without_an_annotated_answer_may_return_any_model() -> None:
    server = Server(port=0)

    @server.operation("any")
    async def anything(request: Point):  # type: ignore[no-untyped-def]
        return {0: Book(id=1, title="x"), 1: {"plain": 1}, 2: Struct(x=1), 3: Plain(x=1)}[request.x]

    async with serving(server) as running, running.client() as client:
        answers = [await client.request({"op": "any", "x": x, "y": 0}) for x in range(4)]
        assert answers == [{"id": 1, "title": "x"}, {"plain": 1}, {"x": 1, "y": 2}, {"x": 1, "y": 2}]


async def test_a_handler_of_client_and_packet_may_return_a_model() -> None:
    server = Server(port=0)

    @server.add_handler()
    async def usual(c: Client, p: Packet) -> Book:
        return Book(id=len(p), title=c.address)

    async with serving(server) as running, running.client() as client:
        assert await client.request({"a": 1}) == {"id": 1, "title": "127.0.0.1"}


async def test_a_handler_of_client_and_packet_is_called_as_without_this_plugin() -> None:
    server = Server(port=0)

    @server.add_handler()
    async def usual(client: Client, packet: Packet) -> Mapping[str, Any]:
        return dict(packet)

    async with serving(server) as running, running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
        ((handler,),) = server.handlers.values()
        assert handler.run is usual


async def test_a_router_with_a_prefix_has_operations_of_classes() -> None:
    server, books = Server(port=0), Router(prefix="books.")

    @books.operation(Read)
    async def read(request: Read) -> Book:
        return Book(id=request.id, title="x")

    server.include(books)
    async with serving(server) as running, running.client() as client:
        assert (await client.call(Read(id=7))).id == 7
    with pytest.raises(ValueError, match=r"Read is the operation 'books\.read', but the names .* begin with 'films\.'"):
        Router(prefix="films.").operation(Read)


async def test_another_field_may_have_the_name_of_the_operation() -> None:
    server = Server(port=0)

    @server.operation(Call)
    async def read(request: Call) -> Book:
        return Book(id=1, title=request.op)

    async with serving(server) as running, running.client() as client:
        assert (await client.call(Call(op="x"))).title == "x"


async def test_aliases_are_the_names_in_packets() -> None:
    server = Server(port=0)

    @server.operation(Get)
    async def get(request: Get) -> Aliased:
        return Aliased(**{"class": request.from_})

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "get", "from": "here"}) == {"class": "here"}
        assert (await client.call(Get(**{"from": "there"}))).class_ == "there"


async def test_a_validator_of_a_model_is_called_and_its_message_sent() -> None:
    server = Server(port=0)

    @server.operation(Even)
    async def even(request: Even) -> None: ...

    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "even", "n": 1})
        assert answer["fields"] == [{"loc": ["n"], "msg": "Value error, must be even"}]


async def test_an_exception_of_a_validator_is_a_failure_of_the_handler() -> None:
    server = Server(port=0)

    @server.operation(Broken)
    async def broken(request: Broken) -> None: ...

    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "broken", "n": 1}) == {"status": "failure", "error": "ERR_HANDLER_FAILED"}
        assert (await client.request({"op": "broken", "n": "x"}))["error"] == "ERR_INVALID"  # it is not called


async def test_another_answer_than_announced_is_an_error_of_the_client() -> None:
    server = Server(port=0)

    @server.operation("books.read")
    async def read(client: Client, packet: Packet) -> Mapping[str, Any]:
        return {"title": 7}

    @server.operation("books.remove")
    async def remove(client: Client, packet: Packet) -> Mapping[str, Any]:
        return {"removed": 1}

    @server.operation("books.list")
    async def stream(client: Client, packet: Packet) -> AsyncIterator[Mapping[str, Any]]:
        yield {"id": 1, "title": "x"}
        yield {"id": 2}
        yield {"id": 3, "title": "z"}

    async with serving(server) as running, running.client(version=23) as client:
        with pytest.raises(InvalidReply, match=r"an answer to Read of another form .* no Book: id: Field required"):
            await client.call(Read(id=7))
        with pytest.raises(InvalidReply, match="Remove"):
            await client.call(Remove(id=7))
        stream_of_books = client.stream_call(ListBooks())
        assert (await anext(stream_of_books)).id == 1
        with pytest.raises(InvalidReply, match="ListBooks"):
            await anext(stream_of_books)
        with pytest.raises(StopAsyncIteration):
            await anext(stream_of_books)


async def test_a_failure_is_raised_by_call_whatever_raise_failures_says() -> None:
    async with serving(bookshop()) as running, running.client(raise_failures=False) as client:
        with pytest.raises(FailureReply, match="ERR_NOT_FOUND: no such book"):
            await client.call(Read(id=404))
        with pytest.raises(NoHandlerFound):
            await client.call(Unknown())


class Unknown(Request[None], op="unknown"):
    pass


async def test_mistakes_with_call_are_explained() -> None:
    async with serving(bookshop()) as running, running.client(version=23) as client:
        with pytest.raises(TypeError, match=r"got the class Read; send a mapping with request or stream"):
            await client.call(Read)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="got a dict; send a mapping with request"):
            await client.call({"op": "books.read"})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"ListBooks is for stream_call: send it with client.stream_call"):
            await client.call(ListBooks())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"Read is for call: send it with client.call"):
            client.stream_call(Read(id=7))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="extra has the field 'id', which the request has, too"):
            await client.call(Read(id=7), extra={"id": 8})


@VERSIONS
async def test_a_handler_of_an_operation_that_returns_none_is_answered_for(version: Version) -> None:
    server = Server(port=0)

    @server.operation("move")
    async def move(point: Point) -> None: ...

    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "move", "x": 1, "y": 2}) == {"status": "success"}


@VERSIONS
async def test_a_handler_that_takes_the_client_answers_itself(version: Version) -> None:
    server = Server(port=0)

    @server.operation("move")
    async def itself(point: Point, client: Client) -> None:
        await client.send({"x": point.x})

    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "move", "x": 1, "y": 2}) == {"x": 1}
        assert await client.request({"op": "move", "x": 2, "y": 2}) == {"x": 2}
        assert client.pending == 0


@VERSIONS
async def test_a_handler_of_an_earlier_group_leaves_the_answer_to_a_later_one(version: Version) -> None:
    server = Server(port=0)
    seen: list[int] = []

    @server.add_handler(Filters.HasFields(x=None))
    async def first(point: Point) -> None:
        seen.append(point.x)

    @server.add_handler(Filters.HasFields(x=None), group=1)
    async def second(point: Point) -> Seen:
        return Seen(address="", fields=len(seen), same=True)

    async with serving(server) as running, running.client(version=version) as client:
        for number in (1, 2):
            assert (await client.request({"x": 1, "y": 2}))["fields"] == number
