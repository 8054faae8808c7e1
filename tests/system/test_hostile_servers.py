"""AsyncClient in version 23 with servers that break the protocol, say nothing or leave, in memory with a mock clock."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_peer import KINDS, Answer, NumberedPeer, numbered
from peer import JSON, packet
from scripted import packets, scripted
from trio.testing import MockClock

from asyncapy.client import AsyncClient
from asyncapy.errors import RemoteError, ServerDisconnected
from asyncapy_core.client.numbered_connection import KEEP_ALIVE, SILENCE

TIMEOUT = 50.0
"""The timeout of the requests, in the seconds of the mock clock."""

BROKEN = (
    numbered("PONG", 0)[:3],
    numbered("PONG", 0)[:5],
    numbered("PONG", 0)[:-1],
    packet(JSON, b'{"status": "failure", "error": "ERR_HEADER_INVALID"}')[:-1],
)


class Step(NamedTuple):
    """One thing that a server does: read a packet, send one, send bytes, wait, or end its stream."""

    action: str
    kind: str = ""
    number: int = 0
    payload: bytes = b""
    seconds: float = 0


numbers = st.integers(0, 6)
payloads = st.sampled_from(
    [b"", b"{ }", b'{"n": 1}', b"[]", b"{", b'{"status": "failure", "error": "ERR_GONE"}', b"\xff"]
)
old = st.sampled_from(["ERR_HEADER_INVALID", "ERR_SERVER_BUSY", "ERR_TIMED_OUT", ""])
steps = st.one_of(
    st.just(Step("read")),
    st.just(Step("read")),
    st.builds(Step, st.just("send"), st.sampled_from(KINDS), numbers, payloads),
    st.builds(lambda number: Step("send", "REPLY", number, b'{"n": 2}'), numbers),
    st.builds(lambda number: Step("send", "PART", number, b'{"n": 1}'), numbers),
    st.builds(lambda number: Step("send", "LEAVING", number), numbers),
    st.just(Step("send", "PONG", 0)),
    st.builds(
        lambda code: Step("raw", payload=packet(JSON, b'{"status": "failure", "error": "%s"}' % code.encode())), old
    ),
    st.builds(lambda data: Step("raw", payload=data), st.binary(max_size=12) | st.sampled_from(BROKEN)),
    st.builds(lambda seconds: Step("wait", seconds=seconds), st.sampled_from([0.5, 20, 100])),
    st.just(Step("end")),
)


async def do(step: Step, peer: NumberedPeer) -> None:
    if step.action == "read":
        await peer.read(10**6)
    elif step.action == "send":
        await peer.send(numbered(step.kind, step.number, payload=step.payload))
    elif step.action == "raw":
        await peer.send(step.payload)
    elif step.action == "wait":
        await trio.sleep(step.seconds)
    else:
        await peer.stream.send_eof()


async def serve_well(stream: Any) -> None:
    """Answer all requests of either version; in version 23, with an event before each."""
    async for data in packets(stream):
        kind = "" if data[4] == 22 else KINDS[data[6]]
        number = int.from_bytes(data[7:11], "big")
        if kind == "":
            await stream.send_all(packet(JSON, b'{"well": %d}' % json.loads(data[6:])["n"]))
        elif kind == "PING":
            await stream.send_all(numbered("PONG", number))
        elif kind == "REQUEST":
            reply = numbered("REPLY", number, {"well": json.loads(data[11:])["n"]})
            await stream.send_all(numbered("EVENT", 0, {"event": 1}) + reply)


async def take(things: Any) -> None:
    async for _ in things:
        pass


async def try_all(client: AsyncClient, *, listens: bool) -> None:
    """Make requests of all kinds, some of which are cancelled, and check that each of them ends in time."""

    async def ends(function: Callable[[], Any], cancel_after: float) -> None:
        before = trio.current_time()
        with trio.move_on_after(cancel_after), contextlib.suppress(RemoteError):
            await function()
        assert trio.current_time() - before <= 40 * TIMEOUT

    async def listen() -> None:
        for _ in range(3):
            with contextlib.suppress(RemoteError):
                await take(client.events())

    async with trio.open_nursery() as nursery:
        for index in range(4):
            nursery.start_soon(ends, lambda: client.request({"n": 1}), (0, 0.5, 30, 10**6)[index])
            nursery.start_soon(ends, lambda: take(client.stream({"n": 2})), (0, 0.5, 30, 10**6)[index])
        nursery.start_soon(ends, lambda: client.request({"n": 3}, idempotent=True), 10**6)
        if listens:
            nursery.start_soon(ends, listen, 300)


async def check(behaviours: list[list[Step]], version: Any, listens: bool) -> None:
    """Let a server behave badly on its first connections, and check that the client comes to the good ones."""

    async def behave(stream: Any, number: int) -> None:
        peer = NumberedPeer(stream)
        if number > len(behaviours):
            await serve_well(stream)
            return
        with contextlib.suppress(AssertionError, trio.BrokenResourceError, trio.ClosedResourceError):
            for step in behaviours[number - 1]:
                await do(step, peer)
            await trio.sleep_forever()
        await stream.aclose()

    async with scripted(behave) as server, server.client(version=version, timeout=TIMEOUT) as client:
        await try_all(client, listens=listens)
        assert client.pending == 0
        for _ in range(1 + sum(len(each) + 3 for each in behaviours)):  # bad answers, a late one, and a lost one
            if await outcome(client) == {"well": 4}:
                break
        else:
            raise AssertionError(f"no request is answered, and there are {server.connections} connections")
        assert client.pending == 0


async def outcome(client: AsyncClient) -> Any:
    try:
        return await client.request({"n": 4})
    except RemoteError as error:
        return error


@settings(max_examples=300)
@given(st.lists(st.lists(steps, max_size=12), max_size=3), st.sampled_from([23, None]), st.booleans())
def test_each_request_ends_whatever_the_server_does(behaviours: list[list[Step]], version: Any, listens: bool) -> None:
    trio.run(check, behaviours, version, listens, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("data", BROKEN)
async def test_a_part_of_an_answer_to_the_first_ping_is_no_sign_of_life(autojump_clock: MockClock, data: bytes) -> None:
    async def behave(stream: Any, number: int) -> None:
        if number == 1:
            await trio.sleep(SILENCE - 1)
            await stream.send_all(data)
            await trio.sleep_forever()
        await serve_well(stream)

    async with scripted(behave) as server, server.client(version=None) as client:
        before = trio.current_time()
        assert await client.request({"n": 1}) == {"well": 1}
        assert SILENCE < trio.current_time() - before < SILENCE + 1
        assert server.connections == 2


@pytest.mark.parametrize("kind", ["request", "stream"])
async def test_a_server_that_vanishes_is_noticed_without_a_timeout(autojump_clock: MockClock, kind: str) -> None:
    async def vanish(stream: Any, number: int) -> None:
        await trio.sleep(10)
        await stream.send_all(numbered("PART", 1, {"n": 1}))
        await trio.sleep_forever()

    async with scripted(vanish) as server, server.client(version=23, timeout=None) as client:
        waiting = client.request({"n": 1}) if kind == "request" else take(client.stream({"n": 1}))
        with pytest.raises(ServerDisconnected, match="has sent nothing for 30 s"):
            await waiting
        assert trio.current_time() == pytest.approx(2 * KEEP_ALIVE + SILENCE)


async def test_a_server_that_takes_its_time_is_waited_for(autojump_clock: MockClock) -> None:
    async def answer_late(stream: Any, number: int) -> None:
        peer = NumberedPeer(stream)
        assert await peer.read() is not None
        for _ in range(100):
            assert await peer.read(10**6) == Answer("PING", 0, None)
            await peer.send(numbered("PONG", 0))
        await peer.send(numbered("REPLY", 1, {"n": 1}))
        await trio.sleep_forever()

    async with scripted(answer_late) as server, server.client(version=23, timeout=None) as client:
        assert await client.request({"n": 1}) == {"n": 1}
        assert trio.current_time() >= 100 * KEEP_ALIVE


async def test_a_connection_without_requests_gets_no_ping(autojump_clock: MockClock) -> None:
    got: list[str] = []

    async def note(stream: Any, number: int) -> None:
        async for data in packets(stream):
            got.append(KINDS[data[6]])
            await stream.send_all(numbered("END", int.from_bytes(data[7:11], "big")))

    async with scripted(note) as server, server.client(version=23) as client:
        assert await client.request({"n": 1}) is None
        await trio.sleep(10 * KEEP_ALIVE)
    assert got == ["REQUEST"]
