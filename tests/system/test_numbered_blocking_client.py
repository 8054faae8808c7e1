"""The synchronous client in version 23, against real servers, and against peers that leave or break off."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from numbered_peer import numbered
from peer import JSON, failure, packet
from talker import Talker, talking

from asyncapy import Server
from asyncapy.client import Client
from asyncapy.errors import (
    EncodeError,
    HandlerFailed,
    InvalidReply,
    NotConnected,
    RemoteError,
    ReplyTimeout,
    ServerDisconnected,
    VersionTooOld,
)
from asyncapy_core.client import blocking_numbered

in_thread = trio.to_thread.run_sync


def newer(**settings: Any) -> Client:
    return Client(**{"tls": False, "timeout": 10, "version": 23, **settings})


async def test_requests_have_their_replies(serve: Serve, certificates: Certificates) -> None:
    server = Server(port=0, tls_cert=certificates.server)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        if "fail" in packet:
            raise ValueError("oops")
        for number in range(packet["parts"]):
            await client.send({"n": number})

    running = await serve(server)

    def run() -> None:
        with newer(tls=True, ca_file=certificates.ca_file, encoding="ziproto") as client:
            client.connect("localhost", running.port)
            assert client.request({"parts": 3}) == {"n": 2}
            assert client.request({"parts": 0}) is None
            assert client.request({"fail": 1}) == failure("ERR_HANDLER_FAILED")
            client.raise_failures = True
            with pytest.raises(HandlerFailed):
                client.request({"fail": 1})
            with pytest.raises(EncodeError):
                client.request({"a": object()})

    await in_thread(run)
    assert len(running.logged("New session started")) == 1


async def test_request_is_send_and_receive_in_version_22(serve: Serve) -> None:
    running = await serve()

    def run() -> None:
        with newer(version=22) as client:
            client.connect("127.0.0.1", running.port)
            assert client.request({"a": 1}) == {"a": 1}
            client.send({"a": 2})
            assert client.receive() == {"a": 2}

    await in_thread(run)


async def test_an_idle_session_that_the_server_has_ended_is_made_again(serve: Serve) -> None:
    running = await serve(timeout=0.05)
    client = newer()
    await in_thread(client.connect, "127.0.0.1", running.port)
    assert await in_thread(client.request, {"n": 1}) == {"n": 1}
    await running.settle(0)
    assert await in_thread(client.request, {"n": 2}) == {"n": 2}
    client.disconnect()
    assert len(running.logged("New session started")) == 2


def test_a_ping_is_answered_before_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking_numbered, "IDLE", 0)  # the seconds after which the connection is checked
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        got.append(peer.read())
        peer.send(numbered("REPLY", 1, {"n": 1}) + numbered("PING", 7) + numbered("EVENT", 0, {"news": 1}))
        got.extend((peer.read(), peer.read()))
        peer.send(numbered("REPLY", 2, {"n": 2}))

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        assert client.request({}) == {"n": 1}
        assert client.request({}) == {"n": 2}
    assert got == [("REQUEST", 1), ("PONG", 7), ("REQUEST", 2)]


async def test_a_stream_has_all_answers_and_other_requests_do_not_disturb_it(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        for number in range(packet["parts"]):
            await client.send({"n": number})
            await trio.lowlevel.checkpoint()
        if "fail" in packet:
            raise ValueError("oops")
        return {"last": True}

    running = await serve(server)

    def run() -> None:
        with newer() as client:
            client.connect("127.0.0.1", running.port)
            parts = client.stream({"parts": 3})
            assert next(parts) == {"n": 0}
            assert client.request({"parts": 0}) == {"last": True}
            assert list(parts) == [{"n": 1}, {"n": 2}, {"last": True}]
            failing = client.stream({"parts": 1, "fail": 1})
            assert next(failing) == {"n": 0}
            with pytest.raises(HandlerFailed):
                next(failing)
            with newer(version=22) as old, pytest.raises(VersionTooOld):
                old.stream({})

    await in_thread(run)
    assert len(running.logged("New session started")) == 1


def test_a_stream_that_is_left_early_is_cancelled() -> None:
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}))
        got.append(peer.read())
        peer.send(numbered("END", 1))
        peer.answer_all()

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        for part in client.stream({}):
            assert part == {"n": 1}
            break
        assert client.request({}) == {"n": 2}
    assert got == [("CANCEL", 1)]


def leave(peer: Talker) -> None:
    peer.read()
    peer.send(numbered("LEAVING", 0))


def test_a_request_that_leaving_did_not_take_is_sent_on_a_new_connection() -> None:
    with talking(leave, Talker.answer_all) as port, newer() as client:
        client.connect("127.0.0.1", port)
        assert client.request({}) == {"n": 1}
        assert client.request({}) == {"n": 2}


def test_a_server_that_always_leaves_is_reported() -> None:
    with talking(leave, leave, leave, leave) as port, newer() as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(NotConnected, match="4 sessions"):
            client.request({})


def test_a_request_in_doubt_fails_and_the_next_one_connects_again() -> None:
    def break_off(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("FAILURE", 0, failure("ERR_TIMED_OUT")) + numbered("LEAVING", 1))

    with talking(break_off, Talker.answer_all) as port, newer() as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(ServerDisconnected, match="ended the session: ERR_TIMED_OUT"):
            client.request({})
        assert client.request({}) == {"n": 1}


def test_a_server_that_does_not_read_a_request_is_left() -> None:
    done = threading.Event()

    def read_nothing(peer: Talker) -> None:
        done.wait(10)

    with talking(read_nothing, Talker.answer_all) as port, newer(timeout=0.1) as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(ReplyTimeout):
            client.request({"x": "x" * 30_000_000})
        done.set()
        client.timeout = 10
        assert client.request({}) == {"n": 1}


def test_a_connection_that_is_reset_is_reported() -> None:
    def reset(peer: Talker) -> None:
        peer.read()
        peer.reset()

    with talking(reset, Talker.answer_all) as port, newer() as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(ServerDisconnected, match=r"the connection was lost without an answer.*reset"):
            client.request({})
        assert client.request({}) == {"n": 1}


def test_a_late_request_is_cancelled_and_the_connection_stays() -> None:
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        got.extend(peer.read() for _ in range(4))
        peer.send(numbered("END", 1) + numbered("PONG", 0) + numbered("REPLY", 2, {"n": 2}))

    with talking(talk) as port, newer(timeout=0.1) as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(ReplyTimeout, match=r"no whole reply within 0\.1 s; the request was cancelled"):
            client.request({})
        client.timeout = 10
        assert client.request({}) == {"n": 2}
    assert sorted(got[1:3]) == [("CANCEL", 1), ("PING", 0)]


def test_a_server_that_has_vanished_is_given_up_at_the_second_late_request() -> None:
    def vanish(peer: Talker) -> None:
        while peer.read() is not None:
            pass

    with talking(vanish, Talker.answer_all) as port, newer(timeout=0.05) as client:
        client.connect("127.0.0.1", port)
        for _ in range(2):
            with pytest.raises(ReplyTimeout):
                client.request({})
        client.timeout = 10
        assert client.request({}) == {"n": 1}


class InterruptedSocket:
    """A socket whose process gets a signal when bytes have been received."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def recv(self, size: int) -> bytes:
        data = self._real.recv(size)
        signal.raise_signal(signal.SIGUSR1)
        return data


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_an_interrupted_request_is_cancelled_and_its_connection_given_up(kind: type[BaseException]) -> None:
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        got.append(peer.read())
        peer.send(numbered("PART", 1, {"n": 1}))
        got.append(peer.read())
        peer.send(numbered("PART", 1, {"n": 2}) + numbered("PART", 2, {"n": 3}))
        got.extend(iter(peer.read, None))

    def interrupt(*_: object) -> None:
        raise kind

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with talking(talk, Talker.answer_all) as port, newer() as client:
            client.connect("127.0.0.1", port)
            parts = client.stream({})
            assert next(parts) == {"n": 1}
            assert client._exchange is not None
            assert client._socket is not None
            client._exchange._socket = InterruptedSocket(client._socket)  # type: ignore[assignment]
            with pytest.raises(KeyboardInterrupt if kind is KeyboardInterrupt else ReplyTimeout):
                client.request({})
            assert client.request({}) == {"n": 1}
            with pytest.raises(ServerDisconnected, match="an exception has interrupted a read"):
                next(parts)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got[:2] == [("REQUEST", 1), ("REQUEST", 2)]
    assert {("CANCEL", 1), ("CANCEL", 2)} <= set(got[2:])


@pytest.mark.parametrize("data", [b"HTTP/1.1 400", packet(JSON, b'{"a": 1}')])
def test_a_server_of_another_protocol_is_invalid(data: bytes) -> None:
    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(data)

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        with pytest.raises(InvalidReply):
            client.request({})


def test_a_server_of_version_22_answers_with_its_failure() -> None:
    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(packet(JSON, b'{"status": "failure", "error": "ERR_HEADER_INVALID"}'))

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        assert client.request({}) == failure("ERR_HEADER_INVALID")


def test_mistakes_are_reported() -> None:
    client = newer()
    with pytest.raises(NotConnected, match="this client is not connected"):
        client.request({})
    for method in (client.receive, client.receive_raw, lambda: client.send({})):
        with pytest.raises(RemoteError, match="call request instead"):
            method()
    for version in (None, 24, True, "23"):
        with pytest.raises(ValueError, match=r"version is .*; it must be 22 or 23"):
            newer(version=version)
