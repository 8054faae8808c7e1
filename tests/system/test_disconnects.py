"""Peers that leave while a handler runs: their place is given back, and the handler can notice."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import pytest
import trio
from conftest import Certificates, Running, Serve
from peer import Peer, json_packet

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy_core.server.disconnects import find_broken
from asyncapy_core.testing import Detached


def reset(peer: Peer) -> None:
    """Close a connection with a reset."""
    sock = getattr(peer.stream, "transport_stream", peer.stream).socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class SlowServer(Server):
    """A server whose handler waits in several ways, until it is released."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(port=0, **settings)
        self.begun = trio.Event()
        self.release = trio.Event()
        self.thread_release = threading.Event()
        self.outcomes: list[Any] = []
        self.register_handler(self.handle)

    async def handle(self, client: Client, packet: Packet) -> None:
        self.begun.set()
        try:
            if packet["how"] == "wait":
                await self.release.wait()
            elif packet["how"] == "gone":
                assert not client.gone
                await client.gone
            else:
                await self.run_sync_task(self.thread_release.wait)
            self.outcomes.append(bool(client.gone))
            await client.send({"done": True})
        except BaseException as error:
            self.outcomes.append(type(error).__name__)
            raise


async def places(running: Running) -> tuple[int, int, int]:
    statistics = running.server.statistics()
    return statistics.connections, statistics.sessions, statistics.abandoned


async def until(running: Running, expected: tuple[int, int, int]) -> None:
    with trio.fail_after(5):
        while await places(running) != expected:  # noqa: ASYNC110  # as in Running.settle
            await trio.sleep(0.005)


@pytest.mark.parametrize("how", ["wait", "thread"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_reset_gives_the_place_back_while_the_handler_runs(
    serve: Serve, certificates: Certificates, how: str, tls: bool
) -> None:
    server = SlowServer(session_limit=1, tls_cert=certificates.server if tls else None)
    running = await serve(server)

    async def connect() -> Peer:
        if tls:
            return await Peer.connect_tls(running.port, certificates.client_context())
        return await running.connect()

    peer = await connect()
    await peer.send(json_packet(how=how))
    await server.begun.wait()
    reset(peer)
    await until(running, (0, 0, 1))
    async with await connect() as other:
        server.begun = trio.Event()
        await other.send(json_packet(how=how))
        await server.begun.wait()
        server.release.set()
        server.thread_release.set()
        assert await other.json() == {"done": True}
    await until(running, (0, 0, 0))
    assert sorted(server.outcomes, key=str) == ["ClientDisconnected", False, True]
    assert not running.logged("[ERROR]")


async def test_a_handler_can_wait_for_the_end_of_its_client(serve: Serve) -> None:
    server = SlowServer()
    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(how="gone"))
    await server.begun.wait()
    reset(peer)
    await until(running, (0, 0, 0))
    assert server.outcomes == [True, "ClientDisconnected"]


@pytest.mark.parametrize("handler_timeout", [None, 60.0])
async def test_with_cancel_on_disconnect_the_handler_is_cancelled(serve: Serve, handler_timeout: float | None) -> None:
    server = SlowServer(cancel_on_disconnect=True, handler_timeout=handler_timeout)
    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(how="wait"))
    await server.begun.wait()
    reset(peer)
    await until(running, (0, 0, 0))
    assert server.outcomes == ["Cancelled"]
    assert not running.logged("[ERROR]")


async def test_a_half_closed_connection_is_not_gone(serve: Serve) -> None:
    server = SlowServer(cancel_on_disconnect=True)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(how="wait"))
        await peer.half_close()
        await server.begun.wait()
        await trio.sleep(0.15)  # three checks
        server.release.set()
        assert await peer.json() == {"done": True}
        assert await peer.closed()
    assert server.outcomes == [False]


async def test_packets_that_wait_to_be_read_do_not_hide_a_reset(serve: Serve) -> None:
    server = SlowServer()
    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(how="gone") + json_packet(how="wait") * 1000)
    await server.begun.wait()
    reset(peer)
    await until(running, (0, 0, 0))
    assert server.outcomes == [True, "ClientDisconnected"]


async def test_handlers_of_clients_that_have_left_are_bounded(serve: Serve) -> None:
    server = SlowServer(max_connections=2)
    running = await serve(server)
    for count in (1, 2):
        peer = await running.connect()
        server.begun = trio.Event()
        await peer.send(json_packet(how="wait"))
        await server.begun.wait()
        reset(peer)
        await until(running, (0, 0, count))
    async with await running.connect() as peer:
        assert await peer.failure() == "ERR_SERVER_BUSY"
    server.release.set()
    await until(running, (0, 0, 0))
    async with await running.connect() as peer:
        assert await peer.ask(how="wait") == {"done": True}


async def test_a_drain_waits_for_the_handlers_of_clients_that_have_left(serve: Serve) -> None:
    server = SlowServer(drain_timeout=30)
    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(how="wait"))
    await server.begun.wait()
    reset(peer)
    await until(running, (0, 0, 1))
    server.stop()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert server.outcomes == []
    server.release.set()
    with trio.fail_after(5):
        while server.addresses:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.005)
    assert server.outcomes == [True, "ClientDisconnected"]


async def test_a_client_is_gone_after_the_end_of_its_session(serve: Serve) -> None:
    clients: list[Client] = []
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Client, packet: Packet) -> None:
        clients.append(client)
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert not clients[0].gone
    await running.settle()
    assert clients[0].gone
    with trio.fail_after(5):
        await clients[0].gone
        await clients[0].gone.wait()


async def test_an_idle_server_does_not_wake_up(serve: Serve) -> None:
    running = await serve()
    state = running.server._state
    assert state is not None
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        with trio.fail_after(5):
            while not state.disconnects.asleep:  # noqa: ASYNC110  # the watch has no event for this
                await trio.sleep(0.01)


def test_find_broken_skips_closed_sockets_and_finds_the_others() -> None:
    class Connected:
        def __init__(self, sock: socket.socket, *, broken: bool = False) -> None:
            self.sock = sock
            self.broken = broken

        def fileno(self) -> int:
            return self.sock.fileno()

    ours, theirs = socket.socketpair()
    closed, other = socket.socketpair()
    with ours, theirs, closed, other:
        closed.close()
        connections = [Connected(ours), Connected(closed)]
        assert find_broken(connections) == []
        theirs.close()
        assert find_broken(connections) == connections[:1]
        failed = Connected(closed, broken=True)
        assert find_broken([*connections, failed]) == [failed, connections[0]]
        assert find_broken([failed]) == [failed]


def test_a_detached_client_is_not_gone() -> None:
    assert not Detached().client.gone
