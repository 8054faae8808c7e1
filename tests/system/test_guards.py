"""Guards, over a real socket: a packet that they refuse reaches no handler of any group."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from conftest import Serve
from peer import json_packet

from asyncapy import Server
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory


def guarded(*guards: Any) -> tuple[Server, list[str]]:
    """Return a server with handlers in three groups, and the names of the called handlers."""
    server = Server(port=0)
    called: list[str] = []
    for guard in guards:
        assert server.guard(guard).registered is guard

    @server.add_handler(group=-1_000_000)
    async def first(client: Any, packet: Any) -> None:
        called.append("first")

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        called.append("echo")
        await client.send(packet)

    @server.add_handler(group=1)
    async def last(client: Any, packet: Any) -> None:
        called.append("last")

    return server, called


def plain(client: Any, packet: Any) -> Any:
    return packet["pass"]


async def awaited(client: Any, packet: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return packet["pass"]


@pytest.mark.parametrize("guard", [plain, awaited])
async def test_a_packet_that_a_guard_passes_goes_its_usual_way(serve: Serve, guard: Any) -> None:
    server, called = guarded(guard)
    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(**{"pass": True}) == {"pass": True}
        assert await peer.ask(**{"pass": 1}) == {"pass": 1}
    assert called == ["first", "echo", "last"] * 2


@pytest.mark.parametrize("guard", [plain, awaited])
@pytest.mark.parametrize("fields", [{"pass": False}, {"pass": None}, {"pass": 0}, {"pass": ""}, {"pass": []}, {}])
async def test_a_packet_that_a_guard_does_not_pass_reaches_nobody_and_the_session_goes_on(
    serve: Serve, guard: Any, fields: dict[str, Any]
) -> None:
    server, called = guarded(guard)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(**fields, filler=1))
        assert await peer.failure() == "ERR_NO_HANDLER"
        assert called == []
        assert await peer.ask(**{"pass": True}) == {"pass": True}


class Passing(Exception):
    pass


@pytest.mark.parametrize(
    "error", [ValueError("oops"), Passing(), ExceptionGroup("both", [ValueError(), TypeError()]), StopIteration()]
)
async def test_a_guard_that_raises_passes_nothing_and_says_so(serve: Serve, error: Exception) -> None:
    def broken(client: Any, packet: Any) -> bool:
        raise error

    server, called = guarded(broken)
    running = await serve(server)
    async with await running.connect() as peer:
        for _ in range(5):
            await peer.send(json_packet(a=1))
            assert await peer.failure() == "ERR_NO_HANDLER"
    assert called == []
    assert len(running.logged("raised")) == 1, "at most one line per second"


async def test_a_guard_that_forgets_to_wait_passes_nothing(serve: Serve) -> None:
    async def later() -> bool:
        return True

    server, called = guarded(lambda client, packet: later())
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_NO_HANDLER"
    assert called == []


async def test_all_guards_have_to_pass_and_the_first_that_does_not_is_the_last_asked(serve: Serve) -> None:
    asked: list[str] = []

    def noting(name: str, verdict: bool) -> Any:
        def check(client: Any, packet: Any) -> bool:
            asked.append(name)
            return verdict

        return check

    server, called = guarded(noting("a", True), noting("b", False), noting("c", True))
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_NO_HANDLER"
    assert asked == ["a", "b"]
    assert called == []


async def test_a_filter_may_be_a_guard(serve: Serve) -> None:
    keys = APIKeyFactory()
    server, called = guarded(Filters.APIFactory(keys, "key"))
    running = await serve(server)
    key = keys.issue()
    async with await running.connect() as peer:
        assert await peer.ask(key=key) == {"key": key}
        await peer.send(json_packet(key="wrong"))
        assert await peer.failure() == "ERR_UNAUTHORIZED"
    assert called == ["first", "echo", "last"]


async def test_a_guard_holds_for_handlers_that_are_registered_later_and_before(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def before(client: Any, packet: Any) -> None:
        await client.send({"by": "before"})

    @server.guard
    def never(client: Any, packet: Any) -> bool:
        return False

    @server.add_handler(group=-1)
    async def after(client: Any, packet: Any) -> None:
        await client.send({"by": "after"})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) * 2)
        assert [await peer.failure() for _ in range(2)] == ["ERR_NO_HANDLER"] * 2
    assert running.logged("refused by the guard never")


@pytest.mark.parametrize("guard", [plain, awaited])
async def test_a_guard_holds_where_all_handlers_are_in_one_group_and_registered_later(serve: Serve, guard: Any) -> None:
    server = Server(port=0)
    server.guard(guard)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(**{"pass": True}) == {"pass": True}
        await peer.send(json_packet(**{"pass": False}))
        assert await peer.failure() == "ERR_NO_HANDLER"


@pytest.mark.parametrize("guard", [None, "check", Filters.Ip, 1])
def test_what_can_be_no_guard_is_a_type_error(guard: Any) -> None:
    with pytest.raises(TypeError, match="a guard is a Filter, or a function of client and packet"):
        Server().guard(guard)


@pytest.mark.parametrize("as_filter", [True, False])
async def test_a_check_that_replies_and_closes_has_its_reply_arrive(serve: Serve, as_filter: bool) -> None:
    class Closing(Filter):
        async def check(self, c: Any, p: Any) -> bool:
            await c.send({"text": "x" * 1_000_000}, close=True)
            return False

    server = Server(port=0)

    @server.add_handler(*([Closing()] if as_filter else []))
    async def never(client: Any, packet: Any) -> None: ...

    if not as_filter:
        server.guard(Closing())
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) * 300)
        assert await peer.json() == {"text": "x" * 1_000_000}
        assert await peer.closed()
