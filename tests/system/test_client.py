"""The documented client, against servers written to docs/protocol.md; and an old client, against this server."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
import trustme
from conftest import Serve
from peer import JSON, ZIPROTO, framed, json_packet, packet, zi_map, zi_packet
from program import ECHO, running

from asyncapy import Server
from asyncapy.client import Client
from asyncapy.errors import (
    EncodeError,
    InvalidReply,
    NotConnected,
    RemoteError,
    ReplyTimeout,
    ServerDisconnected,
    UnknownCodec,
)

Talk = Callable[[socket.socket], None]
JSON_REPLY = packet(JSON, b'{"foo": "bar"}')


class Scripted:
    """A server that accepts one connection, and runs a function for it."""

    def __init__(self, talk: Talk, context: ssl.SSLContext | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(talk, context))
        self.thread.start()

    def _run(self, talk: Talk, context: ssl.SSLContext | None) -> None:
        try:
            connected, _ = self.listener.accept()
            with connected:
                connected.settimeout(10)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if context is None:
                    talk(connected)
                else:
                    with context.wrap_socket(connected, server_side=True) as secured:
                        talk(secured)
        except (ConnectionError, ssl.SSLError):
            return  # some tests disconnect
        except BaseException as error:
            self.failure = error


@contextlib.contextmanager
def scripted(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    server = Scripted(talk, context)
    try:
        yield server
    finally:
        server.thread.join(15)
        server.listener.close()
    assert not server.thread.is_alive()
    assert server.failure is None, server.failure


def read(connected: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connected.recv(count - len(data))
        if not more:
            break
        data += more
    return data


def sending(*pieces: bytes, pause: float = 0.0) -> Talk:
    """Return a function that reads a packet, sends these pieces, and waits until the client disconnects."""

    def talk(connected: socket.socket) -> None:
        read(connected, int.from_bytes(read(connected, 4), "big"))
        for piece in pieces:
            connected.sendall(piece)
            if pause:
                time.sleep(pause)
        while connected.recv(4096):
            pass

    return talk


def leaving_after(*pieces: bytes) -> Talk:
    """Return a function that reads a packet, sends these pieces, and disconnects."""

    def talk(connected: socket.socket) -> None:
        read(connected, int.from_bytes(read(connected, 4), "big"))
        for piece in pieces:
            connected.sendall(piece)

    return talk


@contextlib.contextmanager
def waiting_client(talk: Talk, **settings: Any) -> Iterator[Client]:
    """Yield a client that has sent a packet to a scripted server."""
    with scripted(talk) as server, Client(**{"tls": False, "timeout": 10, **settings}) as client:
        client.connect("127.0.0.1", server.port)
        client.send({"foo": "bar"})
        yield client


# Sending


@pytest.mark.parametrize("payload", [{"foo": "bar"}, '{"foo": "bar"}', b'{"foo": "bar"}'], ids=["dict", "str", "bytes"])
@pytest.mark.parametrize(
    ("encoding", "wanted"), [("json", packet(JSON, b'{"foo":"bar"}')), ("ziproto", zi_packet(foo="bar"))]
)
def test_a_dict_and_json_text_are_sent_in_both_encodings(
    encoding: str, wanted: bytes, payload: dict[str, str] | str | bytes
) -> None:
    got: list[bytes] = []

    def talk(connected: socket.socket) -> None:
        got.append(read(connected, len(wanted)))
        connected.sendall(got[0])
        assert connected.recv(1) == b"", "the client sent more than one packet"

    with scripted(talk) as server, Client(tls=False, encoding=encoding) as client:
        client.connect("127.0.0.1", server.port)
        client.send(payload)
        assert client.receive() == {"foo": "bar"}
    assert got == [wanted]


def test_the_encoding_may_be_chosen_until_it_connects() -> None:
    wanted, got = zi_packet(foo="bar"), []

    def talk(connected: socket.socket) -> None:
        got.append(read(connected, len(wanted)))

    with scripted(talk) as server, Client(tls=False) as client:
        client.encoding = "ziproto"
        client.connect("127.0.0.1", server.port)
        client.send({"foo": "bar"})
    assert got == [wanted]


@pytest.mark.parametrize("byteorder", ["big", "little"])
@pytest.mark.parametrize("header_size", [1, 2, 3, 4, 8])
def test_header_size_and_byteorder_are_those_that_were_asked_for(
    header_size: int, byteorder: Literal["big", "little"]
) -> None:
    wanted = framed(JSON, b'{"foo":"bar"}', header_size=header_size, byteorder=byteorder)

    def talk(connected: socket.socket) -> None:
        assert read(connected, len(wanted)) == wanted
        connected.sendall(framed(JSON, b'{"a": 1}', header_size=header_size, byteorder=byteorder) * 2)
        assert connected.recv(1) == b""

    with scripted(talk) as server, Client(byteorder, header_size, False) as client:
        client.connect("127.0.0.1", server.port)
        client.send({"foo": "bar"})
        assert client.receive() == {"a": 1}
        assert client.receive() == {"a": 1}


@pytest.mark.parametrize("payload", ["[1]", "{", "", "1", {1: 2}, [1], None, {"a": float("nan")}, {"a": object()}, {}])
def test_what_is_no_payload_is_refused_before_anything_is_sent(payload: Any) -> None:
    def talk(connected: socket.socket) -> None:
        data = read(connected, 4 + 2 + 7)
        assert data == packet(JSON, b'{"a":1}')
        connected.sendall(data)

    with scripted(talk) as server, Client(tls=False) as client:
        client.connect("127.0.0.1", server.port)
        with pytest.raises((TypeError, ValueError)):
            client.send(payload)
        client.send({"a": 1})
        assert client.receive() == {"a": 1}


def test_a_payload_that_does_not_fit_the_header_is_refused() -> None:
    def talk(connected: socket.socket) -> None:
        assert connected.recv(1) == b""

    with scripted(talk) as server, Client(tls=False, header_size=1) as client:
        client.connect("127.0.0.1", server.port)
        with pytest.raises(EncodeError, match="header_size"):
            client.send({"a": "x" * 300})


# Receiving


@pytest.mark.parametrize("reply", [JSON_REPLY, zi_packet(foo="bar")], ids=["json", "ziproto"])
@pytest.mark.parametrize("encoding", ["json", "ziproto"])
def test_a_reply_is_decoded_by_its_own_header(encoding: str, reply: bytes) -> None:
    with waiting_client(sending(reply), encoding=encoding) as client:
        assert client.receive() == {"foo": "bar"}


@pytest.mark.parametrize("cut", range(1, len(JSON_REPLY)))
def test_a_reply_may_be_cut_at_every_place(cut: int) -> None:
    with waiting_client(sending(JSON_REPLY[:cut], JSON_REPLY[cut:], pause=0.005)) as client:
        assert client.receive() == {"foo": "bar"}


def test_replies_may_come_byte_by_byte() -> None:
    replies = JSON_REPLY + zi_packet(foo="bar") + JSON_REPLY
    pieces = [replies[index : index + 1] for index in range(len(replies))]
    with waiting_client(sending(*pieces, pause=0.001)) as client:
        for _ in range(3):
            assert client.receive() == {"foo": "bar"}


@pytest.mark.parametrize("size", [3_000_000, 16_000_000])
def test_a_large_reply_arrives_whole(size: int) -> None:
    reply = packet(JSON, b'{"text":"' + b"x" * size + b'"}')
    with waiting_client(sending(reply + JSON_REPLY)) as client:
        assert client.receive() == {"text": "x" * size}
        assert client.receive() == {"foo": "bar"}


def test_a_large_reply_arrives_whole_in_uneven_pieces() -> None:
    reply = packet(JSON, b'{"text":"' + b"x" * 3_000_000 + b'"}')
    sizes = [1, 3, 7, 1000, 65_536, 1_000_000]
    pieces = []
    start = 0
    for size in sizes:
        pieces.append(reply[start : start + size])
        start += size
    with waiting_client(sending(*pieces, reply[start:], pause=0.01)) as client:
        assert client.receive() == {"text": "x" * 3_000_000}


def test_several_replies_in_one_segment_are_received_one_by_one() -> None:
    replies = b"".join(json_packet(number=number) for number in range(100))
    with waiting_client(sending(replies + json_packet(half=1)[:9], json_packet(half=1)[9:], pause=0.05)) as client:
        for number in range(100):
            assert client.receive() == {"number": number}
        assert client.receive() == {"half": 1}


def test_receive_raw_gives_the_packet_as_it_was_on_the_wire() -> None:
    with waiting_client(sending(JSON_REPLY + zi_packet(foo="bar") + JSON_REPLY)) as client:
        assert client.receive_raw() == JSON_REPLY
        assert client.receive_raw() == zi_packet(foo="bar")
        assert client.receive() == {"foo": "bar"}


@pytest.mark.parametrize("pieces", [(), (JSON_REPLY[:3],), (JSON_REPLY[:9],)], ids=["silent", "header", "payload"])
def test_receive_raw_gives_no_bytes_when_the_server_leaves(pieces: tuple[bytes, ...]) -> None:
    with waiting_client(leaving_after(*pieces)) as client:
        assert client.receive_raw() == b""


def test_what_came_before_the_server_left_is_received_first() -> None:
    with waiting_client(leaving_after(JSON_REPLY)) as client:
        assert client.receive() == {"foo": "bar"}
        with pytest.raises(ServerDisconnected):
            client.receive()


# Errors


def test_a_server_that_leaves_before_its_reply_is_an_error_that_says_so() -> None:
    with (
        waiting_client(leaving_after()) as client,
        pytest.raises(ServerDisconnected, match="closed the connection without"),
    ):
        client.receive()


@pytest.mark.parametrize("length", [1, 4, 5, 6, 12])
def test_a_server_that_leaves_in_the_middle_of_a_reply_is_an_error_that_says_so(length: int) -> None:
    with (
        waiting_client(leaving_after(JSON_REPLY[:length])) as client,
        pytest.raises(ServerDisconnected, match="in the middle of a reply"),
    ):
        client.receive()


def test_a_server_that_resets_the_connection_is_the_same_error() -> None:
    def talk(connected: socket.socket) -> None:
        read(connected, 5)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with waiting_client(talk) as client, pytest.raises(ServerDisconnected):
        client.receive()


def test_sending_to_a_server_that_has_left_is_an_error_in_the_end() -> None:
    with waiting_client(leaving_after()) as client:
        with pytest.raises(ServerDisconnected):
            client.receive()

        def go_on() -> None:
            for _ in range(100):
                client.send({"a": 1})
                time.sleep(0.001)

        with pytest.raises(ServerDisconnected, match="left"):
            go_on()


@pytest.mark.parametrize("pieces", [(), (JSON_REPLY[:8],)], ids=["silent", "half"])
def test_no_reply_within_the_timeout_is_an_error_that_says_how_long(pieces: tuple[bytes, ...]) -> None:
    with waiting_client(sending(*pieces), timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(ReplyTimeout, match=r"0\.2 s"):
            client.receive()
        assert time.monotonic() - began >= 0.2


def test_a_reply_that_trickles_in_does_not_extend_the_timeout() -> None:
    pieces = [bytes((byte,)) for byte in packet(JSON, b'{"text":"' + b"x" * 40 + b'"}')]
    with waiting_client(sending(*pieces, pause=0.03), timeout=0.3) as client, pytest.raises(ReplyTimeout):
        client.receive()


def test_a_reply_that_is_late_is_not_taken_for_the_next() -> None:
    with waiting_client(sending(JSON_REPLY[:9], JSON_REPLY[9:], pause=0.4), timeout=0.25) as client:
        with pytest.raises(ReplyTimeout, match="disconnected"):
            client.receive()
        for use in (client.receive, client.receive_raw, lambda: client.send({"a": 2})):
            with pytest.raises(NotConnected, match="not connected"):
                use()


def test_a_reply_that_is_not_waited_for_to_the_end_is_not_taken_for_the_next() -> None:
    with waiting_client(sending(JSON_REPLY[:9], JSON_REPLY[9:], pause=0.4), timeout=5) as client:
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                client.receive()
        finally:
            signal.signal(signal.SIGALRM, previous)
        with pytest.raises(NotConnected):
            client.receive()


def test_a_connected_client_is_refused_in_a_process_that_was_forked(tmp_path: Path) -> None:
    text = """
import os
from asyncapy.client import Client
client = Client(tls=False)
client.connect("127.0.0.1", int(sys.argv[1]))
for _ in range(4):
    if os.fork() == 0:
        try:
            client.send({"a": 1})
        except Exception as error:
            os.write(1, f"{type(error).__name__} {error}\\n".encode())
            client.disconnect()
            client.connect("127.0.0.1", int(sys.argv[1]))
            client.send({"b": 2})
            os.write(1, f"{client.receive()}\\n".encode())
        os._exit(0)
for _ in range(4):
    os.wait()
client.send({"c": 3})
note(client.receive())
"""
    with running(tmp_path, ECHO + "server.start()") as server:
        (tmp_path / "caller").mkdir()
        with running(tmp_path / "caller", text, str(server.port)) as caller:
            assert caller.end() == 0, caller.err
        refused = [line for line in caller.out if line.startswith("NotConnected this client was connected in process")]
        assert len(refused) == 4, (caller.out, caller.err)
        assert caller.out.count("{'b': 2}") == 4
        assert caller.out[-1] == "{'c': 3}"


def test_a_client_that_is_not_connected_says_what_to_do() -> None:
    client = Client(tls=False)
    for use in (client.receive, client.receive_raw, lambda: client.send({"a": 1})):
        with pytest.raises(NotConnected, match="connect"):
            use()
    client.disconnect()


def test_a_client_that_was_disconnected_is_not_connected_and_may_connect_again() -> None:
    client = Client(tls=False)
    for _ in range(2):
        with scripted(sending(JSON_REPLY)) as server:
            client.connect("127.0.0.1", server.port)
            client.send({"a": 1})
            assert client.receive() == {"foo": "bar"}
            client.disconnect()
            client.disconnect()
        with pytest.raises(NotConnected):
            client.receive()


def test_nothing_of_a_connection_is_left_for_the_next_one() -> None:
    client = Client(tls=False)
    with scripted(leaving_after(JSON_REPLY[:9])) as server:
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        with pytest.raises(ServerDisconnected):
            client.receive()
        client.disconnect()
    with scripted(sending(JSON_REPLY)) as server, client:
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        assert client.receive() == {"foo": "bar"}


def test_connecting_twice_is_an_error_that_leaves_the_connection() -> None:
    with waiting_client(sending(JSON_REPLY)) as client:
        with pytest.raises(RemoteError, match="connected already"):
            client.connect("127.0.0.1", 1)
        assert client.receive() == {"foo": "bar"}


def test_a_refused_connection_is_an_error_that_names_the_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        client = Client(tls=False)
        with pytest.raises(NotConnected, match=rf"127\.0\.0\.1:{port}.*refused"):
            client.connect("127.0.0.1", port)
        with pytest.raises(NotConnected, match="connect"):
            client.send({"a": 1})


@pytest.mark.parametrize("hostname", ["no.such.host.invalid", "a" * 64 + ".invalid", "two..dots"])
def test_a_name_that_leads_nowhere_is_an_error_that_names_it(hostname: str) -> None:
    with pytest.raises(RemoteError, match=re.escape(hostname)):
        Client(tls=False).connect(hostname, 1)


def test_the_context_manager_closes_the_connection_after_an_error_too() -> None:
    left = threading.Event()

    def talk(connected: socket.socket) -> None:
        assert connected.recv(1) == b""
        left.set()

    def fail(port: int) -> None:
        client = Client(tls=False)
        with client as same:
            assert same is client
            client.connect("127.0.0.1", port)
            raise ZeroDivisionError

    with scripted(talk) as server:
        with pytest.raises(ZeroDivisionError):
            fail(server.port)
        assert left.wait(5)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4, "no AsyncAProto packet"),
        (packet(JSON, b'{"a":1}', version=21), "version"),
        (packet(7, b'{"a":1}'), "encoding 7"),
        (packet(JSON, b"{}"), "at least 5"),
        (packet(JSON, b"[1,2]"), "json"),
        (packet(ZIPROTO, b'{"a":1}'), "ziproto"),
        (packet(JSON, b"\x81\xa1a\x01"), "json"),
    ],
)
def test_a_reply_that_is_no_packet_is_an_error_that_says_why(reply: bytes, message: str) -> None:
    with waiting_client(sending(reply)) as client, pytest.raises(InvalidReply, match=message):
        client.receive()


def test_a_reply_above_max_packet_is_refused_on_its_length_alone() -> None:
    with (
        waiting_client(sending(b"\x00\x10\x00\x01"), max_packet=0x100000) as client,
        pytest.raises(InvalidReply, match="1048576"),
    ):
        client.receive()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_another_header_size_of_the_server_is_an_error_that_names_the_setting(size: int) -> None:
    reply = framed(JSON, b'{"status":"failure","error":"ERR_REQUEST_MALFORMED"}', header_size=size)

    def talk(connected: socket.socket) -> None:  # replies with an error and closes
        connected.recv(4096)
        connected.sendall(reply)

    with waiting_client(talk) as client, pytest.raises(RemoteError, match="header_size"):
        client.receive()


def test_the_other_byteorder_of_the_server_is_an_error_that_names_the_setting() -> None:
    reply = framed(JSON, b'{"status":"failure","error":"ERR_PACKET_TOO_LARGE"}', byteorder="little")

    def talk(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(reply)

    with waiting_client(talk) as client, pytest.raises(RemoteError, match="byteorder"):
        client.receive()


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(UnknownCodec, match="morse"):
        Client(encoding="morse")
    with pytest.raises(ValueError, match="header_size"):
        Client(header_size=9)
    with pytest.raises(ValueError, match="byteorder"):
        Client(byteorder="middle")  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ValueError, match="timeout"):
        Client(timeout=0)
    with pytest.raises(ValueError, match="tls"):
        Client(tls=False, ca_file="ca.pem")


def test_the_documented_defaults_are_the_defaults() -> None:
    client = Client()
    assert (client.tls, client.encoding, client.timeout) == (True, "json", 60)


# TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names).configure_cert(context)
    return context


def test_a_server_that_the_ca_file_vouches_for_is_trusted(ca: trustme.CA, ca_file: Path) -> None:
    with (
        scripted(sending(JSON_REPLY), server_context(ca, "localhost", "127.0.0.1")) as server,
        Client(ca_file=ca_file) as client,
    ):
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        assert client.receive() == {"foo": "bar"}


def test_a_server_that_the_ssl_context_vouches_for_is_trusted(ca: trustme.CA) -> None:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    large = packet(JSON, b'{"text":"' + b"x" * 3_000_000 + b'"}')
    with (
        scripted(sending(large + JSON_REPLY), server_context(ca, "localhost")) as server,
        Client(ssl_context=context) as client,
    ):
        client.connect("localhost", server.port)
        client.send({"a": 1})
        assert client.receive() == {"text": "x" * 3_000_000}
        assert client.receive_raw() == JSON_REPLY


@pytest.mark.parametrize("trusted", ["the system's", "another"])
def test_a_server_of_an_unknown_ca_is_refused(ca: trustme.CA, tmp_path: Path, trusted: str) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    client = Client() if trusted == "the system's" else Client(ca_file=other)
    with scripted(sending(JSON_REPLY), server_context(ca, "127.0.0.1")) as server:
        with pytest.raises(RemoteError, match=rf"certificate of 127\.0\.0\.1:{server.port} is not trusted"):
            client.connect("127.0.0.1", server.port)
        with pytest.raises(NotConnected):
            client.send({"a": 1})


def test_a_server_of_another_name_is_refused(ca: trustme.CA, ca_file: Path) -> None:
    with (
        scripted(sending(JSON_REPLY), server_context(ca, "example.org")) as server,
        pytest.raises(RemoteError, match=r"not trusted.*127"),
    ):
        Client(ca_file=ca_file).connect("127.0.0.1", server.port)


def test_tls_against_a_plain_port_is_an_error_that_says_so() -> None:
    def talk(connected: socket.socket) -> None:  # the reply of a server without TLS to a ClientHello
        connected.recv(4096)
        connected.sendall(packet(JSON, b'{"status":"failure","error":"ERR_PACKET_TOO_LARGE"}'))

    with scripted(talk) as server, pytest.raises(RemoteError, match="tls=False"):
        Client().connect("127.0.0.1", server.port)


def test_a_handshake_that_is_not_answered_ends_with_the_timeout() -> None:
    def talk(connected: socket.socket) -> None:
        while connected.recv(4096):
            pass

    with scripted(talk) as server, pytest.raises(RemoteError):
        Client(timeout=0.2).connect("127.0.0.1", server.port)


def test_a_tls_server_that_leaves_is_an_error_that_says_so(ca: trustme.CA, ca_file: Path) -> None:
    with (
        scripted(leaving_after(JSON_REPLY[:9]), server_context(ca, "127.0.0.1")) as server,
        Client(ca_file=ca_file) as client,
    ):
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        with pytest.raises(ServerDisconnected, match="in the middle"):
            client.receive()


def test_no_reply_within_the_timeout_is_the_same_error_over_tls(ca: trustme.CA, ca_file: Path) -> None:
    with (
        scripted(sending(), server_context(ca, "127.0.0.1")) as server,
        Client(ca_file=ca_file, timeout=0.3) as client,
    ):
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        with pytest.raises(ReplyTimeout):
            client.receive()


# With this server


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_the_documented_client_talks_to_this_server(serve: Serve, encoding: str) -> None:
    running = await serve()

    def talk() -> list[Any]:
        with Client(tls=False, encoding=encoding) as client:
            client.connect("127.0.0.1", running.port)
            replies = []
            for number in range(10):
                client.send({"number": number, "text": "é" * 1000})
                replies.append(client.receive())
            return replies

    assert await trio.to_thread.run_sync(talk) == [{"number": n, "text": "é" * 1000} for n in range(10)]


async def test_the_client_and_this_server_with_different_byteorders_end_in_a_clear_error(serve: Serve) -> None:
    running = await serve(byteorder="little")

    def talk() -> str:
        with Client(tls=False) as client:
            client.connect("127.0.0.1", running.port)
            client.send({"foo": "bar"})
            with pytest.raises(RemoteError) as caught:
                client.receive()
            return str(caught.value)

    assert "byteorder" in await trio.to_thread.run_sync(talk)


def old_client(port: int, requests: list[bytes]) -> list[tuple[int, Any]]:
    """The essentials of the client of release 0.5: blocking, with a 4-byte big-endian header and plain recv calls."""
    sock = socket.socket()
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    replies = []
    for request in requests:
        sock.sendall(request)
        data = sock.recv(1024)
        length = struct.unpack(">I", data[:4])[0]
        while len(data) < length + 4:
            data += sock.recv(1024)
        assert data[4] == 22
        replies.append((data[5], json.loads(data[6:]) if data[5] == 0 else data[6:]))
    sock.close()
    return replies


async def test_a_client_of_release_0_5_talks_to_this_server(serve: Serve) -> None:
    running = await serve()
    large = b'{"text":"' + b"x" * 100_000 + b'"}'
    requests = [JSON_REPLY, packet(JSON, large), json_packet(test=1)]
    assert await trio.to_thread.run_sync(old_client, running.port, requests) == [
        (JSON, {"foo": "bar"}),
        (JSON, {"text": "x" * 100_000}),
        (JSON, {"test": 1}),
    ]
    assert await trio.to_thread.run_sync(old_client, running.port, [zi_packet(foo="bar")] * 2) == [
        (ZIPROTO, zi_map(foo="bar")),
        (ZIPROTO, zi_map(foo="bar")),
    ]


async def test_a_client_of_release_0_5_understands_the_historical_errors(serve: Serve) -> None:
    server = Server(port=0, timeout=0.3)
    running = await serve(server)
    for request, code in (
        (packet(JSON, b"{}"), "ERR_REQUEST_MALFORMED"),
        (packet(JSON, b'{"a":1}', version=20), "ERR_HEADER_INVALID"),
        (b"\x00\x00", "ERR_TIMED_OUT"),
    ):
        replies = await trio.to_thread.run_sync(old_client, running.port, [request])
        assert replies == [(JSON, {"status": "failure", "error": code})]
