"""A packet is answered by its handlers or by the server, never by both (docs/protocol.md, "Replies")."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Serve
from peer import json_packet

from asyncapy import Server
from asyncapy_core import Client, Filter


async def fail_now(client: Any, packet: Any) -> None:
    await client.send({"answer": packet["number"]})
    raise OSError("no disk")


async def fail_later(client: Any, packet: Any) -> None:
    await client.send({"answer": packet["number"]})
    await trio.sleep(0.01)
    raise OSError("no disk")


async def hang(client: Any, packet: Any) -> None:
    await client.send({"answer": packet["number"]})
    await trio.sleep_forever()


async def fail_after_a_child_has_answered(client: Any, packet: Any) -> None:
    async def answer() -> None:
        await trio.lowlevel.checkpoint()
        await client.send({"answer": packet["number"]})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
    raise OSError("no disk")


async def fail_through_another_session(client: Any, packet: Any) -> None:
    await client.session.get_client().send({"answer": packet["number"]})
    raise OSError("no disk")


@pytest.mark.parametrize(
    "handler", [fail_now, fail_later, hang, fail_after_a_child_has_answered, fail_through_another_session]
)
async def test_a_handler_that_fails_behind_its_answer_ends_the_session_behind_it(serve: Serve, handler: Any) -> None:
    server = Server(port=0, handler_timeout=0.1 if handler is hang else None)
    server.register_handler(handler)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(5)))
        assert await peer.json() == {"answer": 0}
        assert await peer.closed(), "otherwise an error reply would be taken for the answer to the next packet"
    assert running.logged("[ERROR]")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_of_a_later_group_that_fails_behind_an_answer_ends_the_session(
    serve: Serve, waits: bool
) -> None:
    server = Server(port=0)

    @server.add_handler(group=1)
    async def first(client: Any, packet: Any) -> None:
        await client.send({"answer": packet["number"]})

    @server.add_handler(group=2)
    async def second(client: Any, packet: Any) -> None:
        if waits:
            await trio.sleep(0.01)
        raise OSError("no disk")

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(number=0) + json_packet(number=1))
        assert await peer.json() == {"answer": 0}
        assert await peer.closed()
    assert running.logged("Handler 'second' failed for 127.0.0.1: OSError (no disk)")


async def test_a_handler_that_fails_before_it_answers_is_answered_for(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if packet["number"] % 2:
            raise OSError("no disk")
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(4)))
        for number in (0, 2):
            assert await peer.json() == {"number": number}
            assert await peer.failure() == "ERR_HANDLER_FAILED"


@pytest.mark.parametrize("corked", [True, False])
async def test_a_push_from_elsewhere_is_no_answer(serve: Serve, corked: bool) -> None:
    server = Server(port=0)
    clients: list[Client] = []
    pushed = trio.Event()

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "push" in packet:
            await clients[0].send({"pushed": 1})
            if not corked:
                await trio.lowlevel.checkpoint()
            pushed.set()
            await client.send({"done": 1})
        else:
            clients.append(client)
            await client.send({"begun": 1}) if packet["number"] == 0 else None
            if packet["number"]:
                await pushed.wait()
                raise OSError("no disk")

    running = await serve(server)
    async with await running.connect() as peer, await running.connect() as other:
        assert await peer.ask(number=0) == {"begun": 1}
        await peer.send(json_packet(number=1))
        assert await other.ask(push=1) == {"done": 1}
        assert await peer.json() == {"pushed": 1}
        assert await peer.failure() == "ERR_HANDLER_FAILED"


class Answering(Filter):
    """A filter that sends a packet, then passes, refuses or fails."""

    async def check(self, c: Any, p: Any) -> bool:
        await c.send({"from": "the filter"})
        if p["then"] == "fail":
            raise OSError("no disk")
        return p["then"] == "pass"  # type: ignore[no-any-return]  # a packet may hold any values


@pytest.mark.parametrize("guard", [True, False])
async def test_the_server_adds_nothing_to_the_answer_of_a_guard_or_filter(serve: Serve, guard: bool) -> None:
    server = Server(port=0)

    async def handler(client: Any, packet: Any) -> None: ...

    if guard:
        server.guard(Answering())
        server.register_handler(handler)
    else:
        server.register_handler(handler, Answering())
    running = await serve(server)
    async with await running.connect() as peer:
        for then in ("pass", "refuse", "pass"):
            assert await peer.ask(then=then) == {"from": "the filter"}
        assert await peer.ask(then="fail") == {"from": "the filter"}
        assert await peer.closed()


@pytest.mark.parametrize("how", ["refused", "failed"])
async def test_what_a_task_sends_that_an_earlier_packet_has_started_is_no_answer(serve: Serve, how: str) -> None:
    server = Server(port=0)
    pushed = trio.Event()

    async def push(client: Any) -> None:
        await pushed.wait()
        await client.send({"pushed": 1})

    async with trio.open_nursery() as nursery:

        @server.add_handler(Fields(start=None))
        async def start(client: Any, packet: Any) -> None:
            nursery.start_soon(push, client)
            await client.send({"started": 1})

        @server.add_handler(Slowly(pushed, passes=how == "failed"))
        async def fail(client: Any, packet: Any) -> None:
            raise OSError("no disk")

        running = await serve(server)
        async with await running.connect() as peer:
            assert await peer.ask(start=1) == {"started": 1}
            await peer.send(json_packet(a=1))
            assert await peer.json() == {"pushed": 1}
            assert await peer.failure() == ("ERR_NO_HANDLER" if how == "refused" else "ERR_HANDLER_FAILED")


class Fields(Filter):
    """A filter that passes packets with these fields."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def check(self, c: Any, p: Any) -> bool:
        return all(field in p for field in self.fields)


class Slowly(Filter):
    """A filter that lets another task push before it returns."""

    def __init__(self, pushed: trio.Event, *, passes: bool) -> None:
        self.pushed = pushed
        self.passes = passes

    async def check(self, c: Any, p: Any) -> bool:
        self.pushed.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        return self.passes


@pytest.mark.parametrize("cancellable", [True, False])
async def test_what_a_thread_of_the_handler_sends_is_an_answer(serve: Serve, cancellable: bool) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        def work() -> None:
            trio.from_thread.run(client.send, {"from": "the thread"})

        await server.run_sync_task(work, cancellable=cancellable)
        raise OSError("no disk")

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"from": "the thread"}
        assert await peer.closed()


class Counting:
    """An object that is an async generator function."""

    async def __call__(self, client: Any, packet: Any) -> AsyncIterator[dict[str, Any]]:
        for number in range(packet["count"]):
            yield {"n": number}


async def counting(client: Any, packet: Any) -> AsyncIterator[dict[str, Any]]:
    async for answer in Counting()(client, packet):
        yield answer


@functools.wraps(counting)
def decorated(client: Any, packet: Any) -> AsyncIterator[dict[str, Any]]:
    return counting(client, packet)


@pytest.mark.parametrize("handler", [Counting(), counting, decorated, functools.partial(counting)])
async def test_an_async_generator_answers_with_each_mapping_that_it_yields(serve: Serve, handler: Any) -> None:
    server = Server(port=0)
    server.register_handler(handler, Fields(count=None))
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(count=3) + json_packet(count=1))
        assert [await peer.json() for _ in range(4)] == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 0}]


async def test_an_async_generator_is_closed_when_its_client_has_left(serve: Serve) -> None:
    server, closed = Server(port=0), trio.Event()

    @server.add_handler()
    async def endless(client: Any, packet: Any) -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                yield {"text": "x" * 10_000}
        finally:
            closed.set()

    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(a=1))
    assert await peer.json() == {"text": "x" * 10_000}
    await peer.reset()
    with trio.fail_after(5):
        await closed.wait()
    await running.settle()
    assert not running.logged("[ERROR]")


async def test_an_async_generator_that_fails_after_an_answer_ends_the_session(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def failing(client: Any, packet: Any) -> AsyncIterator[Any]:
        yield {"a": 1}
        yield ["no mapping"]

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert await peer.closed()
    assert running.logged("Handler 'failing' failed for 127.0.0.1: TypeError")
