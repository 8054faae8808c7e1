"""The places of a peer: closing and refused connections count, and the oldest of a network yields to its newest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio
from conftest import Running, Serve
from peer import Peer

from asyncapy_core.server.state import MAX_REFUSED_PER_NETWORK

MALFORMED = bytes(4)


async def until(running: Running, **sizes: int) -> None:
    """Wait until the server has these numbers of connections."""
    with trio.fail_after(5):
        while {name: getattr(running.server.statistics(), name) for name in sizes} != sizes:  # noqa: ASYNC110  # as in Running.settle
            await trio.sleep(0.002)


@contextlib.asynccontextmanager
async def peers() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def fail(running: Running, stack: contextlib.AsyncExitStack, address: str = "127.0.0.1") -> Peer:
    """Have a session end with an error reply, and keep the connection open."""
    peer = await stack.enter_async_context(await Peer.connect_from(address, running.port))
    await peer.send(MALFORMED)
    assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    return peer


async def test_closing_connections_count_as_sessions_and_the_oldest_yields(serve: Serve) -> None:
    running = await serve(session_limit=2)
    async with peers() as stack:
        await fail(running, stack, "127.0.0.2")
        held = [await fail(running, stack) for _ in range(10)]
        await until(running, connections=3, closing=3, sessions=0)
        for peer in held[:8]:
            assert await peer.closed()
        fresh = await stack.enter_async_context(await running.connect())
        assert await fresh.ask(a=1) == {"a": 1}
        await until(running, connections=3, closing=2, sessions=1)
        again = await stack.enter_async_context(await running.connect())
        assert await again.ask(a=2) == {"a": 2}
        await until(running, connections=3, closing=1, sessions=2)  # the closing one is of the other network
        late = await stack.enter_async_context(await running.connect())
        assert await late.failure() == "ERR_SESSION_LIMIT_REACHED"
    await running.settle()


async def test_without_a_limit_closing_connections_stay_until_their_deadline(serve: Serve) -> None:
    running = await serve()
    async with peers() as stack:
        for _ in range(5):
            await fail(running, stack)
        await until(running, connections=5, closing=5)
    await running.settle()


async def test_a_full_server_drops_a_closing_connection_before_it_refuses_a_new_one(serve: Serve) -> None:
    running = await serve(max_connections=2)
    async with peers() as stack:
        await fail(running, stack, "127.0.0.2")
        await fail(running, stack, "127.0.0.3")
        await until(running, connections=2, closing=2)
        for _ in range(2):
            peer = await stack.enter_async_context(await running.connect())
            assert await peer.ask(a=1) == {"a": 1}
        peer = await stack.enter_async_context(await running.connect())
        assert await peer.failure() == "ERR_SERVER_BUSY"
    await running.settle()


async def test_refused_connections_of_one_network_leave_room_for_those_of_others(serve: Serve) -> None:
    running = await serve(session_limit=1)
    async with peers() as stack:
        for address in ("127.0.0.1", "127.0.0.2"):
            peer = await stack.enter_async_context(await Peer.connect_from(address, running.port))
            assert await peer.ask(a=1) == {"a": 1}
        for _ in range(3 * MAX_REFUSED_PER_NETWORK):
            peer = await stack.enter_async_context(await running.connect())
            assert await peer.failure() == "ERR_SESSION_LIMIT_REACHED"
        await until(running, refused=MAX_REFUSED_PER_NETWORK, connections=2)
        peer = await stack.enter_async_context(await Peer.connect_from("127.0.0.2", running.port))
        assert await peer.failure() == "ERR_SESSION_LIMIT_REACHED"
        await until(running, refused=MAX_REFUSED_PER_NETWORK + 1)
    await running.settle()
