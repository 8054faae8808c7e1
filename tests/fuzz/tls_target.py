"""The target ``tls``: bytes instead of a TLS handshake, during it and after it, for a server that other clients use."""

from __future__ import annotations

import atexit
import functools
import ssl
import tempfile
from pathlib import Path
from typing import Any

import trio
import trio.testing
import trustme
from peer import Peer, json_packet

from asyncapy_core import Server
from asyncapy_core.testing import ServerInMemory, serving

MOST_OUTPUT = 256 * 1024
"""The most bytes that a peer gets, however it behaves; `json_packet(big=...)` is not among its packets."""
HOUR = 3600.0
"""Seconds of the clock of the test, which jumps, within which the server has to close the connection."""


@functools.cache
def _certificates() -> tuple[Path, ssl.SSLContext]:
    """Return a file with the certificate and the key of the server, and the context of its clients."""
    folder = tempfile.TemporaryDirectory(prefix="asyncapy-fuzz-")
    atexit.register(folder.cleanup)
    authority = trustme.CA()
    path = Path(folder.name, "server.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return path, context


def tls(data: bytes) -> None:
    """The server closes the connection of the peer, sends it few bytes, logs no failure, and serves another client."""
    if len(data) >= 2:
        trio.run(_attack, data[0] % 4, data[1], data[2:], clock=trio.testing.MockClock(autojump_threshold=0))


async def _attack(how: int, cut: int, data: bytes) -> None:
    path, context = _certificates()
    server = Server(tls_cert=path, timeout=5, handshake_timeout=5, logging_level=20)
    server.log.handlers.clear()

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    async with serving(server) as running:
        await trio.testing.wait_all_tasks_blocked()  # the start has its own tasks
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with await running.connect() as stream:
            received = await _talk(stream, context, how, cut, data)
        assert received <= MOST_OUTPUT
        await _ask(running, context)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    faults = [line for line in running.log if not line.startswith(("[INFO]", "[WARNING]"))]
    assert not faults, faults


async def _ask(running: ServerInMemory, context: ssl.SSLContext) -> None:
    """Be served, as a client that has nothing to do with the peer."""
    stream = trio.SSLStream(await running.connect(), context, server_hostname="localhost")
    with trio.fail_after(HOUR):
        async with Peer(stream) as peer:
            assert await peer.ask(a=1) == {"a": 1}


async def _talk(stream: trio.SocketStream, context: ssl.SSLContext, how: int, cut: int, data: bytes) -> int:
    """Send the bytes in two pieces, then the end of the stream, and return the number of bytes received."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    received = 0
    with trio.fail_after(HOUR):
        try:
            if how == 1:  # behind a ClientHello
                _step(client)
                data = outgoing.read() + data
            elif how:
                while not _step(client):
                    await stream.send_all(outgoing.read())
                    part = await stream.receive_some()
                    received += len(part)
                    incoming.write(part)
                if how == 2:  # behind the handshake, as plain data of the protocol
                    data = json_packet(a=1) * (cut % 3) + data
                    client.write(data) if data else None
                    data = b""
                data = outgoing.read() + data
            place = cut % (len(data) + 1)
            for piece in (data[:place], data[place:]):
                if piece:
                    await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
            if cut & 0x80:
                await stream.send_eof()
            while part := await stream.receive_some(65536):
                received += len(part)
        except (trio.BrokenResourceError, ConnectionError):
            pass  # the server has closed the connection
    return received


def _step(client: ssl.SSLObject) -> bool:
    """Do a step of the handshake, and return whether it is complete."""
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
