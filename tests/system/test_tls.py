"""TLS over real sockets: handshakes, client certificates, the data of sessions, and reloaded certificates."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from conftest import Certificates, Serve, Start
from peer import JSON, Peer, json_packet, packet
from program import ECHO, running
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.client import Client
from asyncapy.errors import ConfigError
from asyncapy_core.net.tls import TlsTransport, server_context
from asyncapy_core.net.transport import SocketTransport, Woken
from asyncapy_core.server.state import MIN_HANDSHAKES

ECHO_TLS = """
server = Server(port=0, tls_cert={cert!r})

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
"""


async def test_the_documented_client_talks_to_it(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)

    def talk() -> list[dict[str, Any]]:
        with Client(tls=True, ca_file=certificates.ca_file) as client:
            client.connect("localhost", running.port)
            client.send({"test": 1})
            first = client.receive()
            client.send({"text": "x" * 900_000})
            return [first, client.receive()]

    assert await trio.to_thread.run_sync(talk) == [{"test": 1}, {"text": "x" * 900_000}]


async def test_packets_may_come_in_any_pieces_and_pipelined(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        await peer.send_bytewise(json_packet(a=1))
        assert await peer.json() == {"a": 1}
        await peer.send(b"".join(json_packet(n=number) for number in range(1000)))
        assert [await peer.json() for _ in range(1000)] == [{"n": number} for number in range(1000)]


async def test_a_packet_of_exactly_max_packet_is_answered(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    body = b'{"a":"' + b"x" * (1024 * 1024 - 2 - 8) + b'"}'
    async with (
        await Peer.connect_tls(running.port, certificates.client_context()) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(peer.send, packet(JSON, body))
        assert await peer.reply() == (JSON, body)


async def test_an_error_is_told_and_then_the_session_is_closed(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        await peer.send(packet(JSON, b"[]]"))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
        assert await peer.closed()
    await running.settle()


async def test_a_refusal_is_told_in_tls(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server, session_limit=1)
    context = certificates.client_context()
    async with await Peer.connect_tls(running.port, context) as first:
        assert await first.ask(a=1) == {"a": 1}
        async with await Peer.connect_tls(running.port, context) as second:
            assert await second.failure() == "ERR_SESSION_LIMIT_REACHED"
            assert await second.closed()


async def test_a_peer_that_says_goodbye_is_gone(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    peer = await Peer.connect_tls(running.port, certificates.client_context())
    await peer.send(json_packet(a=1))
    assert await peer.json() == {"a": 1}
    await peer.stream.aclose()
    await running.settle()


async def test_a_peer_that_leaves_without_a_goodbye_is_gone(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    peer = await Peer.connect_tls(running.port, certificates.client_context())
    assert await peer.ask(a=1) == {"a": 1}
    await peer.stream.transport_stream.aclose()
    await running.settle()


async def test_a_reply_larger_than_all_buffers_arrives_whole_at_a_slow_reader(
    serve: Serve, certificates: Certificates
) -> None:
    server = Server(port=0, tls_cert=certificates.server)
    big = "y" * (6 * 1024 * 1024)

    @server.add_handler()
    async def reply(client: Any, packet: Any) -> None:
        await client.send({"big": big})
        await client.send({"end": True})

    running = await serve(server)
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        await peer.send(json_packet(a=1))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await peer.json() == {"big": big}
        assert await peer.json() == {"end": True}


async def test_a_reader_that_never_reads_is_closed_after_send_timeout(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server, send_timeout=0.2)
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):  # noqa: PT012  # the loop ends with the exception
            while True:
                await peer.send(json_packet(text="z" * 500_000))
        await running.settle()


@pytest.mark.parametrize(
    "data", [json_packet(a=1), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 100]
)
async def test_what_is_no_tls_gets_no_plain_reply(serve: Serve, certificates: Certificates, data: bytes) -> None:
    running = await serve(tls_cert=certificates.server)
    async with await running.connect() as peer:
        await peer.send(data)
        reply = await peer.read(1000)
        assert reply == b"" or reply[:1] == b"\x15", "the reply is neither empty nor a TLS alert"
    await running.settle()
    assert running.logged("No session for 127.0.0.1: the TLS handshake failed")


async def test_a_handshake_that_is_not_finished_in_time_is_ended(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server, handshake_timeout=0.2)
    async with await running.connect() as silent, await running.connect() as slow:
        await slow.send(b"\x16\x03\x01")
        with trio.fail_after(5):
            assert await silent.closed()
            assert await slow.closed()
    await running.settle()


async def test_tls_1_1_is_refused_and_tls_1_2_is_not(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await Peer.connect_tls(running.port, context) as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert peer.stream.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(trio.BrokenResourceError):
        await Peer.connect_tls(running.port, context)


async def test_a_client_has_to_show_a_certificate_of_the_client_ca(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    server = Server(port=0, tls_cert=certificates.server, tls_client_ca=certificates.ca_file)

    @server.add_handler()
    async def identify(client: Any, packet: Any) -> None:
        await client.send({"peer": client.tls_peer})

    running = await serve(server)
    alice = certificates.issue("alice.pem", common_name="alice", organization_name="Wonderland")
    async with await Peer.connect_tls(running.port, certificates.client_context(alice)) as peer:
        reply = await peer.ask(a=1)
        assert reply is not None
        assert reply["peer"]["commonName"] == "alice"
        assert reply["peer"]["organizationName"] == "Wonderland"
    other = tmp_path / "mallory.pem"
    trustme.CA().issue_cert("127.0.0.1", common_name="alice").private_key_and_cert_chain_pem.write_to_path(str(other))
    for context in (certificates.client_context(), certificates.client_context(other)):
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):  # noqa: PT012  # TLS 1.3 reports it on read
            async with await Peer.connect_tls(running.port, context) as peer:
                await peer.send(json_packet(a=1))
                await peer.read(1)
    await running.settle()


async def test_without_a_client_ca_nobody_is_asked_who_they_are(serve: Serve, certificates: Certificates) -> None:
    server = Server(port=0, tls_cert=certificates.server)

    @server.add_handler()
    async def identify(client: Any, packet: Any) -> None:
        await client.send({"peer": client.tls_peer})

    running = await serve(server)
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        assert await peer.ask(a=1) == {"peer": None}


def fingerprint(port: int, context: ssl.SSLContext) -> bytes:
    """Connect, and return the certificate of the server."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
    ):
        shown = sock.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def test_sighup_reads_the_certificate_anew_and_drops_no_session(tmp_path: Path, certificates: Certificates) -> None:
    shown = tmp_path / "shown.pem"
    shown.write_bytes(certificates.server.read_bytes())
    context = certificates.client_context()
    with running(tmp_path, ECHO_TLS.format(cert=str(shown))) as program:
        port = program.port
        with Client(ssl_context=context) as client:
            client.connect("127.0.0.1", port)
            client.send({"a": 1})
            assert client.receive() == {"a": 1}
            before = fingerprint(port, context)
            shown.write_bytes(certificates.issue("second.pem").read_bytes())
            program.process.send_signal(signal.SIGHUP)
            program.wait_for("The certificates were read again")
            after = fingerprint(port, context)
            assert after != before
            shown.write_text("no certificate at all")
            program.process.send_signal(signal.SIGHUP)
            line = program.wait_for("The certificates stay as they were: (.*)")
            assert "tls_cert has to begin with the server's certificate" in line[1]
            assert fingerprint(port, context) == after
            client.send({"a": 2})
            assert client.receive() == {"a": 2}
        assert program.end(signal.SIGTERM) == 0


def test_sighup_ends_no_server_without_tls(tmp_path: Path) -> None:
    with running(tmp_path, ECHO + "server.start()") as program, program.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        program.process.send_signal(signal.SIGHUP)
        program.wait_for("no certificates to read again")
        assert caller.ask(a=2) == {"a": 2}
        assert program.end(signal.SIGTERM) == 0


def encrypted_key(folder: Path) -> Path:
    from cryptography.hazmat.primitives import serialization

    pem = trustme.CA().issue_cert("localhost")
    key = serialization.load_pem_private_key(pem.private_key_pem.bytes(), None)
    path = folder / "encrypted.pem"
    path.write_bytes(
        pem.cert_chain_pems[0].bytes()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return path


async def test_a_file_that_cannot_be_used_keeps_the_server_from_starting(
    tmp_path: Path, certificates: Certificates
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    faults: list[tuple[dict[str, Any], str]] = [
        (
            {"tls_cert": tmp_path / "none.pem"},
            r"tls_cert is '.*none.pem': No such file or directory; give a file in PEM",
        ),
        ({"tls_cert": empty}, r"no certificate and key in '.*empty.pem'"),
        ({"tls_cert": certificates.server, "tls_key": other}, r"no certificate and key in .*: KEY_VALUES_MISMATCH"),
        ({"tls_cert": encrypted_key(tmp_path)}, r"tls_key is encrypted, which is not supported"),
        ({"tls_cert": certificates.server, "tls_client_ca": empty}, r"tls_client_ca is '.*empty.pem'"),
        ({"tls_cert": certificates.server, "tls_client_ca": tmp_path}, r"tls_client_ca is .*: Is a directory"),
    ]
    for settings, message in faults:
        with pytest.raises(ConfigError, match=message):
            await Server(port=0, **settings).serve()


@pytest.mark.parametrize("name", ["tls_key", "tls_client_ca"])
def test_a_key_without_a_certificate_is_a_mistake(name: str) -> None:
    setting: dict[str, Any] = {name: "a.pem"}
    with pytest.raises(ConfigError, match=f"{name} is 'a.pem'.*has no effect without tls_cert"):
        Server(**setting)


@pytest.mark.parametrize("size", [1, 3_000_000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_peer_that_half_closes_without_a_goodbye_gets_its_reply_and_a_clean_end(
    serve: Serve, certificates: Certificates, size: int, version: ssl.TLSVersion
) -> None:
    server = Server(port=0, tls_cert=certificates.server)

    @server.add_handler()
    async def reply(client: Any, packet: Any) -> None:
        await client.send({"text": "x" * size})

    running = await serve(server)
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    peer = await Peer.connect_tls(running.port, context)
    await peer.send(json_packet(a=1))
    await peer.stream.transport_stream.send_eof()
    assert await peer.json() == {"text": "x" * size}
    assert await peer.closed()
    await trio.aclose_forcefully(peer.stream)
    await running.settle()


async def test_what_comes_behind_the_goodbye_is_read_up_to_a_limit_and_then_cut(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(tls_cert=certificates.server)
    peer = await Peer.connect_tls(running.port, certificates.client_context())
    await peer.send(packet(JSON, b"[]]"))
    assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    sent = 0
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):  # noqa: PT012  # the loop ends with the exception
        while True:
            await peer.stream.transport_stream.send_all(bytes(4096))
            sent += 4096
            await trio.sleep(0.001)
    assert sent < 1_000_000
    await trio.aclose_forcefully(peer.stream)
    await running.settle()


async def test_a_burst_of_peers_that_do_not_finish_their_handshakes_is_bounded(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(tls_cert=certificates.server, max_connections=2)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            await stack.enter_async_context(await Peer.connect_from(f"127.0.1.{number}", running.port))
            assert running.server.statistics().handshakes <= MIN_HANDSHAKES
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert running.server.statistics().handshakes == MIN_HANDSHAKES
    await running.settle()


async def test_peers_that_do_not_finish_their_handshakes_take_nobody_s_place(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(tls_cert=certificates.server, max_connections=2)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(await running.connect())
        for host in ("127.0.0.2", "127.0.0.3"):
            plain = await Peer.connect_from(host, running.port)
            stream = trio.SSLStream(plain.stream, certificates.client_context(), server_hostname="127.0.0.1")
            peer = await stack.enter_async_context(Peer(stream))
            assert await peer.ask(a=1) == {"a": 1}
    await running.settle()


async def test_the_deadline_of_the_handshake_ends_with_it(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates
) -> None:
    server = Server(tls_cert=certificates.server, handshake_timeout=5, timeout=1000)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await asyncapy_server(server)
    stream = trio.SSLStream(await running.connect(), certificates.client_context(), server_hostname="127.0.0.1")
    peer = Peer(stream)
    for number in range(3):
        assert await peer.ask(number=number) == {"number": number}
        await trio.sleep(100)


@pytest.fixture
async def line(certificates: Certificates) -> AsyncIterator[tuple[TlsTransport, trio.SSLStream[trio.SocketStream]]]:
    """A transport and the TLS stream of its peer, after the handshake."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = TlsTransport(SocketTransport(ours), server_context(certificates.server, None, None))
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)),
        certificates.client_context(),
        server_hostname="localhost",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.handshake)
        await stream.do_handshake()
    yield transport, stream
    transport.abort()
    await trio.aclose_forcefully(stream)


async def test_bytes_that_are_no_data_yet_let_the_reader_look_whether_it_was_woken(line: Any) -> None:
    transport, stream = line
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Woken):
                await transport.receive(100)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await stream.transport_stream.send_all(b"\x17\x03\x03")


async def test_a_wake_ends_a_wait(line: Any) -> None:
    transport, _ = line
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Woken):
                await transport.receive(100)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.wake()


async def test_what_was_not_taken_counts_as_not_sent_until_it_is_offered_again(line: Any) -> None:
    transport, stream = line
    data = bytes(range(256)) * 1024
    sent = 0
    while taken := transport.send_now(data):
        sent += taken
    got = bytearray()

    async def read() -> None:
        while len(got) < sent + len(data):
            got.extend(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await transport.send(data)
    assert bytes(got[sent:]) == data, "the bytes that were offered again arrive once"
