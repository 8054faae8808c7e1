"""TLS records without data, from a client that sends them without end: they cost others nothing, and are bounded."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import json_packet
from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.constants import KeyUpdateMessageType

from asyncapy_core.errors import ConnectionLost
from asyncapy_core.net import tls
from asyncapy_core.net.tls import MAX_WITHOUT_DATA, TlsTransport, server_context
from asyncapy_core.net.transport import SocketTransport, Woken

KEY_UPDATE = 5 + 5 + 1 + 16
"""The bytes of a KeyUpdate record of TLS 1.3: header, message, content type and tag."""


def connect(port: int) -> TLSConnection:
    connection = TLSConnection(socket.create_connection(("127.0.0.1", port), timeout=10))
    settings = HandshakeSettings()
    settings.minVersion = (3, 4)
    connection.handshakeClientCert(settings=settings)
    return connection


def update_keys(connection: TLSConnection, times: int) -> None:
    for _ in range(times):
        for _ in connection.send_keyupdate_request(KeyUpdateMessageType.update_requested):
            pass


def read_packet(connection: TLSConnection) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        data += bytes(connection.recv(65536))
    return data


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(function, *args)


async def test_key_updates_before_a_packet_are_answered_and_the_packet_too(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(tls_cert=certificates.server)

    def talk() -> bytes:
        connection = connect(running.port)
        for _ in range(3):
            update_keys(connection, 20)
            connection.send(json_packet(a=1))
            answer = read_packet(connection)
        connection.close()
        return answer

    assert await in_thread(talk) == json_packet(a=1).replace(b" ", b"").replace(b"\x0a", b"\x09", 1)
    await running.settle()


async def test_key_updates_without_end_end_the_session_and_delay_nobody(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(tls_cert=certificates.server)

    def flood() -> int:
        connection = connect(running.port)
        sent = 0
        try:
            while sent < 4 * MAX_WITHOUT_DATA:
                update_keys(connection, 10)
                sent += 10 * KEY_UPDATE
        except OSError:
            pass
        return sent

    sent = await in_thread(flood)
    assert MAX_WITHOUT_DATA <= sent < 4 * MAX_WITHOUT_DATA
    await running.settle()
    assert running.logged("bytes of TLS records without data; at most 64 KiB are read")


async def test_one_read_is_done_in_a_turn(certificates: Certificates) -> None:
    ours, theirs = tcp_pair()
    reads = 0

    class CountingTransport(SocketTransport):
        def receive_now(self, size: int) -> bytes | None:
            nonlocal reads
            reads += 1
            return super().receive_now(size)

    with ours, theirs:
        transport, connection = await shake_hands(CountingTransport(ours), theirs, certificates)
        await in_thread(update_keys, connection, 1000)  # more than one read takes
        reads = 0
        assert transport.receive_now(1024) is None
        assert reads == 1
        with pytest.raises(Woken):
            await transport.receive(1024)
        assert reads == 2


async def test_answers_that_the_peer_does_not_read_are_bounded(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "MAX_UNSENT", 4096)

    class FullTransport(SocketTransport):
        """A connection that accepts no more data once the peer stops reading."""

        full = False

        def send_now(self, data: bytes | memoryview) -> int:
            return 0 if self.full else super().send_now(data)

    ours, theirs = tcp_pair()
    with ours, theirs:
        plain = FullTransport(ours)
        transport, connection = await shake_hands(plain, theirs, certificates)
        plain.full = True

        def send_both() -> None:
            update_keys(connection, 20)
            connection.send(b"x")

        received = b""

        async def talk() -> None:
            nonlocal received
            for _ in range(100):
                await in_thread(send_both)
                while data := transport.receive_now(1024):
                    received += data

        with pytest.raises(ConnectionLost, match="does not read the answers"):
            await talk()
        assert len(received) >= 4


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours, theirs


async def shake_hands(
    plain: SocketTransport, theirs: socket.socket, certificates: Certificates
) -> tuple[TlsTransport, TLSConnection]:
    plain._socket.setblocking(False)
    transport = TlsTransport(plain, server_context(certificates.server, None, None))
    connection = TLSConnection(theirs)
    settings = HandshakeSettings()
    settings.minVersion = (3, 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        await in_thread(lambda: connection.handshakeClientCert(settings=settings))
    return transport, connection


def test_renegotiation_is_off(certificates: Certificates) -> None:
    assert server_context(certificates.server, None, None).options & ssl.OP_NO_RENEGOTIATION
