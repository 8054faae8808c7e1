"""The synchronous client on idle connections that the server has closed: it connects again, and repeats only packets
that the server has not read.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import failure, json_packet

from asyncapy import Server
from asyncapy.client import Client
from asyncapy.errors import InvalidReply, NotConnected, RemoteError, ServerDisconnected, SessionTimedOut
from asyncapy_core.client.blocking import IDLE
from asyncapy_core.client.idle import END_WITHIN, LONGEST_DELAY
from asyncapy_core.client.outstanding import Outstanding

TIMED_OUT = failure("ERR_TIMED_OUT")


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Peer:
    """One connection of a server, in a thread."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._buffer = b""

    def read(self) -> dict[str, Any] | None:
        """Read a packet; return None at the end of the stream."""
        while len(self._buffer) < 4 or len(self._buffer) < 4 + struct.unpack(">I", self._buffer[:4])[0]:
            data = self.socket.recv(4096)
            if not data:
                return None
            self._buffer += data
        size = 4 + struct.unpack(">I", self._buffer[:4])[0]
        fields, self._buffer = json.loads(self._buffer[6:size]), self._buffer[size:]
        return dict(fields)

    def send(self, *replies: dict[str, Any]) -> None:
        self.socket.sendall(b"".join(json_packet(**reply) for reply in replies))

    def echo(self, count: int = 1) -> None:
        """Answer packets with themselves."""
        for _ in range(count):
            fields = self.read()
            assert fields is not None
            self.send(fields)

    def reset(self) -> None:
        """Reset the connection when it is closed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Talk = Callable[[Peer], object]


def echo_all(peer: Peer) -> None:
    while (fields := peer.read()) is not None:
        peer.send(fields)


class Serving:
    """A server that runs the next function for each connection, one after the other, and then closes it."""

    def __init__(self, talks: tuple[Talk, ...], context: ssl.SSLContext | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections = 0
        self.failure: BaseException | None = None
        self._talks = talks
        self._context = context
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        for talk in self._talks:
            try:
                connected, _ = self.listener.accept()
            except OSError:  # the end of the test
                return
            self.connections += 1
            connected.settimeout(10)
            try:
                with connected:
                    if self._context is None:
                        talk(Peer(connected))
                    else:
                        with self._context.wrap_socket(connected, server_side=True) as secured:
                            talk(Peer(secured))
            except (ConnectionError, ssl.SSLError):
                continue  # some tests disconnect
            except BaseException as error:
                self.failure = error

    def stop(self) -> None:
        """Accept no more connections."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextlib.contextmanager
def serving(*talks: Talk, context: ssl.SSLContext | None = None) -> Iterator[Serving]:
    server = Serving(talks, context)
    try:
        yield server
    finally:
        server.stop()
        server.thread.join(15)
    assert not server.thread.is_alive()
    assert server.failure is None, server.failure


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def context(request: pytest.FixtureRequest, certificates: Certificates) -> ssl.SSLContext | None:
    """The TLS context of a server, or None."""
    if not request.param:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    return context


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client wait for the end of a connection as long as a busy machine may need."""
    monkeypatch.setattr("asyncapy_core.client.blocking.END_WITHIN", 10)


@pytest.fixture
def connect(certificates: Certificates, clock: Clock) -> Iterator[Callable[..., Client]]:
    """Return ``connect(server, context)``, which returns a client whose idle time is measured with ``clock``."""
    with contextlib.ExitStack() as stack:

        def make(server: Serving, context: ssl.SSLContext | None = None, **settings: Any) -> Client:
            options = {"tls": False} if context is None else {"tls": True, "ca_file": certificates.ca_file}
            client = stack.enter_context(Client(**{"timeout": 10, **options, **settings}))
            client.connect("127.0.0.1", server.port)
            assert client._connection is not None
            client._connection.outstanding = Outstanding(clock)
            return client

        yield make


Connect = Callable[..., Client]


def wait_for_end(client: Client) -> None:
    """Wait until the system has got the end of the connection."""
    assert client._socket is not None
    poll = select.poll()
    poll.register(client._socket, select.POLLRDHUP)
    assert poll.poll(10_000)


def wait_for_reset(client: Client) -> None:
    """Wait until the system has got the reset of the connection."""
    assert client._socket is not None
    poll = select.poll()
    poll.register(client._socket, 0)
    assert poll.poll(10_000)[0][1] & select.POLLHUP


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    client.send(fields)
    return client.receive()


def be_idle(client: Client, clock: Clock) -> None:
    """Ask once, and let a minute pass."""
    assert ask(client, before=1) == {"before": 1}
    clock.now += 60


# This server


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_whose_connections_time_out_gets_all_its_answers(
    serve: Serve, certificates: Certificates, tls: bool, encoding: str
) -> None:
    handled: Counter[int] = Counter()
    server = Server(port=0, timeout=0.5, tls_cert=certificates.server if tls else None)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        handled[packet["number"]] += 1
        return {"number": packet["number"]}

    running = await serve(server)

    def talk() -> None:
        ca_file = certificates.ca_file if tls else None
        with Client(tls=tls, ca_file=ca_file, encoding=encoding, timeout=20) as client:
            client.connect("127.0.0.1", running.port)
            for number in range(2):
                wait_for_end(client)
                assert ask(client, number=number) == {"number": number}

    await trio.to_thread.run_sync(talk)
    assert handled == dict.fromkeys(range(2), 1)
    assert len(running.logged("New session started")) == 3


# Before a packet is sent


def say_that_it_timed_out(peer: Peer) -> None:
    peer.send(TIMED_OUT)


def say_nothing(peer: Peer) -> None:
    """Close the connection without a packet, as a server that stops."""


def reset(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("end", [say_that_it_timed_out, say_nothing, reset])
def test_a_packet_for_an_idle_connection_that_has_ended_is_sent_on_a_new_one(
    connect: Connect, clock: Clock, context: ssl.SSLContext | None, end: Talk
) -> None:
    received = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        received.wait(10)
        end(peer)

    with serving(talk, echo_all, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        received.set()
        wait_for_end(client)
        for number in range(3):
            assert ask(client, number=number) == {"number": number}
        client.disconnect()
    assert server.connections == 2


def test_the_first_packet_too(connect: Connect, clock: Clock) -> None:
    with serving(say_that_it_timed_out, echo_all) as server:
        client = connect(server)
        clock.now += 60
        wait_for_end(client)
        assert ask(client, a=1) == {"a": 1}
        client.disconnect()


def test_a_connection_that_has_hardly_been_idle_is_not_checked(connect: Connect, clock: Clock) -> None:
    """The check would slow down a program that sends one request after the other."""

    def talk(peer: Peer) -> None:
        peer.echo()

    with serving(talk, echo_all) as server:
        client = connect(server)
        assert ask(client, a=1) == {"a": 1}
        wait_for_end(client)
        clock.now += IDLE / 2
        with pytest.raises(ServerDisconnected):
            ask(client, a=2)
        client.disconnect()
        client.connect("127.0.0.1", server.port)
        assert ask(client, a=3) == {"a": 3}
        client.disconnect()


@pytest.mark.parametrize(
    "unread",
    [
        [{"pushed": 1}],
        [{"pushed": 1}, TIMED_OUT],
        [TIMED_OUT, {"pushed": 1}],
        [{**TIMED_OUT, "detail": "x"}],
        [failure("ERR_SERVER_BUSY")],
    ],
    ids=str,
)
def test_packets_that_were_not_read_yet_are_not_lost(
    connect: Connect, clock: Clock, context: ssl.SSLContext | None, unread: list[dict[str, Any]]
) -> None:
    """They come first, on the old connection."""
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        peer.send(*unread)
        if context is None:
            peer.socket.shutdown(socket.SHUT_WR)
            done.wait(10)

    with serving(talk, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        wait_for_end(client)
        client.send({"a": 1})
        assert [client.receive() for _ in unread] == unread
        clock.now += 60
        with pytest.raises(ServerDisconnected):
            ask(client, a=2)
        done.set()
    assert server.connections == 1


def test_a_packet_that_was_not_read_yet_is_received_although_the_next_could_not_be_sent(
    connect: Connect, clock: Clock
) -> None:
    received = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        received.wait(10)
        peer.send({"pushed": 1}, {"pushed": 2})
        peer.reset()

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        received.set()
        wait_for_reset(client)
        client.send({"a": 1})
        assert [client.receive(), client.receive()] == [{"pushed": 1}, {"pushed": 2}]
    assert server.connections == 1


def test_a_part_of_a_packet_is_not_lost(connect: Connect, clock: Clock) -> None:
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        peer.socket.sendall(json_packet(a=1)[:7])
        peer.socket.shutdown(socket.SHUT_WR)
        done.wait(10)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        wait_for_end(client)
        client.send({"a": 1})
        with pytest.raises(ServerDisconnected, match="in the middle of a reply: 7 bytes have arrived"):
            client.receive()
        done.set()
    assert server.connections == 1


def test_bytes_that_are_no_packet_are_told_by_receive(connect: Connect, clock: Clock) -> None:
    received = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        received.wait(10)
        peer.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.read()

    with serving(talk) as server:
        client = connect(server, max_packet=1000)
        be_idle(client, clock)
        received.set()
        assert client._socket is not None
        assert select.select([client._socket], [], [], 10)[0]
        client.send({"a": 1})
        with pytest.raises(InvalidReply):
            client.receive()
        client.disconnect()


def test_a_client_that_has_received_pushed_packets_does_not_connect_by_itself(connect: Connect, clock: Clock) -> None:
    """It cannot know which packet is the reply to which."""
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        peer.send({"pushed": 1})
        peer.echo()
        peer.socket.shutdown(socket.SHUT_WR)
        done.wait(10)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        assert client.receive() == {"pushed": 1}
        be_idle(client, clock)
        wait_for_end(client)
        client.send({"a": 1})
        with pytest.raises(ServerDisconnected):
            client.receive()
        done.set()
    assert server.connections == 1


def test_a_client_that_waits_for_a_reply_does_not_connect_by_itself(connect: Connect, clock: Clock) -> None:
    """The reply would be taken for that to the next packet."""
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo(2)
        peer.read()
        peer.socket.shutdown(socket.SHUT_WR)
        done.wait(10)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        for number in range(2):
            client.send({"number": number})
        wait_for_end(client)
        clock.now += 60
        client.send({"number": 2})
        assert client.receive() == {"number": 0}
        with pytest.raises(ServerDisconnected):
            client.receive()
        done.set()
    assert server.connections == 1


@pytest.mark.parametrize("receive", [lambda client: client.receive(), lambda client: client.receive_raw()])
def test_a_client_that_has_said_that_the_server_has_left_does_not_connect_by_itself(
    connect: Connect, clock: Clock, receive: Callable[[Client], Any]
) -> None:
    with serving(lambda peer: peer.echo(), echo_all) as server:
        client = connect(server)
        be_idle(client, clock)
        with contextlib.suppress(ServerDisconnected):
            assert receive(client) == b""
        with pytest.raises(ServerDisconnected):
            ask(client, a=1)
        assert server.connections == 1
        client.disconnect()
        client.connect("127.0.0.1", server.port)
        assert ask(client, a=2) == {"a": 2}
        client.disconnect()


def test_a_client_that_was_disconnected_does_not_connect_by_itself(connect: Connect, clock: Clock) -> None:
    with serving(lambda peer: peer.echo()) as server:
        client = connect(server)
        be_idle(client, clock)
        client.disconnect()
        with pytest.raises(NotConnected, match=r"call connect\(hostname, port\) first"):
            client.send({"a": 1})


def test_a_new_connection_has_the_tls_and_the_encoding_of_the_old_one(
    connect: Connect, clock: Clock, certificates: Certificates
) -> None:
    """Attributes that are set later are for the next `Client.connect`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    with serving(lambda peer: peer.echo(), echo_all, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        wait_for_end(client)
        client.tls = False
        client.encoding = "ziproto"
        assert ask(client, a=1) == {"a": 1}
        assert isinstance(client._socket, ssl.SSLSocket)
        client.disconnect()


def test_a_new_connection_is_made_only_to_a_server_whose_certificate_is_trusted(
    connect: Connect, clock: Clock, certificates: Certificates
) -> None:
    context, other = (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) for _ in range(2))
    context.load_cert_chain(certificates.server)
    authority = type(certificates.ca)()
    authority.issue_cert("127.0.0.1").configure_cert(other)
    with serving(lambda peer: peer.echo(), echo_all, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        wait_for_end(client)
        server._context = other
        with pytest.raises(RemoteError, match="is not trusted"):
            client.send({"a": 1})
        with pytest.raises(NotConnected, match=r"call connect\(hostname, port\) first"):
            client.send({"a": 1})


def test_a_payload_that_cannot_be_encoded_does_not_connect(connect: Connect, clock: Clock) -> None:
    with serving(lambda peer: peer.echo(), echo_all) as server:
        client = connect(server)
        be_idle(client, clock)
        wait_for_end(client)
        with pytest.raises(ValueError, match="cannot be sent as JSON"):
            client.send({"a": object()})
        assert server.connections == 1
        assert ask(client, a=1) == {"a": 1}
        client.disconnect()


def test_a_server_that_is_gone_is_told_by_send(connect: Connect, clock: Clock) -> None:
    with serving(lambda peer: peer.echo()) as server:
        client = connect(server)
        be_idle(client, clock)
        server.stop()
        wait_for_end(client)
        with pytest.raises(NotConnected, match=r"cannot connect to 127\.0\.0\.1"):
            client.send({"a": 1})
        with pytest.raises(NotConnected, match=r"call connect\(hostname, port\) first"):
            client.send({"a": 1})


# After a packet was sent


def time_out_unread(peer: Peer, count: int = 1) -> None:
    """Answer a request, and close the connection like a server that has not read the following packets."""
    peer.echo()
    for _ in range(count):
        peer.read()
    peer.send(TIMED_OUT)


def test_a_packet_that_crosses_err_timed_out_is_sent_again(
    connect: Connect, clock: Clock, context: ssl.SSLContext | None
) -> None:
    with serving(time_out_unread, echo_all, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        for number in range(3):
            assert ask(client, number=number) == {"number": number}
        client.disconnect()
    assert server.connections == 2


def test_a_client_that_has_repeated_packets_connects_again_as_before(
    connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncapy_core.client.blocking.IDLE", 0)
    with serving(lambda peer: time_out_unread(peer, 2), lambda peer: peer.echo(2), echo_all) as server:
        client = connect(server)
        be_idle(client, clock)
        for number in range(2):
            client.send({"number": number})
        assert [client.receive(), client.receive()] == [{"number": 0}, {"number": 1}]
        wait_for_end(client)
        assert ask(client, number=2) == {"number": 2}
        client.disconnect()
    assert server.connections == 3


def test_receive_raw_sends_it_again_as_well(connect: Connect, clock: Clock) -> None:
    with serving(time_out_unread, echo_all) as server:
        client = connect(server)
        be_idle(client, clock)
        client.send({"a": 1})
        assert client.receive_raw() == json_packet(a=1)
        client.disconnect()


def test_all_packets_behind_it_are_sent_again_in_their_order(connect: Connect, clock: Clock) -> None:
    with serving(lambda peer: time_out_unread(peer, 5), echo_all) as server:
        client = connect(server)
        be_idle(client, clock)
        for number in range(5):
            client.send({"number": number})
        assert [client.receive() for _ in range(5)] == [{"number": number} for number in range(5)]
        client.disconnect()
    assert server.connections == 2


def test_the_second_err_timed_out_is_the_answer(connect: Connect, clock: Clock) -> None:
    def time_out(peer: Peer) -> None:
        peer.read()
        peer.send(TIMED_OUT)

    with serving(time_out_unread, time_out, echo_all) as server:
        client = connect(server, raise_failures=True)
        be_idle(client, clock)
        client.send({"a": 1})
        with pytest.raises(SessionTimedOut):
            client.receive()
        client.disconnect()
    assert server.connections == 2


def test_err_timed_out_of_a_handler_is_the_answer(
    connect: Connect, clock: Clock, context: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays open behind it."""
    monkeypatch.setattr("asyncapy_core.client.blocking.END_WITHIN", END_WITHIN)

    def talk(peer: Peer) -> None:
        time_out_unread(peer)
        echo_all(peer)

    with serving(talk, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        assert ask(client, a=1) == TIMED_OUT
        assert ask(client, a=2) == {"a": 2}
        client.disconnect()
    assert server.connections == 1


def test_a_timeout_shorter_than_the_wait_for_the_end_ends_it_without_an_error(
    connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncapy_core.client.blocking.END_WITHIN", 3600)

    def talk(peer: Peer) -> None:
        time_out_unread(peer)
        echo_all(peer)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        client.send({"a": 1})
        assert client._socket is not None
        assert select.select([client._socket], [], [], 10)[0]
        client.timeout = 0.1
        assert client.receive() == TIMED_OUT
        client.disconnect()


@pytest.mark.parametrize("behind", [json_packet(b=1), json_packet(b=1)[:7]], ids=["a packet", "a part of one"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_err_timed_out_that_more_bytes_follow_is_the_answer(
    connect: Connect, clock: Clock, context: ssl.SSLContext | None, behind: bytes, pieces: int
) -> None:
    """Over TLS, a client reads each piece by itself."""

    def talk(peer: Peer) -> None:
        peer.echo()
        peer.read()
        reply = json_packet(**TIMED_OUT)
        for piece in (reply + behind,) if pieces == 1 else (reply, behind):
            peer.socket.sendall(piece)

    with serving(talk, context=context) as server:
        client = connect(server, context)
        be_idle(client, clock)
        assert ask(client, a=1) == TIMED_OUT
        if len(behind) > 7:
            assert client.receive() == {"b": 1}
        with pytest.raises(ServerDisconnected, match="without" if len(behind) > 7 else "7 bytes have arrived"):
            client.receive()
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [{"ok": 1}, {**TIMED_OUT, "detail": "x"}, {**TIMED_OUT, "status": "x"}, failure("ERR_UNAVAILABLE")],
    ids=str,
)
def test_another_reply_is_the_answer_also_if_the_connection_ends_behind_it(
    connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch, reply: dict[str, str]
) -> None:
    """It is delivered at once."""
    monkeypatch.setattr("asyncapy_core.client.blocking.END_WITHIN", 3600)

    def talk(peer: Peer) -> None:
        peer.echo()
        for _ in range(2):
            peer.read()
            peer.send(reply)

    with serving(talk) as server:
        client = connect(server, timeout=None)
        be_idle(client, clock)
        assert ask(client, a=1) == reply
        clock.now += 60
        assert ask(client, a=2) == reply
    assert server.connections == 1


@pytest.mark.parametrize(("idle", "delay"), [(60, LONGEST_DELAY), (1, 1), (0, 0)])
def test_a_reply_that_comes_later_is_the_answer(connect: Connect, clock: Clock, idle: float, delay: float) -> None:
    """The packet may have been handled."""
    with serving(time_out_unread) as server:
        client = connect(server)
        assert ask(client, before=1) == {"before": 1}
        clock.now += idle
        client.send({"a": 1})
        clock.now += delay
        assert client.receive() == TIMED_OUT
    assert server.connections == 1


def test_a_packet_behind_one_that_was_answered_is_not_sent_again(connect: Connect, clock: Clock) -> None:
    def talk(peer: Peer) -> None:
        peer.echo(2)
        peer.read()
        peer.send(TIMED_OUT)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        for number in range(2):
            client.send({"number": number})
        assert [client.receive(), client.receive()] == [{"number": 0}, TIMED_OUT]
    assert server.connections == 1


def test_a_packet_that_could_not_be_sent_behind_err_timed_out_is_sent_again(connect: Connect, clock: Clock) -> None:
    """The server has reset the connection; its reply was not read before the packet, as no time has passed."""

    received = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        received.wait(10)
        peer.send(TIMED_OUT)
        peer.reset()

    with serving(talk, echo_all) as server:
        client = connect(server)
        assert ask(client, a=1) == {"a": 1}
        received.set()
        wait_for_reset(client)
        clock.now += IDLE / 2
        assert ask(client, a=2) == {"a": 2}
        client.disconnect()
    assert server.connections == 2


def test_a_server_that_is_gone_is_told_by_receive(connect: Connect, clock: Clock) -> None:
    gone = threading.Event()

    def talk(peer: Peer) -> None:
        peer.echo()
        peer.read()
        gone.wait(10)
        peer.send(TIMED_OUT)

    with serving(talk) as server:
        client = connect(server)
        be_idle(client, clock)
        client.send({"a": 1})
        server.stop()
        gone.set()
        with pytest.raises(NotConnected, match=r"cannot connect to 127\.0\.0\.1"):
            client.receive()
        with pytest.raises(NotConnected, match=r"call connect\(hostname, port\) first"):
            client.receive()


def test_a_ctrl_c_while_it_is_sent_again_disconnects(connect: Connect, clock: Clock) -> None:
    """The late reply is not taken for that of the next packet."""
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.read()
        signal.pthread_kill(main, signal.SIGALRM)
        done.wait(10)

    main = threading.get_ident()
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with serving(time_out_unread, talk) as server:
            client = connect(server)
            be_idle(client, clock)
            client.send({"a": 1})
            with pytest.raises(KeyboardInterrupt):
                client.receive()
            with pytest.raises(NotConnected, match=r"call connect\(hostname, port\) first"):
                client.receive()
            done.set()
    finally:
        signal.signal(signal.SIGALRM, previous)
