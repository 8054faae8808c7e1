"""Context variables: a packet does not see those that the handler of another has set."""

from __future__ import annotations

import decimal
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.lowlevel
from conftest import Serve
from peer import json_packet

from asyncapy import Server

inherited: ContextVar[str] = ContextVar("inherited", default="default")
unset: ContextVar[str] = ContextVar("unset")


class ContextServer(Server):
    async def serve(self, **arguments: Any) -> None:
        inherited.set("of the program")
        await super().serve(**arguments)


def server_with_handlers(**settings: Any) -> Server:
    server = ContextServer(port=0, **settings)

    @server.add_handler()
    async def first(client: Any, packet: Any) -> None:
        if packet.get("wait") == "before":
            await trio.lowlevel.checkpoint()
        found = [inherited.get(), unset.get("not set"), decimal.getcontext().prec]
        inherited.set("of a packet")
        unset.set("set")
        decimal.setcontext(decimal.Context(prec=3))
        if packet.get("wait") == "after":
            await trio.lowlevel.checkpoint()
        packet["found"] = found
        if packet.get("fail"):
            raise ValueError("a failure")

    @server.add_handler(group=1)
    async def second(client: Any, packet: Any) -> None:
        await client.send({"found": packet["found"], "later": [inherited.get(), unset.get("not set")]})

    return server


EXPECTED = {"found": ["of the program", "not set", 28], "later": ["of a packet", "set"]}


@pytest.mark.parametrize("wait", ["", "before", "after"])
@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 5.0}, {"logging_level": 10}])
async def test_a_packet_does_not_see_the_context_variables_of_the_one_before(
    serve: Serve, wait: str, settings: dict[str, Any]
) -> None:
    running = await serve(server_with_handlers(**settings))
    async with await running.connect() as peer:
        await peer.send(json_packet(wait=wait) * 3)
        for _ in range(3):
            assert await peer.json() == EXPECTED
        await peer.send(json_packet(fail=1))
        assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert await peer.ask(wait=wait) == EXPECTED


async def test_pipelined_packets_that_set_no_variable_are_answered_in_one_piece(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(10)))
        for number in range(10):
            assert await peer.json() == {"number": number}


async def test_other_sessions_and_the_program_see_none_of_them(serve: Serve) -> None:
    running = await serve(server_with_handlers())
    async with await running.connect() as one, await running.connect() as other:
        assert await one.ask(a=1) == EXPECTED
        assert await other.ask(a=1) == EXPECTED
        assert await one.ask(a=1) == EXPECTED
    assert inherited.get() == "default"
