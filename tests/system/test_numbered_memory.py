"""The memory and the context variables of sessions of version 23: no request leaves anything behind for another."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator
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


def objects() -> Counter[str]:
    """Return the number of objects of each of the types."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))


@contextlib.asynccontextmanager
async def without_collector(running: Running) -> AsyncIterator[None]:
    """Fail if the block leaves an object of a connection that only the garbage collector could free."""
    gc.collect()
    before = objects()
    gc.disable()
    try:
        yield
        assert objects() - before == Counter()
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
            await trio.testing.wait_all_tasks_blocked()


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
