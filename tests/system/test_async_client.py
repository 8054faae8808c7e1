"""The trio client, against real servers and against peers that break the protocol."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import JSON, packet
from ports import free_port
from scripted import client_of, fake_server

from asyncapy import Server
from asyncapy.client import AsyncClient, Pool
from asyncapy.errors import (
    EncodeError,
    FailureReply,
    HandlerFailed,
    InvalidReply,
    NoHandlerFound,
    NotConnected,
    RemoteError,
    ServerBusy,
    ServerDisconnected,
    SessionLimitReached,
    UnknownCodec,
)


async def test_requests_of_many_tasks_each_get_their_own_reply(serve: Serve) -> None:
    server = Server(port=0)
    chance = random.Random(3)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        if chance.random() < 0.1:
            await trio.sleep(0.001)
        await client.send(packet)

    running = await serve(server)
    replies: dict[int, Any] = {}

    async def ask(client: AsyncClient, number: int) -> None:
        replies[number] = await client.request({"number": number})

    async with client_of(running.port) as client, trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(ask, client, number)
    assert replies == {number: {"number": number} for number in range(500)}
    assert len(running.logged("New session started")) == 1, "all tasks share one connection"


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
@pytest.mark.parametrize("settings", [{}, {"header_size": 2, "byteorder": "little"}])
async def test_it_speaks_what_the_server_speaks(serve: Serve, encoding: str, settings: dict[str, Any]) -> None:
    running = await serve(**settings)
    async with client_of(running.port, encoding=encoding, **settings) as client:
        assert await client.request({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
        assert await client.request('{"text": 1}') == {"text": 1}


async def test_it_verifies_the_certificate(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    async with AsyncClient("localhost", running.port, ca_file=certificates.ca_file) as client:
        assert await client.request({"a": 1}) == {"a": 1}
    async with AsyncClient("localhost", running.port) as client:
        with pytest.raises(RemoteError, match=r"is not trusted.*give its CA as ca_file="):
            await client.request({"a": 1})
    plain = await serve()
    async with AsyncClient("localhost", plain.port) as client:
        with pytest.raises(RemoteError, match="if the server speaks plain TCP, use tls=False"):
            await client.request({"a": 1})


async def test_what_cannot_be_sent_is_told_and_harms_nobody(serve: Serve) -> None:
    running = await serve()
    async with client_of(running.port) as client:
        with pytest.raises(EncodeError):
            await client.request({"a": object()})
        with pytest.raises(TypeError):
            await client.request([1])  # type: ignore[arg-type]  # the mistake that is tested
        assert await client.request({"a": 1}) == {"a": 1}


async def test_requests_wait_for_a_server_that_is_not_there_yet(serve: Serve) -> None:
    port = free_port()
    replies: list[Any] = []

    async def ask(client: AsyncClient) -> None:
        replies.append(await client.request({"a": 1}))

    async with client_of(port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client)
        nursery.start_soon(ask, client)
        await trio.sleep(0.2)
        assert replies == []
        await serve(Server(port=port))
    assert replies == [{"a": 1}] * 2


async def test_a_server_that_never_comes_is_told_with_its_reason() -> None:
    port = free_port()
    async with client_of(port) as client:
        with pytest.raises(NotConnected, match=r"never sent within 0\.3 s: cannot connect to 127\.0\.0\.1:\d+:"):
            await client.request({"a": 1}, timeout=0.3)


async def test_a_lost_connection_is_made_anew_for_the_next_request(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet, close="close" in packet)

    running = await serve(server)
    async with client_of(running.port) as client:
        for _ in range(3):
            assert await client.request({"close": 1}) == {"close": 1}
            await running.settle(0)
        assert await client.request({"a": 1}) == {"a": 1}
    assert len(running.logged("New session started")) == 4


async def test_a_session_that_timed_out_is_made_anew(serve: Serve) -> None:
    running = await serve(timeout=0.1)
    async with client_of(running.port) as client:
        assert await client.request({"a": 1}) == {"a": 1}
        await running.settle(0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await client.request({"a": 2}) == {"a": 2}


async def test_what_was_sent_before_the_connection_was_lost_fails_and_what_was_not_is_sent() -> None:
    connections = 0
    outcomes: list[Any] = []

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        data = await stream.receive_some()
        if connections == 1:
            await trio.sleep(0.05)
            await stream.aclose()
            return
        await stream.send_all(bytes(data))
        await trio.sleep_forever()

    async def ask(client: AsyncClient, number: int) -> None:
        try:
            outcomes.append(await client.request({"number": number}))
        except ServerDisconnected as error:
            outcomes.append(str(error))

    async with fake_server(behave) as port, client_of(port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask, client, 1)
        await trio.sleep(0.1)
        await client.request({"number": 2})
        nursery.cancel_scope.cancel()
    assert outcomes == ["the server closed the connection without a reply; is tls the same on both sides?"]
    assert connections == 2


async def test_a_server_that_talks_nonsense_is_told_apart() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    async with fake_server(behave) as port, client_of(port, max_packet=1000) as client:
        with pytest.raises(InvalidReply, match="no AsyncAProto packet"):
            await client.request({"a": 1})


async def test_leaving_ends_every_request_that_is_pending(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def never(client: Any, packet: Any) -> None:
        await trio.sleep_forever()

    running = await serve(server)
    outcomes: list[str] = []

    async def ask(client: AsyncClient) -> None:
        try:
            await client.request({"a": 1})
        except ServerDisconnected as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery, client_of(running.port) as client:
        for _ in range(3):
            nursery.start_soon(ask, client)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert outcomes == ["the client was closed before the reply came"] * 3
    with pytest.raises(NotConnected, match="use it within 'async with"):
        await client.request({"a": 1})
    for session in running.server.sessions:
        await session.close()


@pytest.mark.parametrize("raising", [True, False])
async def test_failures_are_raised_for_those_who_ask_for_it(serve: Serve, raising: bool) -> None:
    server = Server(port=0, session_limit=1)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "own" in packet:
            await client.send({"status": "failure", "error": "ERR_OF_MINE"})
            return
        raise ValueError("oops")

    server.guard(lambda client, packet: "refused" not in packet)
    running = await serve(server)
    async with client_of(running.port, raise_failures=raising) as client:
        for fields, kind, code in (
            ({"a": 1}, HandlerFailed, "ERR_HANDLER_FAILED"),
            ({"refused": 1}, NoHandlerFound, "ERR_NO_HANDLER"),
            ({"own": 1}, FailureReply, "ERR_OF_MINE"),
        ):
            if raising:
                with pytest.raises(kind, match=code) as caught:
                    await client.request(fields)
                assert caught.value.code == code
            else:
                assert await client.request(fields) == {"status": "failure", "error": code}
        async with client_of(running.port, raise_failures=raising) as second:
            if raising:
                with pytest.raises(SessionLimitReached, match="ERR_SESSION_LIMIT_REACHED"):
                    await second.request({"a": 1})


async def test_a_busy_server_is_told(serve: Serve) -> None:
    running = await serve(max_connections=1)
    async with await running.connect() as first:
        assert await first.ask(a=1) == {"a": 1}
        async with client_of(running.port, raise_failures=True) as client:
            with pytest.raises(ServerBusy, match="ERR_SERVER_BUSY"):
                await client.request({"a": 1})


async def test_a_pool_spreads_requests_over_its_connections(serve: Serve) -> None:
    server = Server(port=0)
    at_work = most = 0

    @server.add_handler()
    async def slow(client: Any, packet: Any) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await trio.sleep(0.02)
        at_work -= 1
        await client.send(packet)

    running = await serve(server)
    replies: list[int] = []

    async def ask(pool: Pool, number: int) -> None:
        replies.append((await pool.request({"number": number}))["number"])

    async with Pool("127.0.0.1", running.port, size=4, tls=False) as pool, trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(ask, pool, number)
    assert sorted(replies) == list(range(12))
    assert most == 4
    assert len(running.logged("New session started")) == 4
    with pytest.raises(NotConnected, match="use it within 'async with Pool"):
        await pool.request({"a": 1})


def test_mistakes_in_the_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="timeout is 0"):
        AsyncClient("localhost", 1, timeout=0)
    with pytest.raises(ValueError, match="has no effect with tls=False"):
        AsyncClient("localhost", 1, tls=False, ca_file="ca.pem")
    with pytest.raises(ValueError, match="a pool has 1 connection or more"):
        Pool("localhost", 1, size=0)
    with pytest.raises(UnknownCodec):
        AsyncClient("localhost", 1, encoding="none")


async def test_a_client_is_opened_once(serve: Serve) -> None:
    running = await serve()
    async with client_of(running.port) as client:
        with pytest.raises(RemoteError, match="open already"):
            await client.__aenter__()


async def test_replies_may_come_in_pieces_and_many_at_a_time() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        received = b""
        while received.count(b"{") < 20:
            received += await stream.receive_some()
        replies = b"".join(packet(JSON, b'{"n":%d}' % number) for number in range(20))
        for start in range(0, len(replies), 7):
            await stream.send_all(replies[start : start + 7])
            await trio.lowlevel.checkpoint()
        await trio.sleep_forever()

    got: dict[int, Any] = {}

    async def ask(client: AsyncClient, number: int) -> None:
        got[number] = await client.request({"n": number})

    async with fake_server(behave) as port, client_of(port) as client, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, client, number)
    assert sorted(reply["n"] for reply in got.values()) == list(range(20))
