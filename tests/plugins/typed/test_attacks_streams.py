"""Streams of answers that are no generators, or end early."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio
from pydantic import BaseModel, field_validator

from asyncapy import Server
from asyncapy.errors import HandlerFailed
from asyncapy.typed import StreamRequest
from asyncapy_core.testing import serving


class Number(BaseModel):
    n: int


class Count(StreamRequest[Number], op="count"):
    pass


class Numbers:
    """An iterator without ``aclose``."""

    def __init__(self) -> None:
        self.n = 0

    def __aiter__(self) -> AsyncIterator[Number]:
        return self

    async def __anext__(self) -> Number:
        self.n += 1
        if self.n > 2:
            raise StopAsyncIteration
        return Number(n=self.n)


class Iterable:
    """An object whose iterators are generators, and notes that they are closed."""

    def __init__(self) -> None:
        self.closed = trio.Event()

    async def __aiter__(self) -> AsyncIterator[Number]:
        try:
            for n in (1, 2):
                yield Number(n=n)
            await trio.sleep_forever()
        finally:
            self.closed.set()


async def test_an_iterator_without_a_method_to_close_it_is_sent() -> None:
    server = Server(port=0)

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        return Numbers()

    async with serving(server) as running, running.client(version=23) as client:
        assert [number.n async for number in client.stream_call(Count())] == [1, 2]
        assert not any("ERROR" in line for line in running.log)


async def test_the_iterator_of_an_object_is_closed() -> None:
    server, numbers = Server(port=0), Iterable()

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterable[Number]:
        return numbers

    async with serving(server) as running, running.client(version=23) as client:
        with trio.fail_after(5):
            async with client.stream_call(Count()) as stream:
                assert [(await anext(stream)).n for _ in range(2)] == [1, 2]
            await numbers.closed.wait()


async def test_a_channel_of_trio_is_sent_and_closed() -> None:
    server = Server(port=0)
    sending: list[trio.MemorySendChannel[Number]] = []

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        send, receive = trio.open_memory_channel[Number](3)
        sending.append(send)
        for n in range(3):
            await send.send(Number(n=n))
        return receive

    async with serving(server) as running, running.client(version=23) as client:
        with trio.fail_after(5):
            async with client.stream_call(Count()) as stream:
                assert (await anext(stream)).n == 0
            with pytest.raises(trio.BrokenResourceError):
                await send_for_ever(sending[0])


async def send_for_ever(channel: trio.MemorySendChannel[Number]) -> None:
    while True:
        await channel.send(Number(n=4))


async def test_no_iterator_is_a_failure_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterator[Number]:
        nothing: Any = None
        return nothing  # type: ignore[no-any-return]

    async with serving(server) as running, running.client(version=23) as client:
        with pytest.raises(HandlerFailed):
            await anext(client.stream_call(Count()))
    assert "it returned a NoneType; yield its items instead" in caplog.text


class Failing(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _fails(cls, n: int) -> int:
        raise RuntimeError("broken")


class CountFailing(StreamRequest[Failing], op="count"):
    pass


async def test_a_stream_is_cancelled_if_its_answer_cannot_be_read() -> None:
    server, numbers = Server(port=0), Iterable()

    @server.operation(Count)
    async def count(request: Count) -> AsyncIterable[Number]:
        return numbers

    async with serving(server) as running, running.client(version=23) as client:
        stream = client.stream_call(CountFailing())
        with pytest.raises(RuntimeError, match="broken"):
            await anext(stream)
        with trio.fail_after(5):
            await numbers.closed.wait()
