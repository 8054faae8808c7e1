"""Mistakes in handlers with models: each is an error where the handler is registered, which says what to do."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
import typing_extensions
from pydantic import BaseModel

from asyncapy import Client, Packet, Server
from asyncapy.core import Handler
from asyncapy.errors import PluginError
from asyncapy.typed import Depends, FromContext, Request, StreamRequest
from asyncapy_core.routing.router import Route
from asyncapy_typed.adapting import adapt
from asyncapy_typed.signatures import is_typed

if TYPE_CHECKING:
    from decimal import Decimal


class Book(BaseModel):
    id: int


class Film(BaseModel):
    id: int


class Read(Request[Book], op="books.read"):
    id: int


class NoOperation(Request[Book]):
    id: int


class ListBooks(StreamRequest[Book], op="books.list"):
    pass


class WithBytes(BaseModel):
    data: bytes


class Unfinished(msgspec.Struct):
    other: Missing  # type: ignore[name-defined]  # noqa: F821  # there is no such name


def of_arguments(**hints: Any) -> Callable[..., Any]:
    """Return a handler with these annotations."""

    async def handler(*args: Any) -> None: ...

    names = [name for name in hints if name != "result"]
    namespace: dict[str, Any] = {}
    exec(f"async def handler({', '.join(names)}): ...", namespace)
    made: Callable[..., Any] = namespace["handler"]
    made.__annotations__ = {("return" if name == "result" else name): hint for name, hint in hints.items()}
    return made


def circle_a(b: Annotated[int, Depends(lambda: 1)]) -> int:
    return b


def circle_b(a: Annotated[int, Depends(circle_a)]) -> int:
    return a


circle_a.__annotations__["b"] = Annotated[int, Depends(circle_b)]


def unknown_name(request: Read, price: Decimal) -> None: ...


async def of_type_checking(request: Read, price: Decimal) -> Book:
    raise AssertionError


async def variadic(request: Read, *numbers: int) -> Book:
    raise AssertionError


async def two(book: Book, film: Film) -> Book:
    raise AssertionError


async def generator_of_one(request: Read) -> AsyncIterator[Book]:
    yield Book(id=1)


async def one_of_a_stream(request: ListBooks) -> Book:
    raise AssertionError


async def generator_annotated_wrongly(book: Book) -> Book:  # type: ignore[misc]
    yield Book(id=1)


def plain(request: Read) -> Book:
    raise AssertionError


OPERATION = "books.read"

MISTAKES: dict[str, tuple[Any, str | None, str]] = {
    "an unknown type": (
        of_arguments(request=Read, number=int),
        OPERATION,
        r"the parameter 'number' of the handler 'handler' has the type int, which is not known; annotate it with Cli",
    ),
    "two models": (two, OPERATION, r"takes Book and Film, but a packet is one model; put the fields into one class"),
    "variadic": (variadic, OPERATION, r"takes \*numbers, which cannot be filled; name its parameters"),
    "plain": (plain, OPERATION, r"must be asynchronous: write 'async def plain\(\.\.\.\)'"),
    "a name for type checkers": (
        of_type_checking,
        OPERATION,
        r"the unknown name 'Decimal': import it at run time, not below 'if TYPE_CHECKING'",
    ),
    "without an operation": (
        of_arguments(request=NoOperation, result=Book),
        OPERATION,
        r"NoOperation has no operation: write class NoOperation\(Request\[\.\.\.\], op='books.read'\)",
    ),
    "not registered as an operation": (
        of_arguments(request=Read, result=Book),
        None,
        r"the operation 'books.read': register it with @server.operation\(Read\)",
    ),
    "another operation": (
        of_arguments(request=Read, result=Book),
        "books.reed",
        r"but it is registered for 'books.reed' in the field 'op': register it with @server.operation\(Read\)",
    ),
    "another answer": (
        of_arguments(request=Read, result=Film),
        OPERATION,
        r"returns Film, but Read is a Request\[Book\]; change one of them",
    ),
    "a generator for a request": (
        generator_of_one,
        OPERATION,
        r"has any number of answers, but Read is a Request; derive it from StreamRequest",
    ),
    "one answer for a stream": (
        one_of_a_stream,
        "books.list",
        r"ListBooks is a StreamRequest, but the handler .* has one answer; write an async generator",
    ),
    "a generator with another annotation": (
        generator_annotated_wrongly,
        "x",
        r"is an async generator: annotate its result as AsyncIterator\[\.\.\.\]",
    ),
    "a list as an answer": (
        of_arguments(book=Book, result=list[Book]),
        "x",
        r"an answer is a map of fields, and list\[.*Book\] is none: use a model with a field for it",
    ),
    "a text as an answer": (of_arguments(book=Book, result=str), "x", r"and str is none: use a model"),
    "Depends without a function": (
        of_arguments(number=Annotated[int, Depends], request=Read),
        OPERATION,
        r"the parameter 'number' of .* has Depends without a function: write Depends\(function\)",
    ),
    "both Depends and FromContext": (
        of_arguments(number=Annotated[int, Depends(int), FromContext()]),
        "x",
        r"has several of Depends and FromContext; leave one",
    ),
    "a circle of dependencies": (
        of_arguments(number=Annotated[int, Depends(circle_a)]),
        "x",
        r"the dependencies of the handler 'handler' depend on each other in a circle: circle_a -> circle_b -> circle_a",
    ),
    "a dependency with an unknown parameter": (
        of_arguments(number=Annotated[int, Depends(of_arguments(price=float))]),
        "x",
        r"the parameter 'price' of the dependency 'handler' has the type float, which is not known",
    ),
    "anything of the context": (
        of_arguments(thing=Annotated[Any, FromContext()]),
        "x",
        r"is a Any, by which nothing is found in the context; write FromContext\('name'\)",
    ),
    "bytes": (
        of_arguments(book=WithBytes),
        "x",
        r"a field of WithBytes is bytes, which JSON has not: annotate it as asyncapy_typed.Binary",
    ),
    "an unfinished struct": (of_arguments(book=Unfinished), "x", r"msgspec cannot validate Unfinished: name 'Missing'"),
}


@pytest.mark.parametrize("name", [*MISTAKES])
def test_a_mistake_is_named_where_the_handler_is_registered(name: str) -> None:
    function, operation, message = MISTAKES[name]
    with pytest.raises(TypeError, match=message):
        adapt(function, Server(port=0), Route(function, (), 0, operation, "op"))


def test_a_parameter_without_an_annotation_is_named() -> None:
    async def handler(request: Read, number) -> Book:  # type: ignore[no-untyped-def]
        raise AssertionError

    server = Server(port=0)
    with pytest.raises(PluginError, match=r"^the parameter 'number' of the handler .* no annotation"):
        _started(server, handler)


def _started(server: Server, handler: Any) -> Handler:
    """Register a handler of the operation of Read, and adapt it as at the start."""
    server.operation(Read)(handler)
    with server._wrapped():
        ((made,),) = server.handlers.values()
    return made


def test_an_annotation_of_the_interface_of_a_server_will_do() -> None:
    async def handler(request: Read, here: Server, client: Client) -> Book:
        raise AssertionError

    assert _started(Server(port=0), handler).function is handler


async def usual(client: Client, packet: Packet) -> None: ...
async def without_annotations(c, p): ...  # type: ignore[no-untyped-def]
async def of_any(client: Any, packet: Any) -> Any: ...
async def with_texts(client: "Client", packet: "asyncapy.Packet") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037
async def with_default(client: Client, packet: Packet, size: int = 3) -> None: ...
async def of_mappings(client: Client, packet: Packet) -> dict[str, int]: ...  # type: ignore[empty-body]
async def of_mapping_parts(client: Client, packet: Packet) -> AsyncIterator[dict[str, int]]:
    yield {}


class Callable_:
    async def __call__(self, client: Client, packet: Packet) -> None: ...

    async def method(self, client: Client, packet: Packet) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        usual,
        without_annotations,
        of_any,
        with_texts,
        of_mappings,
        of_mapping_parts,
        Callable_(),
        Callable_().method,
        functools.partial(with_default, size=3),
        lambda client, packet: None,
        "text",
    ],
)
def test_a_handler_of_client_and_packet_is_left_alone(function: Any) -> None:
    assert not is_typed(function)


async def of_book(client: Client, packet: Packet) -> Book: ...  # type: ignore[empty-body]
async def of_books(client: Client, packet: Packet) -> AsyncIterator[Book]:
    yield Book(id=1)


async def other_order(packet: Packet, client: Client) -> None: ...
async def one(packet: Packet) -> None: ...
async def with_depends(client, packet, number=Depends(int)): ...  # type: ignore[no-untyped-def]  # noqa: B008


class Typed_:
    async def __call__(self, request: Read) -> Book: ...  # type: ignore[empty-body]

    async def method(self, request: Read) -> Book: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    "function",
    [
        of_book,
        of_books,
        other_order,
        one,
        with_depends,
        plain,
        Typed_(),
        Typed_().method,
        functools.partial(of_type_checking, price=1),  # type: ignore[arg-type]  # it is not called
    ],
)
def test_any_other_shape_is_for_this_plugin(function: Any) -> None:
    assert is_typed(function)


class Old(typing_extensions.TypedDict):
    id: int


def test_a_class_of_requests_has_its_operation_and_names_its_answer() -> None:
    assert Read.__asyncapy_operation__ == ("op", "books.read")
    assert Read.__asyncapy_result__() is Book
    assert ListBooks.__asyncapy_result__() is Book
    with pytest.raises(TypeError, match=r"Untyped does not name the type of its answer: write class Untyped\(Request"):

        class Untyped(Request, op="x"):  # type: ignore[type-arg]
            pass

    with pytest.raises(TypeError, match=r"Same has a field 'op', but that is the field for the name of its operation"):

        class Same(Request[Book], op="x"):
            op: int

    with pytest.raises(TypeError, match=r"op of Wrong is the name of its operation, such as 'books.read'; got 7"):

        class Wrong(Request[Book], op=7):
            pass

    with pytest.raises(TypeError, match=r"errors of Wrong2 is a list of codes, such as \['ERR_NOT_FOUND'\]; got 'ERR"):

        class Wrong2(Request[Book], op="x", errors="ERR_X"):
            pass

    with pytest.raises(TypeError, match="NoOperation has no operation: write class NoOperation"):
        NoOperation(id=1).__asyncapy_fields__()


def test_a_class_may_inherit_its_fields() -> None:
    class Identified(BaseModel):
        id: int

    class ReadAgain(Identified, Request[Book], op="again"):
        pass

    class Base(Request[Book]):
        id: int

    class Derived(Base, op="derived"):
        more: int = 0

    assert ReadAgain(id=1).__asyncapy_fields__() == {"op": "again", "id": 1}
    assert Derived(id=1).__asyncapy_fields__() == {"op": "derived", "id": 1, "more": 0}
    assert Derived.__asyncapy_result__() is Book


def test_an_operation_is_a_name_or_a_class_with_one() -> None:
    server = Server(port=0)
    with pytest.raises(TypeError, match=r"NoOperation has no operation: write class NoOperation\(Request"):
        server.operation(NoOperation)
    with pytest.raises(
        TypeError, match=r"Book is no class of requests with an operation: give one, such as class Read\(Request"
    ):
        server.operation(Book)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"is a string, such as 'books\.read'; got 7"):
        server.operation(7)  # type: ignore[arg-type]


def test_a_handler_of_a_class_of_requests_takes_one() -> None:
    server = Server(port=0)
    with pytest.raises(
        PluginError, match=r"registered with @server.operation\(Read\), and takes no Read: add the parameter"
    ):

        @server.operation(Read)
        async def forgotten(client: Client) -> Book:
            raise AssertionError

    @server.operation(Read)
    async def of_packet(packet: Packet) -> Book:
        raise AssertionError

    server.operation(Read)(usual)


def test_a_plain_generator_is_no_handler() -> None:
    def numbers(request: Read) -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="must be asynchronous"):
        adapt(numbers, Server(port=0), Route(numbers, (), 0, OPERATION, "op"))  # type: ignore[arg-type]


class Called:
    """A callable object whose attributes look like those of `functools.partial`."""

    def __init__(self) -> None:
        self.func = self

    async def __call__(self, request: Read) -> Book:
        raise AssertionError


async def of_unannotated(c, p) -> Book:  # type: ignore[no-untyped-def]
    raise AssertionError


@pytest.mark.parametrize("function", [Called(), of_unannotated])
def test_a_handler_is_adapted_whatever_its_attributes_and_the_names_of_client_and_packet(function: Any) -> None:
    assert is_typed(function)
    assert adapt(function, Server(port=0), Route(function, (), 0, OPERATION, "op")) is not None


def test_depends_without_a_function_says_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"write Depends\(function\), without calling it; got None"):
        Depends()
