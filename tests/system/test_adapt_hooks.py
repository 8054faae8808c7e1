"""Handlers of other shapes: `asyncapy_adapt`."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import pytest
import trio
from conftest import Start
from hooks import Plugin, manager
from pydantic import BaseModel

from asyncapy import Client, Packet, Router, Server
from asyncapy.errors import PluginError
from asyncapy.filters import Filters
from asyncapy_core.routing.router import Route

versions = pytest.mark.parametrize("version", [22, 23])


def adapt_plain(function: Any) -> Any:
    """Adapt plain functions, which get the fields of the packet as arguments, and classes with a method ``answer``."""
    if function is Answers:
        return Answers().answer
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return None
    if inspect.isgeneratorfunction(function):

        async def stream(client: Client, packet: Packet) -> AsyncIterator[dict[str, Any]]:
            for found in function(**packet.fields):
                await trio.lowlevel.checkpoint()
                yield found

        return stream

    async def call(client: Client, packet: Packet) -> Any:
        return function(**packet.fields)

    return call


class Answers:
    async def answer(self, client: Client, packet: Packet) -> dict[str, Any]:
        return {"answer": packet["b"]}


def double(a: int) -> dict[str, int]:
    return {"double": 2 * a}


def count(c: int) -> Any:
    for number in range(c):
        yield {"n": number}


@versions
async def test_the_hook_asyncapy_adapt_makes_handlers_of_functions_classes_and_generators(
    asyncapy_server: Start, version: Literal[22, 23]
) -> None:
    server: Any = Server(plugins=manager(plain=Plugin(asyncapy_adapt=adapt_plain)))
    registration = server.register_handler(double, Filters.Fields(a=None))
    router: Any = Router()
    router.add_handler(Filters.Fields(b=None))(Answers)
    outer = Router()
    outer.include(router)
    server.include(outer, group=2)
    assert registration.registered is double
    assert [handler.function for handlers in server.handlers.values() for handler in handlers] == [double, Answers]
    running = await asyncapy_server(server)
    server.add_handler(Filters.Fields(c=None))(count)

    async with running.client(version=version) as client:
        assert await client.request({"a": 21}) == {"double": 42}
        assert await client.request({"b": 3}) == {"answer": 3}
        if version == 23:
            async with client.stream({"c": 3}) as parts:
                assert [part["n"] async for part in parts] == [0, 1, 2]
        registration.remove()
        found = await client.request({"a": 21})
        assert found is not None
        assert found["error"] == "ERR_NO_HANDLER"


async def test_a_class_with_two_servers_is_adapted_for_each() -> None:
    seen: list[tuple[str, Server]] = []

    def adapt(function: Any, server: Server, route: Route) -> Any:
        seen.append((f"{route.name} {route.group} {route.operation} {[*map(repr, route.filters)]}", server))
        return adapt_plain(function)

    plugins = manager(plain=Plugin(asyncapy_adapt=adapt))
    one, two = Server(plugins=plugins), Server(plugins=plugins)
    router: Any = Router(prefix="b.")
    router.operation("double", group=1)(double)
    for server in (one, two):
        server.include(router, Filters.Ip("10.0.0.1"), group=3)
    assert seen == [
        ("double 4 b.double [\"Ip(['10.0.0.1'])\"]", one),
        ("double 4 b.double [\"Ip(['10.0.0.1'])\"]", two),
    ]


async def test_a_function_that_can_be_a_handler_is_adapted_too(asyncapy_server: Start) -> None:
    async def handler(client: Client, packet: Packet) -> dict[str, Any]:
        return {"adapted": False}

    def adapt(function: Any) -> Any:
        async def adapted(client: Client, packet: Packet) -> dict[str, Any]:
            found: dict[str, Any] = await function(client, packet)
            return {**found, "adapted": True}

        return adapted

    server = Server(plugins=manager())
    server.register_handler(handler, Filters.Fields(before=None))
    server.plugins.register(Plugin(asyncapy_adapt=adapt), "all")
    running = await asyncapy_server(server)
    server.register_handler(handler, Filters.Fields(after=None))
    async with running.client() as client:
        assert await client.request({"before": 1}) == {"adapted": True}
        assert await client.request({"after": 1}) == {"adapted": True}


@pytest.mark.parametrize("removed", [True, False])
async def test_a_handler_is_not_adapted_if_it_is_removed_before_the_start(removed: bool) -> None:
    asked: list[object] = []

    async def handler(client: Client, packet: Packet) -> None: ...

    def note(function: object) -> None:
        asked.append(function)

    server = Server(port=0, logging_level="CRITICAL", plugins=manager(notes=Plugin(asyncapy_adapt=note)))
    registration = server.register_handler(handler)
    if removed:
        registration.remove()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()
    assert len(asked) == (0 if removed else 1)


async def test_an_exception_for_a_function_that_can_be_a_handler_ends_the_start() -> None:
    async def handler(client: Client, packet: Packet) -> None: ...

    server = Server(port=0, plugins=manager(fails=Plugin(asyncapy_adapt=failing)))
    server.register_handler(handler)
    with pytest.raises(PluginError, match=r"plugin 'fails' of .* failed in asyncapy_adapt for the handler 'handler'"):
        await server.serve()


def test_a_plugin_error_of_the_plugin_is_raised_as_it_is() -> None:
    mistaken = PluginError("the handler 'double' takes a matrix; write a vector")

    def refuse(function: object) -> None:
        raise mistaken

    async def double(number: int) -> None: ...

    server = Server(port=0, plugins=manager(fails=Plugin(asyncapy_adapt=refuse)))
    with pytest.raises(PluginError) as caught:
        server.register_handler(double)
    assert caught.value is mistaken


async def test_the_first_plugin_that_adapts_a_function_does_so_and_wraps_are_around_the_result(
    asyncapy_server: Start,
) -> None:
    asked: list[str] = []

    def adapts(name: str, result: bool) -> Callable[..., Any]:
        def adapt(function: Any) -> Any:
            asked.append(name)
            return adapt_plain(function) if result else None

        return adapt

    plugins = manager(
        c=Plugin(asyncapy_adapt=adapts("c", False)),
        b=Plugin(asyncapy_adapt=adapts("b", True)),
        a=Plugin(asyncapy_adapt=adapts("a", True)),
    )
    server = Server(plugins=plugins)

    @server.around
    def triple(call: Any) -> Any:
        async def tripled(client: Client, packet: Packet) -> dict[str, int]:
            return {"tripled": 3 * (await call(client, packet))["double"]}

        return tripled

    server.register_handler(double)  # type: ignore[arg-type]  # b adapts it
    assert asked == ["c", "b"]
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"tripled": 6}
    assert asked == ["c", "b"]


def test_a_function_that_no_plugin_adapts_is_refused_where_it_is_registered() -> None:
    server: Any = Server(plugins=manager(none=Plugin(asyncapy_adapt=lambda: None)))
    for function, reason in ((double, "a handler must be asynchronous"), (7, "got 7"), (Answers, "asynchronous")):
        with pytest.raises(TypeError, match=reason):
            server.register_handler(function)
    assert server.handlers == {}


def failing() -> None:
    raise ValueError("a slip")


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("adapt", "reason"),
    [
        (failing, "ValueError: a slip"),
        (coroutine, "this hook cannot be async"),
        (lambda: 7, "a handler must be an 'async def' function; got 7"),
        (lambda: lambda client, packet: None, "a handler must be asynchronous"),
    ],
)
def test_a_plugin_that_fails_to_adapt_a_function_is_named_where_it_is_registered(adapt: Any, reason: str) -> None:
    server: Any = Server(plugins=manager(fails=Plugin(asyncapy_adapt=adapt)))
    with pytest.raises(PluginError) as caught:
        server.register_handler(double)
    assert "plugin 'fails' of (registered) failed in asyncapy_adapt for the handler 'double'" in str(caught.value)
    assert reason in str(caught.value)
    assert server.handlers == {}


class Options(BaseModel):
    factor: int = 1


async def test_a_plugin_adapts_with_the_options_of_the_server(asyncapy_server: Start) -> None:
    def adapt(function: Any, options: Options) -> Any:
        async def scaled(client: Client, packet: Packet) -> dict[str, int]:
            return {"scaled": options.factor * packet["a"]}

        return scaled

    plugins = manager(scale=Plugin({"asyncapy_options": Options}, asyncapy_adapt=adapt))
    server: Any = Server(plugins=plugins, plugin_options={"scale": {"factor": 7}})
    server.register_handler(double)
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 6}) == {"scaled": 42}
