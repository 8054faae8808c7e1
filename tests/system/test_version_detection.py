"""Clients with each version, and servers of version 22 that answer a packet of another version in their own ways."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import JSON, failure, packet
from scripted import packets, scripted
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.client import AsyncClient, Pool
from asyncapy.errors import NotConnected, RemoteError

Answer = Callable[[Any], Awaitable[None]]


def reply(**fields: Any) -> bytes:
    return packet(JSON, json.dumps(fields).encode())


async def invalid_header(stream: Any) -> None:
    await stream.send_all(reply(**failure("ERR_HEADER_INVALID")))
    await stream.aclose()


async def invalid_header_and_open(stream: Any) -> None:
    await stream.send_all(reply(**failure("ERR_HEADER_INVALID")))
    await trio.sleep_forever()


async def closed(stream: Any) -> None:
    await stream.aclose()


async def silence(stream: Any) -> None:
    await trio.sleep_forever()


async def malformed(stream: Any) -> None:
    """Decode the payload whatever the version, as the first servers of a protocol often do."""
    await stream.send_all(reply(**failure("ERR_REQUEST_MALFORMED")))
    await stream.aclose()


async def timed_out(stream: Any) -> None:
    await trio.sleep(20)
    await stream.send_all(reply(**failure("ERR_TIMED_OUT")))
    await stream.aclose()


def old_server(answer: Answer) -> Callable[[Any, int], Awaitable[None]]:
    """An echo server of version 22, with its answer to packets of other versions."""

    async def behave(stream: Any, number: int) -> None:
        async for data in packets(stream):
            if data[4] != 22:
                await answer(stream)
                return
            await stream.send_all(data)

    return behave


async def outcome(client: AsyncClient) -> Any:
    try:
        return await client.request({"a": 1})
    except RemoteError as error:
        return error


ANSWERS = [invalid_header, invalid_header_and_open, closed, silence, malformed, timed_out]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_the_default_version_works_with_every_server_of_version_22(
    autojump_clock: MockClock, answer: Answer
) -> None:
    async with scripted(old_server(answer)) as server, server.client() as client:
        for _ in range(3):
            assert await outcome(client) == {"a": 1}
        assert server.connections == 1


@pytest.mark.parametrize("answer", [invalid_header, invalid_header_and_open])
async def test_a_client_that_asks_works_with_servers_that_answer_as_the_protocol_says(
    autojump_clock: MockClock, answer: Answer
) -> None:
    async with scripted(old_server(answer)) as server, server.client(version=None) as client:
        for _ in range(3):
            assert await outcome(client) == {"a": 1}
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (closed, "it was asked for its version; if it has version 22 and does not answer, set version=22"),
        (silence, "set version=22|has not answered the PING that asks for its version"),
    ],
)
async def test_a_client_that_asks_a_server_that_does_not_answer_sends_nothing_and_says_why(
    autojump_clock: MockClock, answer: Answer, reason: str
) -> None:
    async with scripted(old_server(answer)) as server, server.client(version=None, timeout=50) as client:
        for _ in range(2):
            with pytest.raises(NotConnected, match=reason):
                await client.request({"a": 1})
        assert server.connections > 1


@pytest.mark.parametrize(("answer", "code"), [(malformed, "ERR_REQUEST_MALFORMED"), (timed_out, "ERR_TIMED_OUT")])
async def test_another_failure_of_a_server_that_is_asked_is_the_answer(
    autojump_clock: MockClock, answer: Answer, code: str
) -> None:
    async with scripted(old_server(answer)) as server, server.client(version=None) as client:
        for _ in range(2):
            assert await outcome(client) == failure(code)


async def test_requests_of_the_default_version_are_handled_one_after_the_other(serve: Serve) -> None:
    server = Server(port=0)
    running: list[int] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> Any:
        before = len(running)
        running.append(packet["n"])
        await trio.lowlevel.checkpoint()
        await client.send({"first": before == 0, "n": packet["n"]})
        running.pop()

    port = (await serve(server)).port
    firsts: list[bool] = []

    async def ask(client: AsyncClient | Pool, number: int) -> None:
        firsts.append((await client.request({"n": number}))["first"])

    client = AsyncClient("127.0.0.1", port, tls=False)
    for each in (client, Pool("127.0.0.1", port, size=1, tls=False)):
        async with each, trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, each, number)
    assert firsts == [True] * 40, "programs of the documentation may rely on this"
