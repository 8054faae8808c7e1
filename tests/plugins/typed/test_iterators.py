"""Handlers that return an async iterator in place of being a generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

import pytest
import trio
from pydantic import BaseModel

from asyncapy import Server
from asyncapy.errors import HandlerFailed
from asyncapy.typed import StreamRequest
from asyncapy_core.testing import serving


class Number(BaseModel):
    number: int


class Count(StreamRequest[Number], op="count"):
    to: int


class Counter:
    """An async iterator that cannot be closed."""

    def __init__(self, to: int) -> None:
        self._numbers = iter(range(to))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Number:
        await trio.lowlevel.checkpoint()
        for number in self._numbers:
            return Number(number=number)
        raise StopAsyncIteration


async def test_an_iterator_that_cannot_be_closed_is_sent_to_its_end() -> None:
    server = Server()

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        return Counter(request.to)

    async with serving(server) as running, running.client(version=23) as client:
        assert [part.number async for part in client.stream_call(Count(to=3))] == [0, 1, 2]


async def test_a_list_in_place_of_an_iterator_is_named(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        return [Number(number=1)]  # type: ignore[return-value]  # the mistake

    async with serving(server) as running, running.client(version=23) as client:
        with pytest.raises(HandlerFailed):
            [part async for part in client.stream_call(Count(to=3))]
    assert "it returned a list; yield its items instead" in caplog.text
