"""Connections that are under way when the server stops: a client of version 23 learns that nothing was handled."""

from __future__ import annotations

import contextlib
import functools
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Certificates, Running, Serve, Start
from numbered_peer import Answer, NumberedPeer, numbered
from peer import Peer, json_packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy_core.server.state import DRAIN_GREETING_SECONDS

PROXY = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 443\r\n"
REQUEST = numbered("REQUEST", 1, {"a": 1})
NOTHING_HANDLED = [Answer("LEAVING", 0, None)]


def recording(handled: list[Any], **settings: Any) -> Server:
    server = Server(port=0, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        handled.append(packet.fields)
        return packet

    return server


async def queued(running: Running, data: bytes) -> trio.SocketStream:
    """Connect and send data, without a turn of the event loop: the connection waits in the queue of the port."""
    sock = socket.create_connection(("127.0.0.1", running.port))
    sock.sendall(data)
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def test_a_connection_that_was_not_accepted_at_the_stop(serve: Serve) -> None:
    handled: list[Any] = []
    running = await serve(recording(handled))
    streams = [await queued(running, REQUEST) for _ in range(200)]
    running.server.stop()
    for stream in streams:
        async with NumberedPeer(stream) as peer:
            assert await peer.read_all() == NOTHING_HANDLED
    assert handled == []
    assert running.logged("Client handler") == [], "they are no sessions"


async def test_a_connection_that_has_sent_nothing_at_the_stop(serve: Serve) -> None:
    handled: list[Any] = []
    running = await serve(recording(handled))
    async with await NumberedPeer.connect(running.port) as peer:
        await running.settle(1)
        running.server.stop()
        await trio.testing.wait_all_tasks_blocked()
        for byte in REQUEST:
            await peer.send(bytes((byte,)))
        assert await peer.read_all() == NOTHING_HANDLED
    assert handled == []


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("proxied", [False, True])
async def test_a_connection_whose_handshake_is_not_done_at_the_stop(
    serve: Serve, certificates: Certificates, tls: bool, proxied: bool
) -> None:
    handled: list[Any] = []
    settings: dict[str, Any] = {"tls_cert": certificates.server} if tls else {}
    running = await serve(recording(handled, proxy_protocol_from="127.0.0.1" if proxied else [], **settings))
    stream: Any = await queued(running, PROXY[:9] if proxied else b"")
    await trio.testing.wait_all_tasks_blocked(0.01)
    running.server.stop()
    await trio.testing.wait_all_tasks_blocked(0.01)
    if proxied:
        await stream.send_all(PROXY[9:])
    if tls:
        stream = trio.SSLStream(stream, certificates.client_context(), server_hostname="127.0.0.1")
    async with NumberedPeer(stream) as peer:
        await peer.send(REQUEST)
        assert await peer.read_all() == NOTHING_HANDLED
    assert handled == []


async def test_a_packet_of_version_22_is_not_handled_or_answered(serve: Serve) -> None:
    handled: list[Any] = []
    running = await serve(recording(handled))
    async with Peer(await queued(running, json_packet(a=1))) as peer:
        running.server.stop()
        assert await peer.closed()
    assert handled == []


async def test_a_connection_that_stays_silent_is_closed_after_half_a_second(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = recording([])
    running = await asyncapy_server(server)
    busy, silent, half = [await running.connect() for _ in range(3)]
    await half.send_all(REQUEST[:4])
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    server.stop()
    late = await running.connect()
    for stream in (silent, late):
        assert await stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(DRAIN_GREETING_SECONDS)
    await busy.aclose()


@pytest.mark.parametrize("header", [b"", PROXY[:9], PROXY])
async def test_a_short_drain_does_not_wait_for_it_in_vain(
    asyncapy_server: Start, autojump_clock: MockClock, header: bytes
) -> None:
    server = recording([], drain_timeout=0.1, proxy_protocol_from="127.0.0.1" if header else [])
    running = await asyncapy_server(server)
    silent = await running.connect()
    await silent.send_all(header)
    await trio.testing.wait_all_tasks_blocked()
    server.stop()
    with contextlib.suppress(trio.BrokenResourceError):  # the header is incomplete
        assert await silent.receive_some() == b""
    assert trio.current_time() < 0.1
    await running.ended()
    assert not [line for line in running.log if line.startswith("[WARNING]")]


async def test_the_port_is_closed_when_stop_returns(serve: Serve) -> None:
    running = await serve()
    async with await NumberedPeer.connect(running.port) as peer:
        assert await peer.ask(a=1) == [Answer("REPLY", 1, {"a": 1})]
        running.server.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port))
        assert await peer.read_all() == [Answer("LEAVING", 1, None)]


async def test_the_file_of_a_unix_socket_is_removed_when_stop_returns(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    handled: list[Any] = []
    running = await serve(recording(handled, addr=["127.0.0.1", f"unix:{path}"]))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.sendall(REQUEST)
    sock.setblocking(False)
    running.server.stop()
    assert not path.exists()
    async with NumberedPeer(trio.SocketStream(trio.socket.from_stdlib_socket(sock))) as peer:
        assert await peer.read_all() == NOTHING_HANDLED


async def test_a_second_stop_leaves_the_file_of_a_newer_server(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    running = await serve(addr=["127.0.0.1", f"unix:{path}"])
    async with await NumberedPeer.connect(running.port) as peer:
        assert await peer.ask(a=1) == [Answer("REPLY", 1, {"a": 1})]
        running.server.stop()
        with socket.socket(socket.AF_UNIX) as newer:
            newer.bind(str(path))
            running.server.stop()
            assert path.exists()
        assert await peer.read_all() == [Answer("LEAVING", 1, None)]


async def test_queued_connections_of_a_listener_that_was_handed_in_are_left_to_others() -> None:
    handled: list[Any] = []
    server = recording(handled)
    with socket.create_server(("127.0.0.1", 0)) as others:
        await stop_with_a_queued_connection(server, listeners=[others.dup()])
        others.settimeout(10)
        with others.accept()[0] as accepted:
            assert accepted.recv(100) == REQUEST
    assert handled == []


@pytest.mark.parametrize("attempt", range(20))
async def test_a_stop_in_the_turn_in_which_a_connection_arrives_ends_the_server(attempt: int) -> None:
    await stop_with_a_queued_connection(recording([]), turns=1)


async def stop_with_a_queued_connection(server: Server, *, turns: int = 0, **serving: Any) -> None:
    """Serve until a client has connected and sent a request, and this number of turns has passed."""
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(functools.partial(server.serve, **serving))
        with socket.create_connection(address) as client:
            client.sendall(REQUEST)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            server.stop()
