"""Servers for `AsyncClient` in memory that run a function for each connection, and the outcomes of requests."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from asyncapy.client import AsyncClient
from asyncapy.errors import RemoteError

Behaviour = Callable[[trio.StapledStream[Any, Any], int], Awaitable[None]]


class Scripted:
    """A server that runs a function for each connection; connections are numbered from 1."""

    def __init__(self, nursery: trio.Nursery, behave: Behaviour) -> None:
        self.connections = 0
        self._nursery = nursery
        self._behave = behave

    async def open_stream(self) -> trio.abc.Stream:
        self.connections += 1
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs, self.connections)
        return ours

    async def _serve(self, stream: trio.StapledStream[Any, Any], number: int) -> None:
        try:
            await self._behave(stream, number)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.aclose()

    def client(self, **settings: Any) -> AsyncClient:
        return AsyncClient("nowhere", 1, open_stream=self.open_stream, **{"tls": False, **settings})


@asynccontextmanager
async def scripted(behave: Behaviour) -> AsyncIterator[Scripted]:
    async with trio.open_nursery() as nursery:
        yield Scripted(nursery, behave)
        nursery.cancel_scope.cancel()


def client_of(port: int, **settings: Any) -> AsyncClient:
    return AsyncClient("127.0.0.1", port, **{"tls": False, "timeout": 10, **settings})


@asynccontextmanager
async def fake_server(behave: Callable[[trio.SocketStream], Awaitable[None]], port: int = 0) -> AsyncIterator[int]:
    """Serve connections over TCP with a function; yield the port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, behave, port)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class packets:
    """Iterates over the packets of a stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._buffer = b""

    def __aiter__(self) -> packets:
        return self

    async def __anext__(self) -> bytes:
        while len(self._buffer) < 4 or len(self._buffer) < 4 + struct.unpack(">I", self._buffer[:4])[0]:
            data = await self._stream.receive_some()
            if not data:
                raise StopAsyncIteration
            self._buffer += data
        size = 4 + struct.unpack(">I", self._buffer[:4])[0]
        packet, self._buffer = self._buffer[:size], self._buffer[size:]
        return packet


async def echo(stream: Any, number: int) -> None:
    async for packet in packets(stream):
        await stream.send_all(packet)


async def outcome(client: AsyncClient, fields: dict[str, Any], **settings: Any) -> Any:
    try:
        return await client.request(fields, **settings)
    except RemoteError as error:
        return type(error)


async def all_outcomes(client: AsyncClient, requests: list[dict[str, Any]], **settings: Any) -> list[Any]:
    """Send all requests at the same time, and return their outcomes in the order of the requests."""
    outcomes: list[Any] = [None] * len(requests)

    async def ask(number: int) -> None:
        outcomes[number] = await outcome(client, requests[number], **settings)

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
    return outcomes
