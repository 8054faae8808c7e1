"""Functions around handlers: `asyncapy_wrap` of plugins, and `Server.around`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
from conftest import Start
from hooks import Plugin, manager

from asyncapy import Packet, Router, Server
from asyncapy.errors import Failure, PluginError
from asyncapy.filters import Filters
from asyncapy_core import Handler

Call = Callable[[Any, Any], Awaitable[object]]

versions = pytest.mark.parametrize("version", [22, 23])


def noting(calls: list[str], title: str) -> Callable[..., Call]:
    """Return a wrap that notes when its handler begins and ends."""

    def wrap(handler: Handler, call: Call) -> Call:
        async def noted(client: Any, packet: Any) -> object:
            calls.append(f"{title} {handler.name}")
            try:
                return await call(client, packet)
            finally:
                calls.append(f"{title} end")

        return noted

    return wrap


@versions
async def test_the_hook_asyncapy_wrap_is_around_handlers_of_all_kinds(
    asyncapy_server: Start, version: Literal[22, 23]
) -> None:
    calls: list[str] = []
    plugin = Plugin(asyncapy_wrap=noting(calls, "plugin"))
    server = Server(plugins=manager(noting=plugin))

    @server.operation("returns")
    async def returns(client: Any, packet: Any) -> dict[str, int]:
        return {"a": 1}

    server.around(noting(calls, "around"))

    @server.operation("sends")
    async def sends(client: Any, packet: Any) -> None:
        await trio.lowlevel.checkpoint()
        await client.send({"a": 2})

    inner, outer = Router(prefix="inner."), Router(prefix="outer.")

    @inner.operation("yields")
    async def yields(client: Any, packet: Any) -> AsyncIterator[dict[str, int]]:
        yield {"a": 3}
        await trio.lowlevel.checkpoint()

    outer.include(inner)
    server.include(outer, Filters.HasFields(op=None), group=3)
    running = await asyncapy_server(server)

    @server.operation("late")
    async def late(client: Any, packet: Any) -> dict[str, int]:
        return {"a": 4}

    async with running.client(version=version) as client:
        for number, op in enumerate(["returns", "sends", "outer.inner.yields", "late"], 1):
            assert await client.request({"op": op}) == {"a": number}
            name = op.rpartition(".")[2]
            assert calls == [f"plugin {name}", f"around {name}", "around end", "plugin end"]
            calls.clear()


@versions
async def test_a_wrap_may_answer_change_and_refuse(asyncapy_server: Start, version: Literal[22, 23]) -> None:
    server = Server()

    @server.around
    def limited(handler: Handler, call: Call) -> Call | None:
        if handler.operation is None:
            return None

        async def checked(client: Any, packet: Any) -> object:
            if packet["n"] > 2:
                raise Failure("ERR_FORBIDDEN")
            if packet["n"] == 2:
                return {"n": "two"}
            found = await call(client, packet)
            assert isinstance(found, dict)
            return {**found, "wrapped": True}

        return checked

    @server.operation("n")
    async def echo(client: Any, packet: Any) -> dict[str, Any]:
        return {"n": packet["n"]}

    @server.add_handler(Filters.Fields(plain=None))
    async def plain(client: Any, packet: Any) -> dict[str, Any]:
        return {"plain": True}

    running = await asyncapy_server(server)
    async with running.client(version=version) as client:
        assert await client.request({"op": "n", "n": 1}) == {"n": 1, "wrapped": True}
        assert await client.request({"op": "n", "n": 2}) == {"n": "two"}
        found = await client.request({"op": "n", "n": 3})
        assert found is not None
        assert found["error"] == "ERR_FORBIDDEN"
        assert await client.request({"plain": 1}) == {"plain": True}


async def test_a_stream_is_sent_when_the_call_of_its_wrap_returns(asyncapy_server: Start) -> None:
    calls: list[str] = []
    server = Server()
    server.around(noting(calls, "around"))

    @server.add_handler()
    async def count(client: Any, packet: Any) -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            calls.append(str(number))
            yield {"n": number}
            await trio.lowlevel.checkpoint()

    running = await asyncapy_server(server)
    async with running.client(version=23) as client, client.stream({"a": 1}) as parts:
        assert [part async for part in parts] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert calls == ["around count", "0", "1", "2", "around end"]


async def test_a_wrap_may_be_an_async_generator(asyncapy_server: Start) -> None:
    server = Server()

    @server.around
    def framing(call: Call) -> Any:
        async def framed(client: Any, packet: Any) -> AsyncIterator[dict[str, int]]:
            yield {"n": 0}
            await call(client, packet)
            yield {"n": 2}

        return framed

    @server.add_handler()
    async def one(client: Any, packet: Any) -> None:
        await client.send({"n": 1})

    running = await asyncapy_server(server)
    async with running.client(version=23) as client, client.stream({"a": 1}) as parts:
        assert [part["n"] async for part in parts] == [0, 1, 2]


async def test_guards_are_not_wrapped(asyncapy_server: Start) -> None:
    calls: list[str] = []
    server = Server()
    server.around(noting(calls, "around"))
    server.guard(lambda client, packet: "key" in packet.fields)

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    running = await asyncapy_server(server)
    async with running.client() as client:
        found = await client.request({"a": 1})
        assert found is not None
        assert found["error"] == "ERR_NO_HANDLER"
        assert calls == []
        assert await client.request({"key": 1}) == {"key": 1}
    assert calls == ["around echo", "around end"]


async def test_a_handler_that_no_wrap_is_around_is_called_itself(asyncapy_server: Start) -> None:
    server = Server(plugins=manager(none=Plugin(asyncapy_wrap=lambda: None)))
    server.around(lambda: None)

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    await asyncapy_server(server)
    (handler,) = server.handlers[0]
    assert handler.run is echo


async def test_a_wrap_is_asked_once_for_each_handler_and_run() -> None:
    asked: list[str] = []
    server = Server(port=0, logging_level="CRITICAL")

    @server.around
    def note(server: Server, handler: Handler) -> None:
        asked.append(f"{handler.name} {handler.group} {handler.operation} {[*map(repr, handler.filters)]}")

    @server.operation("a", group=2)
    async def first(client: Any, packet: Any) -> None: ...

    registered = server.register_handler(first, group=1)
    assert asked == []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()
        assert asked == ["first 1 None []", "first 2 a [\"Operation(op='a')\"]"]
        asked.clear()
    registered.remove()
    registered.remove()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        assert len(asked) == 1
        server.register_handler(first, group=7).remove()
        assert asked[1:] == ["first 7 None []"]
        server.stop()


async def test_a_wrap_of_an_earlier_run_is_not_around_the_handlers_of_the_next(asyncapy_server: Start) -> None:
    calls: list[str] = []
    answers: list[Callable[..., Call | None]] = [noting(calls, "around"), lambda handler, call: None]
    server = Server(port=0, logging_level="CRITICAL")

    @server.around
    def change(handler: Handler, call: Call) -> Call | None:
        return answers.pop(0)(handler, call)

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        server.stop()
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    assert calls == []


async def fail(client: Any, packet: Any) -> None: ...


def raising() -> None:
    raise ValueError("a slip")


async def coroutine() -> None: ...


async def generator() -> AsyncIterator[None]:
    yield


WRONG: list[tuple[Callable[..., Any], str]] = [
    (raising, "ValueError: a slip"),
    (lambda: 7, "a handler must be an 'async def' function; got 7"),
    (lambda: lambda client, packet: None, "a handler must be asynchronous"),
    (coroutine, "TypeError: this hook cannot be async; write 'def' instead of 'async def'"),
    (lambda handler: coroutine(), "if 'coroutine' is another function, return the function itself"),
]


async def test_a_wrap_of_the_application_that_is_wrong_is_named() -> None:
    server = Server(port=0)

    @server.around
    def seven(handler: Any) -> Any:
        return 7

    server.register_handler(fail)
    text = "function 'seven' of server.around for the handler 'fail': a handler must be an 'async def' function; got 7"
    with pytest.raises(TypeError, match=text):
        await server.serve()
    for wrong in (coroutine, generator):
        with pytest.raises(TypeError, match=f"takes a plain 'def' function, .* got function '{wrong.__name__}'"):
            server.around(wrong)  # type: ignore[type-var]  # the mistake


@pytest.mark.parametrize("version", [22, 23])
async def test_a_wrap_that_forgets_to_await_is_told_so(asyncapy_server: Start, version: Literal[22, 23]) -> None:
    def wrap(call: Any) -> Any:
        async def hasty(client: Any, packet: Packet) -> Any:
            begun.append(call(client, packet))
            return begun[-1]

        return hasty

    begun: list[Any] = []
    server = Server(plugins=manager(a=Plugin(asyncapy_wrap=wrap)))

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    running = await asyncapy_server(server)
    async with running.client(version=version) as client:
        assert (await client.request({"a": 1}))["error"] == "ERR_HANDLER_FAILED"
    for each in begun:
        each.close()
    (line,) = [line for line in running.log if line.startswith("[ERROR]")]
    assert line.endswith(
        "Handler 'echo' failed for 127.0.0.1: TypeError ('echo', inside "
        f"{wrap.__qualname__ + '.<locals>.hasty'!r}, returned a coroutine; await it)"
    )


@pytest.mark.parametrize(("wrap", "reason"), WRONG)
async def test_a_wrong_wrap_of_a_plugin_is_named_and_not_used(
    asyncapy_server: Start, wrap: Callable[[], Any], reason: str
) -> None:
    calls: list[str] = []
    plugins = manager(
        a=Plugin(asyncapy_wrap=noting(calls, "a")),
        b=Plugin(asyncapy_wrap=wrap),
        c=Plugin(asyncapy_wrap=noting(calls, "c")),
    )
    server = Server(plugins=plugins)

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    running = await asyncapy_server(server)
    (line,) = [line for line in running.log if "plugin 'b' of (registered)" in line]
    assert line.startswith("[ERROR] {Server} plugin 'b' of (registered) failed in asyncapy_wrap for the handler 'echo'")
    assert reason in line
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    assert calls == ["a echo", "c echo", "c end", "a end"]


@pytest.mark.parametrize(("wrap", "reason"), WRONG)
async def test_a_wrong_wrap_of_a_required_plugin_ends_the_start(wrap: Callable[[], Any], reason: str) -> None:
    server = Server(port=0, plugins=manager(b=Plugin(asyncapy_wrap=wrap)), plugins_require=["b"])
    server.register_handler(fail)
    with pytest.raises(PluginError) as caught:
        await server.serve()
    assert "plugin 'b' of (registered) failed in asyncapy_wrap for the handler 'fail'" in str(caught.value)
    assert reason in str(caught.value)


async def test_an_exception_of_a_function_of_the_application_ends_the_start() -> None:
    server = Server(port=0)
    server.around(raising)
    server.register_handler(fail)
    with pytest.raises(ValueError, match="a slip"):
        await server.serve()


async def test_functions_with_other_arguments_are_refused_where_they_are_given(asyncapy_server: Start) -> None:
    server = Server()

    def other(handler: Handler, another: Call) -> None: ...

    def keyword(handler: Handler, *, call: Call) -> None: ...

    for function in (other, keyword):
        with pytest.raises(TypeError, match=r"around calls its function with those of the arguments server, handler"):
            server.around(function)
    await asyncapy_server(server)
    with pytest.raises(RuntimeError, match=r"this server is serving; use function 'raising' of server\.around before"):
        server.around(raising)


async def test_a_function_that_a_setup_adds_is_for_one_run(asyncapy_server: Start) -> None:
    calls: list[str] = []
    plugin = Plugin(asyncapy_setup=lambda server: server.around(noting(calls, "setup")) and None)
    server = Server(plugins=manager(adds=plugin))
    server.around(noting(calls, "before"))

    @server.add_handler()
    async def echo(client: Any, packet: Packet) -> Packet:
        return packet

    for _ in range(2):
        running = await asyncapy_server(server)
        async with running.client() as client:
            assert await client.request({"a": 1}) == {"a": 1}
        await running.stop()
        assert calls == ["before echo", "setup echo", "setup end", "before end"]
        calls.clear()
