"""Many requests of version 23 at the same time: each of them gets its own answers. `make soak` sends more of them."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import trio
from conftest import Serve
from numbered_load import KINDS, Load, add_load_handler

from asyncapy import Server
from asyncapy.client import AsyncClient
from asyncapy_core.client.events import EventStream

REQUESTS = 10_000
CALLERS = 100


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_no_request_gets_a_wrong_answer(serve: Serve, encoding: str) -> None:
    server = Server(port=0)
    add_load_handler(server)
    running = await serve(server)
    numbers = itertools.count()
    async with AsyncClient("127.0.0.1", running.port, tls=False, version=23, encoding=encoding) as client:
        loads = [Load(client, random.Random(seed), numbers) for seed in range(CALLERS)]
        events: list[int] = []

        async def listen(stream: EventStream) -> None:
            async for event in stream:
                events.append(event["event"])

        async def call(load: Load) -> None:
            for _ in range(REQUESTS // CALLERS):
                await load.request()

        async with trio.open_nursery() as listener, client.events() as stream:
            listener.start_soon(listen, stream)
            async with trio.open_nursery() as nursery:
                for load in loads:
                    nursery.start_soon(call, load)
            pushed = {number for load in loads for number in load.events}
            with trio.fail_after(10):
                while len(events) + stream.lost < len(pushed):  # noqa: ASYNC110  # the listener takes one each turn
                    await trio.sleep(0.001)
    assert [each for load in loads for each in load.wrong] == []
    assert pushed.issuperset(events)
    assert len(set(events)) == len(events)
    assert len(events) + stream.lost == len(pushed)
    requests = sum((load.requests for load in loads), Counter[str]())
    assert requests.total() == REQUESTS
    assert set(requests) == set(KINDS)
    assert running.server.statistics().sessions_opened == 1, "no cancelled request costs the connection"
