"""Handlers that answer a packet twice or never, and the setting ``replies``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from peer import json_packet

from asyncapy_core import Client, Packet, Server, SharedPacket
from asyncapy_core.client import AsyncClient
from asyncapy_core.errors import AlreadyAnswered, NoReply
from asyncapy_filters import Fields, HasFields

NEVER = "has not answered a packet: a client takes the answer to its next request for it"
TWICE = "has answered a packet that was answered before"


async def send_twice(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    await client.send({"n": 2})


async def send_and_return(client: Any, packet: Any) -> Any:
    await client.send({"n": 1})
    return {"n": 2}


async def send_after_a_wait(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    await trio.sleep(0.001)
    await client.send({"n": 2})


async def send_without_waiting(client: Any, packet: Any) -> None:
    client.send_nowait({"n": 1})
    client.send_nowait(SharedPacket({"n": 2}))


async def send_to_the_session(client: Any, packet: Any) -> None:
    await client.session.send({"n": 1})
    await client.session.send(SharedPacket({"n": 2}))


async def send_from_a_child(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, {"n": 2})


async def send_from_a_thread(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    await trio.to_thread.run_sync(lambda: trio.from_thread.run(client.send, {"n": 2}))


ALL_TWICE = [
    send_twice,
    send_and_return,
    send_after_a_wait,
    send_without_waiting,
    send_to_the_session,
    send_from_a_child,
    send_from_a_thread,
]


async def nothing(client: Any, packet: Any) -> None: ...


async def stop(client: Any, packet: Any) -> None:
    packet.stop_propagation()


async def echo(client: Any, packet: Any) -> Any:
    return packet


def warnings(running: Running) -> list[str]:
    return [line for line in running.lines if "[WARNING]" in line and "answered" in line]


@pytest.mark.parametrize("handler", ALL_TWICE)
async def test_a_handler_that_answers_twice_is_named_once(serve: Serve, handler: Any) -> None:
    server = Server(port=0)
    server.register_handler(handler)
    running = await serve(server)
    async with await running.connect() as peer, await running.connect() as other:
        for each in (peer, peer, other):
            await each.send(json_packet(a=1))
            assert [await each.json(), await each.json()] == [{"n": 1}, {"n": 2}]
    (line,) = warnings(running)
    assert f"Handler '{handler.__name__}' {TWICE}" in line


@pytest.mark.parametrize("handler", [nothing, stop])
async def test_a_handler_that_never_answers_is_named_once(serve: Serve, handler: Any) -> None:
    server = Server(port=0)
    server.register_handler(handler, Fields(a=None))
    server.register_handler(echo)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) * 3)
        assert await peer.ask(b=1) == {"b": 1}
    (line,) = warnings(running)
    assert f"Handler '{handler.__name__}' {NEVER}" in line


async def test_handlers_of_two_groups_that_both_answer_are_named(serve: Serve) -> None:
    server = Server(port=0)
    server.register_handler(echo)

    @server.add_handler(group=1)
    async def again(client: Any, packet: Any) -> Any:
        return packet

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.json() == await peer.json() == {"a": 1}
    (line,) = warnings(running)
    assert f"Handler 'again' {TWICE}" in line


async def test_one_group_of_several_that_answers_is_enough(serve: Serve) -> None:
    server = Server(port=0, replies="one")
    server.register_handler(nothing, group=-1)
    server.register_handler(echo)
    server.register_handler(nothing, group=1)
    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert await peer.ask(b=1) == {"b": 1}
    assert warnings(running) == []


async def test_pushes_are_no_second_answers(serve: Serve) -> None:
    server = Server(port=0, replies="one")
    pushed = trio.Event()
    async with trio.open_nursery() as nursery:

        async def push(client: Any) -> None:
            await client.send({"pushed": True})
            pushed.set()

        @server.add_handler()
        async def handler(client: Any, packet: Any) -> Any:
            await client.send(packet)
            nursery.start_soon(push, client)
            await pushed.wait()

        running = await serve(server)
        async with await running.connect() as peer:
            await peer.send(json_packet(a=1))
            assert [await peer.json(), await peer.json()] == [{"a": 1}, {"pushed": True}]
    assert warnings(running) == []


async def test_a_packet_that_a_task_of_a_handler_sends_between_two_requests_is_no_second_answer(serve: Serve) -> None:
    server = Server(port=0, replies="one")
    asked = trio.Event()

    async def with_nursery(client: Client) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push, client)
            yield

    async def push(client: Client) -> None:
        await asked.wait()
        client.send_nowait(SharedPacket({"pushed": 1}))
        await client.send({"pushed": 2})

    @server.add_handler()
    async def handler(client: Client, packet: Packet) -> Packet:
        if "start" in packet:
            client.state.generator = with_nursery(client)
            await anext(client.state.generator)
        return packet

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(start=True) == {"start": True}
        asked.set()
        assert [await peer.json(), await peer.json()] == [{"pushed": 1}, {"pushed": 2}]
        assert await peer.ask(a=1) == {"a": 1}
    assert warnings(running) == []


@pytest.mark.parametrize("handler", [nothing, stop])
async def test_a_packet_without_an_answer_gets_err_no_reply_on_request(serve: Serve, handler: Any) -> None:
    server = Server(port=0, replies="one")
    server.register_handler(handler, HasFields(a=None))
    server.register_handler(echo)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) + json_packet(b=1) + json_packet(a=2))
        replies = [await peer.json() for _ in range(3)]
    failure = {"status": "failure", "error": "ERR_NO_REPLY"}
    assert replies == [failure, {"b": 1}, failure]
    assert len(warnings(running)) == 1
    assert not running.logged("[ERROR]")
    assert server.statistics().handlers[0].outcomes == {"ERR_NO_REPLY": 2}


async def test_a_client_gets_no_reply_as_an_exception(serve: Serve) -> None:
    server = Server(port=0, replies="one")
    server.register_handler(nothing)
    running = await serve(server)
    async with AsyncClient("127.0.0.1", running.port, tls=False, raise_failures=True) as client:
        with pytest.raises(NoReply, match="ERR_NO_REPLY: the handler sent no answer"):
            await client.request({"a": 1})


@pytest.mark.parametrize("handler", ALL_TWICE)
async def test_a_second_answer_is_refused_on_request_and_the_session_goes_on(serve: Serve, handler: Any) -> None:
    server = Server(port=0, replies="one")
    server.register_handler(handler, Fields(a=None))
    server.register_handler(echo)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) + json_packet(b=1))
        assert [await peer.json(), await peer.json()] == [{"n": 1}, {"b": 1}]
    assert running.logged(f"Handler '{handler.__name__}' failed for 127.0.0.1: AlreadyAnswered")
    assert server.statistics().handlers[0].outcomes == {"ERR_HANDLER_FAILED": 1}


async def test_a_handler_may_catch_the_refusal(serve: Serve) -> None:
    server = Server(port=0, replies="one")
    caught: list[str] = []

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await client.send({"n": 1})
        try:
            await client.send({"n": 2})
        except AlreadyAnswered as error:
            caught.append(str(error))

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"n": 1}
        assert await peer.ask(a=1) == {"n": 1}
    assert caught == ["the packet was answered before, and this server has replies = 'one'"] * 2
    assert server.statistics().handlers[0].outcomes == {"ok": 2}


async def test_a_handler_that_fails_after_its_only_answer_keeps_the_session_on_request(serve: Serve) -> None:
    server = Server(port=0, replies="one")

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await client.send(packet)
        raise OSError("no disk")

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert await peer.ask(a=2) == {"a": 2}
    assert running.logged("Handler 'handler' failed for 127.0.0.1: OSError (no disk)")


async def test_a_packet_without_an_answer_is_none_in_a_limited_time_too(serve: Serve) -> None:
    server = Server(port=0, replies="one", handler_timeout=5)
    server.register_handler(nothing)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_NO_REPLY"
