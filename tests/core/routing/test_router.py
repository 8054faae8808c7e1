from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

from asyncapy_core import Client, Filter, Packet, Router, Server
from asyncapy_core.server.detached import Detached
from asyncapy_core.server.explain import explain_packet
from asyncapy_filters import Fields, HasFields, Ip


@pytest.fixture
def server() -> Server:
    return Server(logging_level="CRITICAL")


async def read(client: Client, packet: Packet) -> None: ...


async def write(client: Client, packet: Packet) -> None: ...


def registered(server: Server) -> dict[int, list[tuple[str, list[str]]]]:
    """Return the names and filters of the handlers of each group."""
    return {
        group: [(handler.name, [repr(filter) for filter in handler.filters]) for handler in handlers]
        for group, handlers in server.handlers.items()
    }


async def running(server: Server, fields: dict[str, Any]) -> list[str]:
    return [verdict.handler for verdict in await explain_packet(server, fields) if verdict.runs]


async def test_an_operation_gets_the_packets_with_its_name(server: Server) -> None:
    server.operation("books.read")(read)
    server.operation("books.write")(write)
    assert await running(server, {"op": "books.write", "id": 7}) == ["write"]
    assert await running(server, {"op": "books.writer"}) == []
    assert await running(server, {"op": ["books.write"]}) == []
    assert await running(server, {"id": 7}) == []


async def test_the_filters_of_an_operation_are_asked_about_its_packets_only(server: Server) -> None:
    asked: list[str] = []

    class Noting(Filter):
        def check(self, c: Client, p: Packet) -> bool:
            asked.append(p["op"])
            return True

    server.operation("read", Noting())(read)
    assert await server.handlers[0][0].check(Detached("::1", server=server).client, Packet({"op": "other"})) is False
    assert asked == []


def test_an_operation_may_be_in_any_group(server: Server) -> None:
    assert server.operation("read", HasFields(id=None), group=3)(read) is read
    assert registered(server) == {3: [("read", ["Operation(op='read')", "HasFields(id=None)"])]}


async def test_a_router_has_a_field_and_a_prefix(server: Server) -> None:
    books = Router(field="call", prefix="books.")
    books.operation("read")(read)
    books.add_handler(Fields(list=None))(write)
    server.include(books)
    assert await running(server, {"call": "books.read"}) == ["read"]
    assert await running(server, {"op": "books.read"}) == []
    assert await running(server, {"list": 1}) == ["write"]


def test_the_filters_and_the_group_of_an_inclusion_are_added(server: Server) -> None:
    books = Router()
    books.operation("read", HasFields(id=None))(read)
    books.register_handler(write, Fields(a=None), group=2)
    server.include(books, Ip("::1"), group=10)
    assert registered(server) == {
        10: [("read", ["Operation(op='read')", "Ip(['::1'])", "HasFields(id=None)"])],
        12: [("write", ["Ip(['::1'])", "Fields(a=None)"])],
    }


def test_routers_nest_and_their_prefixes_filters_and_groups_add_up(server: Server) -> None:
    shop, books = Router(prefix="shop."), Router(prefix="books.")
    books.operation("read")(read)
    shop.include(books, Ip("::1"), group=1)
    server.include(shop, Ip("::2"), group=1)
    assert registered(server) == {2: [("read", ["Operation(op='shop.books.read')", "Ip(['::2'])", "Ip(['::1'])"])]}


def test_handlers_that_are_added_after_the_inclusion_are_registered_too(server: Server) -> None:
    shop, books = Router(), Router(prefix="books.")
    server.include(shop)
    shop.include(books)
    registration = books.register_handler(read)
    books.operation("write")(write)
    assert [name for name, _ in registered(server)[0]] == ["read", "write"]
    registration.remove()
    assert registered(server) == {0: [("write", ["Operation(op='books.write')"])]}


def test_a_router_may_be_included_several_times(server: Server) -> None:
    books, other = Router(), Server(logging_level="CRITICAL")
    books.operation("read")(read)
    first = server.include(books)
    server.include(books, Ip("::1"), group=1)
    other.include(books)
    first.remove()
    assert list(server.handlers) == [1]
    assert list(other.handlers) == [0]
    books.operation("write")(write)
    assert [len(each) for each in server.handlers.values()] == [2]


def test_a_router_that_is_taken_out_gets_no_more_handlers(server: Server) -> None:
    books = Router()
    books.operation("read")(read)
    with server.include(books) as inclusion:
        assert inclusion.registered is books
        assert len(server.handlers[0]) == 1
    inclusion.remove()
    books.operation("write")(write)
    assert server.handlers == {}


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_router_cannot_be_included_into_itself(depth: int) -> None:
    routers = [Router() for _ in range(depth + 1)]
    for outer, inner in itertools.pairwise(routers):
        outer.include(inner)
    with pytest.raises(ValueError, match="<Router field='op' handlers=0> cannot be included into itself"):
        routers[-1].include(routers[0])


def test_routers_with_different_fields_nest_unless_the_outer_one_has_a_prefix(server: Server) -> None:
    inner = Router(field="call")
    inner.operation("read")(read)
    Router(field="op").include(inner)
    outer = Router(field="op", prefix="shop.")
    with pytest.raises(ValueError, match=r"prefix 'shop\.' has the field 'op', but the operation 'read' has 'call'"):
        outer.include(inner)
    late = Router(field="call")
    outer.include(late)
    server.include(late)
    with pytest.raises(ValueError, match="give both routers the same field"):
        late.operation("read")(read)
    assert server.handlers == {}, "it is registered everywhere or nowhere"
    late.add_handler()(write)
    assert len(server.handlers[0]) == 1


def test_a_failed_inclusion_registers_nothing(server: Server) -> None:
    inner, outer = Router(), Router(prefix="shop.")
    server.include(outer)
    inner.add_handler()(write)
    other = Router(field="call")
    other.operation("read")(read)
    inner.include(other)
    with pytest.raises(ValueError, match="give both routers the same field"):
        outer.include(inner)
    assert server.handlers == {}
    inner.add_handler()(write)
    assert server.handlers == {}


def test_wrong_arguments_are_refused_where_they_are_given(server: Server) -> None:
    router = Router()
    for routes in (server, router):
        with pytest.raises(TypeError, match=r"write @server\.operation\('books\.read'\)"):
            routes.operation(read)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="the name of an operation is a string"):
            routes.operation(7)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ValueError, match="the name of an operation is empty"):
            routes.operation("")
        with pytest.raises(TypeError, match=r"write @server\.operation\('read'\)"):
            routes.operation("read", read)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="add_handler is called before it decorates"):
            routes.add_handler(read)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="a filter must be a Filter"):
            routes.operation("read", "key")(read)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="a handler must be an 'async def' function; got 7"):
            routes.operation("read")(7)  # type: ignore[type-var]  # the mistake
        with pytest.raises(TypeError, match="include takes a Router; got"):
            routes.include(server)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="a filter must be a Filter"):
            routes.include(Router(), "key")  # type: ignore[arg-type]  # the mistake
    wrong: list[dict[str, Any]] = [{"field": 7}, {"prefix": None}]
    with pytest.raises(TypeError, match="a handler must be asynchronous"):
        server.operation("read")(lambda client, packet: None)  # type: ignore[type-var]  # the mistake
    for options in wrong:
        with pytest.raises(TypeError, match="is a string; got"):
            Router(**options)
    with pytest.raises(ValueError, match="field is empty"):
        Router(field="")
    assert server.handlers == {}


def test_a_function_of_a_router_that_no_plugin_adapts_is_refused_with_its_place_as_it_is_included(
    server: Server,
) -> None:
    router = Router()
    router.register_handler(read)
    router.register_handler(lambda client, packet: None)  # type: ignore[arg-type, return-value]  # the mistake
    outer = Router()
    outer.include(router)
    with pytest.raises(TypeError, match="a handler must be asynchronous") as caught:
        server.include(outer)
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"the handler '<lambda>' is at .*test_router\.py:\d+", note)
    assert server.handlers == {}


@pytest.mark.parametrize("group", ["0", None, 1.0, True])
def test_a_group_that_is_no_integer_is_a_type_error(server: Server, group: Any) -> None:
    registers: list[Callable[[Any], object]] = [
        lambda routes: routes.register_handler(read, group=group),
        lambda routes: routes.operation("read", group=group)(read),
        lambda routes: routes.include(Router(), group=group),
    ]
    for register, routes in itertools.product(registers, (server, Router())):
        with pytest.raises(TypeError, match="group must be an integer, the lower the earlier"):
            register(routes)


def test_a_handler_is_taken_out_once(server: Server) -> None:
    first, second = server.register_handler(read), server.register_handler(read)
    first.remove()
    first.remove()
    assert len(server.handlers[0]) == 1
    assert repr(first).endswith(", removed>")
    assert not repr(second).endswith(", removed>")
    second.remove()
    assert server.handlers == {}


async def test_a_guard_that_is_taken_out_is_asked_no_more(server: Server) -> None:
    server.register_handler(read)

    @server.guard
    def nobody(client: Client, packet: Packet) -> bool:
        """Refuse all."""
        return False

    everybody = server.guard(Ip("127.0.0.0/8"))
    assert nobody(None, None) is False, "the function can still be called"
    assert inspect.getdoc(nobody) == "Refuse all."
    assert await running(server, {"a": 1}) == []
    nobody.remove()
    assert await running(server, {"a": 1}) == ["read"]
    assert [repr(each.filters[0]) for each in server.guards] == ["Ip(['127.0.0.0/8'])"]
    everybody.remove()
    assert server.guards == ()


async def test_a_guard_may_be_used_by_a_second_server(server: Server) -> None:
    other = Server(logging_level="CRITICAL")

    @server.guard
    async def refuse(client: Client, packet: Packet) -> bool:
        return False

    other.guard(refuse)
    other.guard(server.guard(Ip("127.0.0.1")))
    other.register_handler(read)
    assert await running(other, {"a": 1}) == []
    assert [repr(each.filters[0]) for each in other.guards] == ["refuse", "Ip(['127.0.0.1'])"]
