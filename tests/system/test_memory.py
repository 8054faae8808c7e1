"""The memory of connections: an idle one keeps no packet, and an ended one is freed without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from conftest import Certificates, Running, Serve
from peer import JSON, Peer, json_packet, packet

from asyncapy import Server
from asyncapy.errors import ClientDisconnected
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.tls import TlsTransport
from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.server.connection import Connection
from asyncapy_core.server.request import Request
from asyncapy_core.session import Client, Session

KINDS = (Client, Connection, FrameDecoder, Outbox, Request, Session, SocketTransport, TlsTransport)


@contextlib.asynccontextmanager
async def without_collector(running: Running, *, connections: int = 0) -> AsyncIterator[None]:
    """Fail if the block leaves an object of a connection that only the garbage collector could free."""
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, KINDS)}
    gc.disable()
    try:
        yield
        await running.settle(connections)
        await trio.testing.wait_all_tasks_blocked(0.01)
        left = [type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS) and id(each) not in before]
        assert left == []
    finally:
        gc.enable()


def reset(peer: Peer) -> None:
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.stream.socket.close()


async def leave(peer: Peer) -> None:
    assert await peer.ask(a=1) == {"a": 1}


async def leave_in_a_packet(peer: Peer) -> None:
    await peer.send(json_packet(a="x" * 900_000)[:-1])
    await trio.testing.wait_all_tasks_blocked(0.01)


async def be_reset(peer: Peer) -> None:
    await leave_in_a_packet(peer)
    reset(peer)


async def send_nonsense(peer: Peer) -> None:
    await peer.send(packet(JSON, b"{}"))
    assert await peer.failure() == "ERR_REQUEST_MALFORMED"


async def have_a_handler_fail(peer: Peer) -> None:
    await peer.send(json_packet(fail=1))
    assert await peer.failure() == "ERR_HANDLER_FAILED"


async def have_a_handler_wait(peer: Peer) -> None:
    assert await peer.ask(wait=1) == {"wait": 1}


async def have_a_handler_close(peer: Peer) -> None:
    await peer.send(json_packet(close=1))
    assert await peer.closed()


async def be_too_late(peer: Peer) -> None:
    assert await peer.failure() == "ERR_TIMED_OUT"


ENDS: list[Callable[[Peer], Any]] = [
    leave,
    leave_in_a_packet,
    be_reset,
    send_nonsense,
    have_a_handler_fail,
    have_a_handler_wait,
    have_a_handler_close,
    be_too_late,
]


def server_with_handlers(**settings: Any) -> Server:
    server = Server(port=0, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "fail" in packet:
            raise ValueError("a failure")
        if "wait" in packet:
            await trio.sleep(0.01)
        if "close" in packet:
            await client.close()
        else:
            await client.send(packet)

    return server


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("handler_timeout", [None, 5.0])
async def test_an_ended_connection_is_freed_at_once(serve: Serve, end: Any, handler_timeout: float | None) -> None:
    settings = {"timeout": 0.1} if end is be_too_late else {}
    running = await serve(server_with_handlers(handler_timeout=handler_timeout, **settings))
    async with without_collector(running):
        async with await running.connect() as peer:
            await end(peer)
        del peer


async def test_a_refused_connection_is_freed_at_once(serve: Serve) -> None:
    running = await serve(server_with_handlers(session_limit=1))
    async with await running.connect() as first:
        assert await first.ask(a=1) == {"a": 1}
        async with without_collector(running, connections=1):
            for _ in range(3):
                async with await running.connect() as peer:
                    assert await peer.failure() == "ERR_SESSION_LIMIT_REACHED"
            del peer


async def test_an_ended_tls_connection_is_freed_at_once(serve: Serve, certificates: Certificates) -> None:
    running = await serve(server_with_handlers(tls_cert=certificates.server))
    async with without_collector(running):
        async with await running.connect() as silent:  # never begins the handshake
            await trio.testing.wait_all_tasks_blocked(0.01)
        del silent
        async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
            assert await peer.ask(a=1) == {"a": 1}
        del peer


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_the_ended_connection_of_a_session_that_was_logged_in_is_freed_at_once(
    serve: Serve, is_revoked: bool
) -> None:
    factory = APIKeyFactory()
    server = server_with_handlers()
    server.guard(Filters.APIFactory(factory, "key", once=True))
    running = await serve(server)
    key = factory.issue()
    async with await running.connect() as stays:
        assert await stays.ask(key=factory.issue()) is not None
        async with without_collector(running, connections=1):
            async with await running.connect() as peer:
                for fields in ({"key": key}, {"a": 1}):
                    assert await peer.ask(**fields) == fields
                if is_revoked:
                    factory.revoke(key)
                    assert await peer.closed()
            del peer


class Marker:
    """An object in the fields of a packet, freed with the packet."""


class Answer(dict[str, Any]):
    """A mapping that can be referenced weakly."""


@pytest.mark.parametrize("returns", [False, True])
async def test_an_idle_connection_keeps_no_packet(serve: Serve, returns: bool) -> None:
    kept: list[weakref.ref[Any]] = []
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        marker, answer = Marker(), Answer(ok=True)
        packet["marker"] = marker
        kept.extend((weakref.ref(marker), weakref.ref(answer)))
        if returns:
            return answer
        await client.send(answer)
        return None

    running = await serve(server)
    gc.disable()
    try:
        async with await running.connect() as peer:
            for number in range(3):
                assert await peer.ask(number=number) == {"ok": True}
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert [each() for each in kept] == [None] * 2 * (number + 1)
    finally:
        gc.enable()


async def test_a_session_has_its_client_after_the_end(serve: Serve) -> None:
    sessions: list[Session] = []
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Client, packet: Any) -> None:
        sessions.append(client.session)
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.ask(a=1)
        (session,) = sessions
        assert session.client.session is session
        address, identity = session.client.address, repr(session.client)
        assert session.client.get_sessions() == [session]
    await running.settle()
    gc.collect()
    client = session.client
    assert client is session.get_client()
    assert (client.session, client.address, repr(client)) == (session, address, identity)
    assert client.get_sessions() == []
    assert client.server is running.server
    with pytest.raises(ClientDisconnected) as caught:
        await client.send({"too": "late"})
    assert caught.value.client is client
    await session.close()
    assert str(session.session_id) in client.log.process("text", {})[0]


async def test_beyond_max_buffered_the_largest_incomplete_packet_is_refused_and_no_other(serve: Serve) -> None:
    running = await serve(Server(port=0, max_buffered=100_000))
    data = json_packet(a="x" * 200_000)

    def incomplete() -> int:
        return running.server.statistics().bytes_incomplete

    async with contextlib.AsyncExitStack() as stack:
        small = []
        for size in (10_000, 20_000, 30_000):
            peer = await stack.enter_async_context(await running.connect())
            await peer.send(data[:size])
            small.append(peer)
        await until(lambda: incomplete() == 60_000)
        large = await stack.enter_async_context(await running.connect())
        await large.send(data[:45_000])
        assert await large.failure() == "ERR_SERVER_BUSY"
        assert incomplete() == 60_000
        await small[0].send(data[10_000:35_000])
        await until(lambda: incomplete() == 85_000)
        await small[2].send(data[30_000:50_000])  # now 50,000 bytes, the largest
        assert await small[2].failure() == "ERR_SERVER_BUSY"
        await small[0].send(data[35_000:])
        assert await small[0].json() == {"a": "x" * 200_000}
        await until(lambda: incomplete() == 20_000)
    await running.settle()
    assert incomplete() == 0


async def test_a_packet_that_is_complete_is_not_refused_while_its_handler_runs(serve: Serve) -> None:
    server = Server(port=0, max_buffered=100_000)
    begun = trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        begun.set()
        await trio.sleep(0.05)
        await client.send({"size": len(packet["a"])})

    running = await serve(server)
    async with await running.connect() as first, await running.connect() as second:
        data = json_packet(a="x" * 200_000)
        await first.send(data[:90_000])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await first.send(data[90_000:])
        await begun.wait()
        await second.send(data[:95_000])
        assert await first.json() == {"size": 200_000}
        await second.send(data[95_000:])
        assert await second.json() == {"size": 200_000}


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)
