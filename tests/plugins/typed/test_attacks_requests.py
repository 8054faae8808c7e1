"""Classes of requests that are generic, refer to later classes, or have unusual fields."""

from __future__ import annotations

from typing import Any, Generic, Optional, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
)

from asyncapy import Server
from asyncapy.typed import Binary, Request, StreamRequest
from asyncapy_core.testing import serving

T = TypeVar("T")
K = TypeVar("K")


class Later(Request["Book"], op="later"):
    pass


class Maybe(Request[Optional["Book"]], op="maybe"):
    pass


class Unknown(Request["Nowhere"], op="unknown"):  # type: ignore[name-defined]  # there is no such name
    pass


class Wrong(Request[list[int]], op="wrong"):
    pass


class Book(BaseModel):
    id: int = 1


class Page(BaseModel, Generic[T]):
    items: list[T]


class Get(Request[Book], Generic[K], op="get"):
    key: K


class Find(Request[Page[T]], Generic[T, K], op="find"):
    key: K


class FindBook(Find[Book, int]):
    size: int = 10


class Stream(StreamRequest[T], Generic[T], op="stream"):
    pass


class Either(Request[T | None], Generic[T], op="either"):
    pass


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (Later, Book),
        (Maybe, Book | None),
        (Get, Book),
        (Get[int], Book),
        (Find[Book, int], Page[Book]),
        (FindBook, Page[Book]),
        (Stream[Book], Book),
        (Either[Book], Book | None),
    ],
)
def test_a_class_of_requests_knows_its_answer(kind: Any, result: Any) -> None:
    assert kind.__asyncapy_result__() == result
    assert kind.__asyncapy_operation__[0] == "op"


@pytest.mark.parametrize("kind", [Stream, Either])
def test_a_generic_class_without_its_arguments_does_not_know_its_answer(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"does not name the type of its answer: write {kind.__name__}\[Book\]"):
        kind().__asyncapy_fields__()


async def test_a_generic_request_is_called() -> None:
    server = Server(port=0)

    @server.operation(Get)
    async def get(request: Get[int]) -> Book:
        return Book(id=request.key)

    @server.operation(FindBook)
    async def find(request: FindBook) -> Page[Book]:
        return Page[Book](items=[Book(id=request.key)])

    async with serving(server) as running, running.client() as client:
        assert await client.call(Get[int](key=7)) == Book(id=7)
        assert (await client.request({"op": "get", "key": "x"}))["fields"][0]["loc"] == ["key"]
        assert (await client.call(FindBook(key=8))).items == [Book(id=8)]


async def test_an_answer_that_cannot_be_read_is_a_mistake_before_anything_is_sent() -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> dict[str, Any]:
        seen.append(packet)
        return {}

    async with serving(server) as running, running.client() as client:
        with pytest.raises(
            TypeError, match=r"the answer of Wrong: an answer is a map of fields, and list\[int\] is none"
        ):
            await client.call(Wrong())
        with pytest.raises(
            TypeError, match="the answer of Unknown has the unknown name 'Nowhere': define it in the module"
        ):
            await client.call(Unknown())
    assert seen == []


def test_no_field_may_have_the_name_of_the_field_of_the_operation_in_a_packet() -> None:
    message = r"has a field 'op', but that is the field for the name of its operation; rename it"
    with pytest.raises(TypeError, match=message):

        class Sent(Request[Book], op="x"):
            other: int = Field(serialization_alias="op")

    with pytest.raises(TypeError, match=message):

        class Read(Request[Book], op="x"):
            other: int = Field(validation_alias="op")

    with pytest.raises(TypeError, match=message):

        class Chosen(Request[Book], op="x"):
            other: int = Field(validation_alias=AliasChoices("other", "op"))

    with pytest.raises(TypeError, match=message):

        class Generated(Request[Book], op="x"):
            model_config = ConfigDict(alias_generator=lambda name: "op")
            other: int


class LogIn(Request[Book], op="log-in", extra="forbid"):
    password: SecretStr
    codes: list[SecretStr] = Field(default=[])
    pin: Secret[int] | None = None
    key: SecretBytes | None = None
    data: Binary | None = None
    numbers: Json[list[int]] | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.password)


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_the_server_gets_an_equal_request(encoding: str) -> None:
    server = Server(port=0)
    seen: list[LogIn] = []

    @server.operation(LogIn)
    async def log_in(request: LogIn) -> Book:
        seen.append(request)
        return Book()

    requests = [
        LogIn(password=SecretStr("secret")),
        LogIn.model_validate(
            {"password": "s", "codes": ["a", "b"], "pin": 7, "key": "k", "data": b"\xff", "numbers": "[1, 2]"}
        ),
    ]
    async with serving(server) as running, running.client(encoding=encoding) as client:
        for request in requests:
            await client.call(request)
    assert seen == requests
    assert requests[0].__asyncapy_fields__()["password"] == "secret"
    assert "length" not in requests[0].__asyncapy_fields__()


async def test_a_secret_in_an_answer_is_hidden() -> None:
    server = Server(port=0)

    class Account(BaseModel):
        password: SecretStr
        data: Binary = b""

    async def account(n: Any) -> Any:
        return Account(password=SecretStr("secret"), data=b"\xff")

    account.__annotations__ = {"n": Book, "return": Account}
    server.operation("account")(account)
    async with serving(server) as running, running.client(encoding="ziproto") as client:
        assert await client.request({"op": "account"}) == {"password": "**********", "data": b"\xff"}
