"""The admission of accepted sockets: a session, or a disconnect."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
import trio
from conftest import Certificates, Start
from peer import Peer, json_packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy_core.server.handshakes import MAX_PER_NETWORK


def sleeper(**settings: Any) -> Server:
    """A server whose handler replies after the number of seconds in the packet."""
    server = Server(timeout=1000, drain_timeout=100, **settings)

    @server.add_handler()
    async def sleep(client: Any, packet: Any) -> None:
        await trio.sleep(packet["seconds"])
        await client.send(packet)

    return server


@pytest.mark.parametrize("tls", [False, True])
async def test_a_server_that_drains_gives_no_new_session(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates, tls: bool
) -> None:
    server = sleeper(tls_cert=certificates.server if tls else None)
    running = await asyncapy_server(server)

    async def connect() -> Peer:
        stream = await running.connect()
        if not tls:
            return Peer(stream)
        return Peer(trio.SSLStream(stream, certificates.client_context(), server_hostname="127.0.0.1"))

    first = await connect()
    await first.send(json_packet(seconds=5))
    await trio.sleep(1)
    server.stop()
    await trio.sleep(1)
    late = await connect()
    with contextlib.suppress(trio.BrokenResourceError):
        await late.send(json_packet(seconds=0))
        assert await late.closed()
    assert await first.json() == {"seconds": 5}
    assert len([line for line in running.log if "New session" in line]) == 1


async def test_beyond_the_limit_of_pending_peers_the_oldest_of_the_address_is_disconnected(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates
) -> None:
    server = sleeper(tls_cert=certificates.server)
    await asyncapy_server(server)
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(MAX_PER_NETWORK + 1)]
        for peer, accepted in pairs:
            stack.enter_context(peer)
            server.admit(accepted, "192.0.2.1")
        await trio.testing.wait_all_tasks_blocked()
        assert [accepted.fileno() < 0 for _, accepted in pairs] == [True] + [False] * MAX_PER_NETWORK
        assert pairs[0][0].recv(1) == b""
