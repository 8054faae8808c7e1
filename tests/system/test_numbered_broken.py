"""Broken connections of version 23: all requests are cancelled, and nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered

from asyncapy import Server
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.routing.filter import Filter
from asyncapy_core.server.connection import Connection
from asyncapy_core.server.numbered import NumberedSession
from asyncapy_core.server.numbered_output import NumberedOutput
from asyncapy_core.server.numbered_request import NumberedRequest
from asyncapy_core.server.worker import Worker
from asyncapy_core.session import Client, Session

KINDS = (
    *(Client, Connection, DetectingDecoder, NumberedDecoder, NumberedOutput, NumberedRequest, NumberedSession),
    *(Outbox, Packet, Session, SocketTransport, Worker),
)


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)


class Scene:
    """A server whose handler waits as the field ``wait`` tells."""

    def __init__(self, **settings: Any) -> None:
        self.free = trio.Event()
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.server = Server(port=0, **settings)
        self.server.register_handler(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        number = packet.get("n", 0)
        self.begun.append(number)
        try:
            if packet.get("wait") == "shielded":
                with trio.CancelScope(shield=True):
                    await self.free.wait()
                assert client.gone
                with pytest.raises(ConnectionError):
                    await client.send({"too": "late"})
            elif "wait" in packet:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.append(number)
            raise
        return {"n": number}


async def do_nothing(peer: NumberedPeer) -> None: ...


async def half_close(peer: NumberedPeer) -> None:
    await peer.half_close()


async def send_more_than_may_wait(peer: NumberedPeer) -> None:
    with trio.move_on_after(0.1):  # the server does not read it all
        for number in range(10, 14):
            await peer.send(numbered("REQUEST", number, {"n": number, "wait": 1, "x": "x" * 900_000}))


async def make_the_server_leave(peer: NumberedPeer) -> None:
    await peer.send(numbered("EVENT", 0))


async def have_a_request_refused(peer: NumberedPeer) -> None:
    await peer.send(numbered("REQUEST", 10, {}, encoding=9))  # those that wait before it are to be handled


PREPARATIONS = [do_nothing, half_close, send_more_than_may_wait, make_the_server_leave, have_a_request_refused]


@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("in_flight", [1, 3, 100])
async def test_a_reset_cancels_all_requests_and_gives_the_place_back(
    serve: Serve, prepare: Any, in_flight: int
) -> None:
    scene = Scene(max_in_flight=in_flight)
    running = await serve(scene.server)
    before = running.footprint
    for _ in range(2):
        scene.begun.clear()
        scene.cancelled.clear()
        peer = await connect(running)
        for number in range(1, 6):
            await peer.send(numbered("REQUEST", number, {"n": number, "wait": 1}))
        await until(lambda: len(scene.begun) == min(5, in_flight))
        await prepare(peer)
        await trio.testing.wait_all_tasks_blocked(0.01)
        begun = len(scene.begun)
        await peer.reset()
        await until(lambda: running.server.statistics().sessions == 0, 1)
        await until(lambda: sorted(scene.cancelled) == sorted(scene.begun), 1)
        assert len(scene.begun) == begun, "a request that waited was begun on a broken connection"
        await running.settle()
        await until(lambda: not running.grown_since(before))
    assert len(running.logged("The client has left")) == 2
    assert not running.logged("ERROR")


async def test_the_place_is_given_back_within_a_tenth_of_a_second(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    for number in range(1, 4):
        await peer.send(numbered("REQUEST", number, {"n": number, "wait": "shielded"}))
    await peer.ping()
    began = trio.current_time()
    await peer.reset()
    await until(lambda: running.server.statistics().connections == 0)
    assert trio.current_time() - began < 0.2
    assert running.server.statistics().abandoned == 1
    scene.free.set()
    await until(lambda: running.server.statistics().abandoned == 0)


async def test_a_handler_that_has_sent_its_last_answer_is_cancelled_and_that_is_no_failure(serve: Serve) -> None:
    server, cancelled = Server(port=0), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        await client.send({"n": 1}, last=True)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    running = await serve(server)
    peer = await connect(running)
    assert await peer.ask() == [Answer("REPLY", 1, {"n": 1})]
    await peer.reset()
    with trio.fail_after(5):
        await cancelled.wait()
    await until(lambda: running.server.statistics().abandoned == 0)
    await running.settle()
    assert not running.logged("ERROR")


async def test_a_drain_waits_for_shielded_handlers_of_a_broken_connection(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    await peer.send(numbered("REQUEST", 1, {"wait": "shielded"}) + numbered("REQUEST", 2, {"wait": 1}))
    await peer.ping()
    await peer.reset()
    await until(lambda: running.server.statistics().abandoned == 1)
    running.server.stop()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert running.server.statistics().abandoned == 1
    scene.free.set()
    await until(lambda: running.server.statistics().abandoned == 0)


async def test_an_answering_block_does_not_keep_a_broken_connection(serve: Serve) -> None:
    server, kept, free, ended = Server(port=0), [], trio.Event(), trio.Event()

    async def go_on(client: Any, answering: Any) -> None:
        async with answering:
            await free.wait()
            with pytest.raises(ConnectionError):
                await client.send({"too": "late"})
        ended.set()

    async with trio.open_nursery() as nursery:

        @server.add_handler()
        async def handle(client: Any, packet: Any) -> None:
            kept.append(client.answering())  # never entered
            nursery.start_soon(go_on, client, client.answering())

        running = await serve(server)
        peer = await connect(running)
        await peer.send(numbered("REQUEST", 1, {}))
        await peer.ping()
        await peer.reset()
        await running.settle()
        assert running.server.statistics().abandoned == 0
        free.set()
        with trio.fail_after(5):
            await ended.wait()
    assert not running.logged("ERROR")


async def test_the_statistics_count_cancelled_requests_apart(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    assert await peer.ask(n=1) == [Answer("REPLY", 1, {"n": 1})]
    await peer.send(b"".join(numbered("REQUEST", number, {"wait": 1}) for number in (2, 3, 4)))
    await peer.cancel(2)
    assert await peer.read() == Answer("END", 2, None)
    await peer.reset()
    await running.settle()
    await until(lambda: running.server.statistics().abandoned == 0)
    (statistics,) = running.server.statistics().handlers
    assert statistics.outcomes == {"ok": 1, "cancelled": 3}


variable: ContextVar[str] = ContextVar("variable", default="clean")


@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 50.0}, {"logging_level": 10}], ids=str)
async def test_a_request_sees_no_context_variables_of_another(serve: Serve, settings: dict[str, Any]) -> None:
    server = Server(port=0, max_in_flight=3, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        before = variable.get()
        variable.set("dirty")
        if "wait" in packet:
            await trio.lowlevel.checkpoint()
        after = variable.get()
        variable.set("dirtier")
        if "fail" in packet:
            raise ValueError("a failure")
        return {"before": before, "after": after}

    running = await serve(server)
    async with await connect(running) as peer:
        for fields in ({}, {"wait": 1}, {"fail": 1}, {"wait": 1, "fail": 1}, {}):
            await peer.ask(**fields)
            (answer,) = await peer.ask()
            assert answer.fields == {"before": "clean", "after": "dirty"}
        await peer.send(b"".join(numbered("REQUEST", number, {}) for number in range(100, 120)))
        for _ in range(20):
            piped = await peer.read()
            assert piped is not None
            assert piped.fields == {"before": "clean", "after": "dirty"}


async def test_a_handler_in_a_task_of_its_own_sees_the_variables_of_its_filters_only(serve: Serve) -> None:
    server = Server(port=0)

    class Remembers(Filter):
        def check(self, c: Any, p: Any) -> bool:
            if "set" in p:
                variable.set("by the filter")
            return True

    @server.add_handler(Remembers())
    async def handle(client: Any, packet: Any) -> Any:
        found = variable.get()
        await trio.lowlevel.checkpoint()
        return {"found": found}

    running = await serve(server)
    async with await connect(running) as peer:
        for _ in range(3):
            (answer,) = await peer.ask(set=1)
            assert answer.fields == {"found": "by the filter"}
            (answer,) = await peer.ask()
            assert answer.fields == {"found": "clean"}


@contextlib.asynccontextmanager
async def without_collector(running: Running) -> AsyncIterator[None]:
    """Fail if the block leaves an object of a connection that only the garbage collector could free."""
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, KINDS)}
    gc.disable()
    try:
        yield
        left = [type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS) and id(each) not in before]
        assert left == []
    finally:
        gc.enable()


def server_for_memory(**settings: Any) -> Server:
    server = Server(port=0, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "wait" in packet:
            await trio.sleep(0 if packet["wait"] == 0 else 1000)
        if "fail" in packet:
            raise ValueError("a failure")
        if "close" in packet:
            await client.close()
        if "send" in packet:
            await client.send({"n": 1})
            await client.send({"n": 2}, last=True)
            return None
        return {}

    return server


PROGRAMS: list[list[dict[str, Any]]] = [
    [{}],
    [{"wait": 0}, {"wait": 0}, {}],
    [{"fail": 1}, {"wait": 0, "fail": 1}],
    [{"send": 1}, {"wait": 0, "send": 1}],
    [{"close": 1}],
    [{"wait": 0, "close": 1}],
    [{"cancel": 1, "wait": 1}, {"cancel": 1, "wait": 1}, {}],
    [{"reset": 1, "wait": 1}],
]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 50.0}], ids=str)
async def test_an_ended_connection_is_freed_at_once(
    serve: Serve, program: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    running = await serve(server_for_memory(**settings))
    async with without_collector(running):
        async with await connect(running) as peer:
            for fields in program:
                number = await peer.request(**fields)
                await trio.testing.wait_all_tasks_blocked(0.01)
                if "reset" in fields:
                    await peer.reset()
                    break
                if "cancel" in fields:
                    await peer.cancel(number)
                while (answer := await peer.read()) is not None and answer.kind == "PART":
                    pass
        del peer
        await running.settle()
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_request_leaves_no_reference_cycle(serve: Serve) -> None:
    running = await serve(server_for_memory())
    async with await connect(running) as peer:
        programs: list[dict[str, Any]] = [{}, {"wait": 0}, {"fail": 1}, {"wait": 0, "fail": 1}, {"send": 1}]
        for fields in programs:
            await peer.ask(**fields)
        async with without_collector(running):
            for fields in programs:
                for _ in range(3):
                    number = await peer.request(**fields)
                    while (answer := await peer.read()) is not None and answer.kind == "PART":
                        pass
                    assert answer is not None
                    assert answer.number == number
            await peer.ping()


class Marker:
    """An object in the fields of a packet, freed with the packet."""


@pytest.mark.parametrize("wait", [0, 1])
async def test_an_idle_connection_keeps_no_packet(serve: Serve, wait: int) -> None:
    markers: list[weakref.ref[Marker]] = []
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        for fields in (packet, result := dict(packet)):
            marker = fields["marker"] = Marker()
            markers.append(weakref.ref(marker))
        if wait:
            await trio.lowlevel.checkpoint()
        del result["marker"], marker, fields
        return {"ok": True}

    running = await serve(server)
    gc.disable()
    try:
        async with await connect(running) as peer:
            for number in range(1, 4):
                assert await peer.ask(n=number) == [Answer("REPLY", number, {"ok": True})]
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert [each() for each in markers] == [None] * len(markers)
    finally:
        gc.enable()
