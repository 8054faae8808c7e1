"""Streams of AsyncClient whose loops are quick, slow or stuck, in memory with a mock clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from conftest import Start
from scripted import scripted
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected, StreamOverflow
from asyncapy_core.client.calls import MAX_PARTS
from asyncapy_core.client.numbered_connection import SILENCE

SIZE = 10_000
"""The bytes of a large part."""


class Sender:
    """A server that sends many parts, and the number of those that it has sent."""

    def __init__(self, **settings: Any) -> None:
        self.server = Server(**settings)
        self.sent = 0
        self.cancelled = 0
        self.server.add_handler()(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        fields = packet.fields
        self.sent = 0
        text = "x" * fields.get("size", 0)
        try:
            for number in range(fields.get("parts", 0)):
                await client.send({"n": number, "text": text})
                self.sent += 1
            if "wait" in fields:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return {"last": True}


async def take_all(stream: AsyncIterator[dict[str, Any]], taken: list[int], pause: float = 0) -> None:
    """Append the numbers of the parts of a stream to a list."""
    async for part in stream:
        taken.append(part.get("n", -1))
        if pause:
            await trio.sleep(pause)


async def numbers(stream: AsyncIterator[dict[str, Any]], pause: float = 0) -> list[int]:
    """Return the numbers of the parts of a stream, all but the last answer, which has none."""
    taken: list[int] = []
    await take_all(stream, taken, pause)
    assert taken.pop() == -1
    return taken


async def test_a_loop_gets_all_parts_of_a_handler_that_never_waits(asyncapy_server: Start) -> None:
    sender = Sender()
    running = await asyncapy_server(sender.server)
    async with running.client(version=23) as client:
        assert await numbers(client.stream({"parts": 5 * MAX_PARTS})) == list(range(5 * MAX_PARTS))
        assert await client.request({}) == {"last": True}
    assert not [line for line in running.log if "failed" in line]


@pytest.mark.parametrize("turns", [1, 5])
async def test_a_loop_that_waits_for_few_turns_gets_all_parts(asyncapy_server: Start, turns: int) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23) as client:
        taken: list[int] = []
        async for part in client.stream({"parts": 5 * MAX_PARTS}):
            taken.append(part.get("n", -1))
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
        assert taken == [*range(5 * MAX_PARTS), -1]


@pytest.mark.parametrize("settings", [{}, {"max_packet": 10 * SIZE}], ids=["parts", "bytes"])
async def test_a_loop_that_takes_nothing_ends_its_stream_and_holds_up_nothing(
    asyncapy_server: Start, autojump_clock: MockClock, settings: Any
) -> None:
    sender = Sender()
    running = await asyncapy_server(sender.server)
    async with running.client(version=23, **settings) as client:
        stream = client.stream({"parts": 10**6, "size": SIZE if settings else 1})
        assert (await stream.__anext__())["n"] == 0
        before = trio.current_time()
        assert await client.request({}) == {"last": True}, "its answer comes behind the parts"
        assert trio.current_time() == before
        await trio.testing.wait_all_tasks_blocked()
        assert sender.cancelled == 1
        taken: list[int] = []
        for _ in range(2):
            with pytest.raises(StreamOverflow, match="the answers to other requests are behind the next one"):
                await take_all(stream, taken)
        assert taken == list(range(1, len(taken) + 1))
        assert 8 <= len(taken) <= 10 if settings else MAX_PARTS - 1 <= len(taken) <= MAX_PARTS
    assert len([line for line in running.log if "New session started" in line]) == 1


async def test_a_loop_that_sleeps_loses_its_stream_also_when_nothing_else_is_in_flight(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23) as client:
        taken: list[int] = []
        with pytest.raises(StreamOverflow):
            await take_all(client.stream({"parts": 10**6}), taken, pause=1)
        assert MAX_PARTS <= len(taken) <= MAX_PARTS + 10
        assert await client.request({}) == {"last": True}


@pytest.mark.parametrize("how", ["aclose", "drop", "cancel"])
async def test_a_full_stream_that_is_left_holds_up_nothing(
    asyncapy_server: Start, autojump_clock: MockClock, how: str
) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23, max_packet=10 * SIZE) as client:
        stream = client.stream({"parts": 10**6, "size": SIZE})
        assert (await stream.__anext__())["n"] == 0
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        if how == "aclose":
            await stream.aclose()
        elif how == "cancel":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(numbers, stream, 1)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await stream.aclose()
        del stream
        assert await client.request({}) == {"last": True}
        assert trio.current_time() == before


async def test_the_end_of_a_client_with_a_full_stream_is_not_delayed(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23, max_packet=10 * SIZE) as client:
        stream = client.stream({"parts": 10**6, "size": SIZE})
        assert (await stream.__anext__())["n"] == 0
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
    assert trio.current_time() == before
    with pytest.raises(StreamOverflow):
        await numbers(stream)


async def test_a_late_stream_finds_a_server_that_has_vanished(autojump_clock: MockClock) -> None:
    async def say_nothing(stream: Any, number: int) -> None:
        await trio.sleep_forever()

    async with scripted(say_nothing) as server, server.client(version=23) as client:
        before = trio.current_time()
        with pytest.raises(ReplyTimeout, match="no whole answer within 10 s"):
            await numbers(client.stream({}, timeout=10))
        with pytest.raises(ServerDisconnected, match="has sent nothing for 30 s"):
            await numbers(client.stream({}, timeout=1000))
        assert trio.current_time() - before == 10 + SILENCE


@pytest.mark.parametrize("seconds", [60, None])
async def test_a_stream_that_begins_after_the_end_of_its_client_is_not_sent(
    asyncapy_server: Start, autojump_clock: MockClock, seconds: Any
) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23, timeout=seconds) as client:
        stream = client.stream({})
    before = trio.current_time()
    with pytest.raises(NotConnected, match="the client was closed before the request was sent"):
        await numbers(stream)
    assert trio.current_time() == before


async def test_a_task_whose_stream_is_cancelled_by_another_one_is_told(asyncapy_server: Start) -> None:
    sender = Sender()
    running = await asyncapy_server(sender.server)
    async with running.client(version=23) as client, trio.open_nursery() as nursery:
        stream = client.stream({"parts": 1, "wait": 1})
        assert (await stream.__anext__())["n"] == 0
        told = 0

        async def take() -> None:
            nonlocal told
            with pytest.raises(RemoteError, match="the stream was cancelled, as a task"):
                await numbers(stream)
            told += 1

        nursery.start_soon(take)
        async with trio.open_nursery() as other:
            other.start_soon(numbers, stream)
            await trio.testing.wait_all_tasks_blocked()
            other.cancel_scope.cancel()
        await take()
        await trio.testing.wait_all_tasks_blocked()
        assert (told, sender.cancelled) == (2, 1)


@pytest.mark.parametrize("sent", [False, True])
async def test_a_loop_that_is_cancelled_before_it_waits_cancels_its_request(asyncapy_server: Start, sent: bool) -> None:
    sender = Sender()
    running = await asyncapy_server(sender.server)
    async with running.client(version=23) as client:
        stream = client.stream({"parts": 3, "wait": 1})
        if sent:
            assert (await stream.__anext__())["n"] == 0
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.__anext__()
        assert scope.cancelled_caught
        with pytest.raises(RemoteError, match="the stream was cancelled"):
            await stream.__anext__()
        await trio.testing.wait_all_tasks_blocked()
        assert (client.pending, sender.cancelled) == (0, int(sent))


@pytest.mark.parametrize("answers", [MAX_PARTS - 1, MAX_PARTS, MAX_PARTS + 1])
async def test_as_many_answers_are_held_as_the_documentation_says(
    asyncapy_server: Start, autojump_clock: MockClock, answers: int
) -> None:
    running = await asyncapy_server(Sender().server)
    async with running.client(version=23) as client:
        stream = client.stream({"parts": answers})  # one more with the last answer; the first is taken at once
        assert (await stream.__anext__())["n"] == 0
        await trio.sleep(5)
        taken: list[int] = []
        if answers <= MAX_PARTS:
            await take_all(stream, taken)
            assert taken == [*range(1, answers), -1]
        else:
            with pytest.raises(StreamOverflow, match=f"has not taken {MAX_PARTS} parts"):
                await take_all(stream, taken)
            assert taken == [*range(1, MAX_PARTS + 1)]
        assert await client.request({}) == {"last": True}
