"""Requests, streams and events of AsyncClient in version 23 that are cancelled at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from conftest import Start
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.client import AsyncClient

IDLE = 200
"""Seconds in which the server asks an idle client for a sign of life."""

Use = Callable[[AsyncClient], Awaitable[None]]


class Counting(trio.abc.Instrument):
    """Cancels a scope when the tasks of the client and the server have been scheduled a number of times."""

    def __init__(self, limit: int) -> None:
        self.scope = trio.CancelScope()
        self._left = limit

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


class Handlers:
    """A server whose handlers wait, and the number of those that are running."""

    def __init__(self) -> None:
        self.server = Server()
        self.running = 0
        self.server.add_handler()(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        self.running += 1
        try:
            if "push" in packet:
                await client.session.send({"event": 1})
            for number in range(3):
                await client.send({"n": number})
                await trio.lowlevel.checkpoint()
            return {"n": 3}
        finally:
            self.running -= 1


async def request(client: AsyncClient) -> None:
    for _ in range(3):
        assert await client.request({"a": 1}) == {"n": 3}


async def stream(client: AsyncClient) -> None:
    for _ in range(2):
        assert [part["n"] async for part in client.stream({"a": 1})] == [0, 1, 2, 3]


async def stream_in_a_block(client: AsyncClient) -> None:
    async with client.stream({"a": 1}) as parts:
        async for part in parts:
            assert part["n"] in range(4)


async def events(client: AsyncClient) -> None:
    async with client.events() as stream:
        await client.request({"push": 1})
        async for event in stream:
            assert event == {"event": 1}
            break


async def both(client: AsyncClient) -> None:
    async for _ in client.stream({"a": 1}):
        await client.request({"a": 1})


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("version", [23, None])
@pytest.mark.parametrize("use", [request, stream, stream_in_a_block, events, both])
async def test_a_cancellation_at_any_moment_costs_nothing_else(
    asyncapy_server: Start, autojump_clock: MockClock, use: Use, version: Any, connected: bool
) -> None:
    handlers = Handlers()
    running = await asyncapy_server(handlers.server)
    for limit in range(1, 200):
        async with running.client(version=version) as client:
            if connected:
                await client.request({"a": 1})
            counting = Counting(limit)
            trio.lowlevel.add_instrument(counting)
            with counting.scope:
                await use(client)
            trio.lowlevel.remove_instrument(counting)
            await wait_all_tasks_blocked()
            assert (client.pending, handlers.running) == (0, 0)
            assert await client.request({"a": 1}) == {"n": 3}
            assert len(handlers.server.sessions) == 1
        await wait_all_tasks_blocked()
        assert not handlers.server.sessions
        if not counting.scope.cancelled_caught:
            break
    else:
        raise AssertionError("the use does not end")
    assert limit > 10, "it was cancelled at many moments"


async def test_a_connection_whose_only_request_was_cancelled_is_not_timed_out(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(Handlers().server)
    for limit in range(1, 30):
        async with running.client(version=23) as client:
            counting = Counting(limit)
            trio.lowlevel.add_instrument(counting)
            with counting.scope:
                await client.request({"a": 1})
            trio.lowlevel.remove_instrument(counting)
            await trio.sleep(IDLE)
    assert not counting.scope.cancelled_caught
    assert not [line for line in running.log if "ERR_TIMED_OUT" in line]


@pytest.mark.parametrize("use", [request, stream, events])
async def test_a_client_may_be_cancelled_at_any_moment(
    asyncapy_server: Start, autojump_clock: MockClock, use: Use
) -> None:
    handlers = Handlers()
    running = await asyncapy_server(handlers.server)
    for limit in range(1, 200):
        counting = Counting(limit)
        ended = False

        async def run(client: AsyncClient) -> None:
            nonlocal ended
            with contextlib.suppress(Exception):
                await use(client)
                ended = True

        trio.lowlevel.add_instrument(counting)
        with counting.scope:
            async with running.client(version=23) as client, trio.open_nursery() as nursery:
                nursery.start_soon(run, client)
        trio.lowlevel.remove_instrument(counting)
        await wait_all_tasks_blocked()
        assert (client.pending, handlers.running, len(handlers.server.sessions)) == (0, 0, 0)
        if ended:
            break
    assert ended
