"""A handler with any number of answers refuses packets of version 22: a client would take them for other answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from asyncapy import Client, Server
from asyncapy.errors import FailureReply
from asyncapy.typed import Depends, Request, StreamRequest
from asyncapy_core.testing import serving

calls: list[str] = []


class Number(BaseModel):
    n: int


class Count(StreamRequest[Number], op="count"):
    to: int


class Depending(StreamRequest[Number], op="depending"):
    to: int


class Read(Request[Number], op="read"):
    n: int


def opened() -> str:
    calls.append("opened")
    return "open"


def counting() -> Server:
    server = Server(port=0)

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        for n in range(request.to):
            yield Number(n=n)

    @server.operation(Depending)
    async def depending(request: Depending, state: Annotated[str, Depends(opened)]) -> AsyncIterator[Number]:
        yield Number(n=len(state))

    @server.operation(Read)
    async def read(request: Read, client: Client) -> Number:
        return Number(n=client.version)

    return server


@pytest.mark.parametrize("fields", [{"op": "count", "to": 3}, {"op": "count", "to": 0}, {"op": "depending", "to": 1}])
async def test_a_stream_is_refused_in_version_22_and_later_answers_are_right(fields: dict[str, Any]) -> None:
    calls.clear()
    async with serving(counting()) as running, running.client(raise_failures=True) as client:
        with pytest.raises(FailureReply, match="ERR_VERSION_TOO_OLD: a stream of answers needs version 23 of"):
            await client.request(fields)
        for _ in range(3):
            assert await client.call(Read(n=1)) == Number(n=22)
    assert calls == []


async def test_a_stream_is_answered_in_version_23() -> None:
    async with serving(counting()) as running, running.client(version=23) as client:
        assert [number.n async for number in client.stream_call(Count(to=2))] == [0, 1]
        assert await client.call(Read(n=1)) == Number(n=23)
