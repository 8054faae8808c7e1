"""`call` and `stream_call` of the synchronous client and of a pool, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from conftest import Serve
from pydantic import BaseModel

from asyncapy import Failure, Server
from asyncapy.client import Client, Pool
from asyncapy.errors import EncodeError, FailureReply, InvalidFields, InvalidReply, VersionTooOld
from asyncapy.typed import Request, StreamRequest

in_thread = trio.to_thread.run_sync


class Book(BaseModel):
    id: int
    title: str


class Read(Request[Book], op="books.read"):
    id: int


class ListBooks(StreamRequest[Book], op="books.list"):
    count: int


def bookshop() -> Server:
    server = Server(port=0)

    @server.operation(Read)
    async def read(request: Read) -> Book:
        if request.id == 404:
            raise Failure("ERR_NOT_FOUND", id=404)
        return Book(id=request.id, title="Walden")

    @server.operation(ListBooks)
    async def list_books(request: ListBooks) -> AsyncIterator[Book]:
        for number in range(request.count):
            yield Book(id=number, title="x")
        if request.count > 2:
            await trio.sleep_forever()

    return server


async def test_the_synchronous_client_calls_in_both_versions(serve: Serve) -> None:
    running = await serve(bookshop())

    def run(client: Client) -> None:
        with client:
            client.connect("127.0.0.1", running.port)
            assert client.call(Read(id=7)) == Book(id=7, title="Walden")
            with pytest.raises(FailureReply, match="ERR_NOT_FOUND") as caught:
                client.call(Read(id=404))
            assert caught.value.fields == {"id": 404}
            with pytest.raises(InvalidFields):
                client.call(Wrong(id="x"))
            with pytest.raises(ValueError, match="extra has the field 'op', which the request has, too"):
                client.call(Read(id=7), extra={"op": "books.list"})
            with pytest.raises(EncodeError):
                client.call(Read(id=7), extra={"key": object()})
            assert client.call(Read(id=8)).id == 8

    await in_thread(run, Client(tls=False, timeout=10))
    await in_thread(run, Client(tls=False, timeout=10, version=23, encoding="ziproto"))


class Wrong(Request[Book], op="books.read"):
    id: str


async def test_the_synchronous_client_streams_objects(serve: Serve) -> None:
    running = await serve(bookshop())

    def run() -> None:
        with Client(tls=False, timeout=10, version=23) as client:
            client.connect("127.0.0.1", running.port)
            assert [book.id for book in client.stream_call(ListBooks(count=2))] == [0, 1]
            endless = client.stream_call(ListBooks(count=3))
            assert next(endless).id == 0
            endless.close()
            assert client.call(Read(id=7)).id == 7
            with pytest.raises(InvalidReply, match="an answer to OtherList of another form"):
                list(client.stream_call(OtherList(count=1)))
            assert client.call(Read(id=7)).id == 7
        with Client(tls=False) as older:
            older.connect("127.0.0.1", running.port)
            with pytest.raises(VersionTooOld):
                older.stream_call(ListBooks(count=1))

    await in_thread(run)


class Film(BaseModel):
    minutes: int


class OtherList(StreamRequest[Film], op="books.list"):
    count: int


async def test_a_pool_calls_and_streams(serve: Serve) -> None:
    running = await serve(bookshop())
    async with Pool("127.0.0.1", running.port, tls=False, version=23, timeout=10) as pool:
        assert (await pool.call(Read(id=7), timeout=5, idempotent=True)).title == "Walden"
        assert [book.id async for book in pool.stream_call(ListBooks(count=2), timeout=5)] == [0, 1]
        async with pool.stream_call(ListBooks(count=3)) as books:
            assert [(await anext(books)).id for _ in range(3)] == [0, 1, 2]
        with pytest.raises(FailureReply, match="ERR_NOT_FOUND"):
            await pool.call(Read(id=404))
