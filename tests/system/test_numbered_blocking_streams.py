"""Streams of the synchronous client, with other requests, threads, processes and ends of the connection in between."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from conftest import Serve
from numbered_peer import numbered
from talker import Talker, talking

from asyncapy import Server
from asyncapy.client import Client
from asyncapy.errors import NotConnected, RemoteError, ServerDisconnected, StreamOverflow
from asyncapy_core.client import blocking_numbered
from asyncapy_core.client.blocking_numbered import MOST_PARTS

in_thread = trio.to_thread.run_sync


def newer(**settings: Any) -> Client:
    return Client(**{"tls": False, "timeout": 10, "version": 23, **settings})


def stream_server() -> Server:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        for number in range(packet.fields.get("parts", 0)):
            await client.send({"n": number})
        return {"last": True}

    return server


async def test_a_loop_gets_all_parts_of_a_handler_that_never_waits(serve: Serve) -> None:
    running = await serve(stream_server())
    count = 5 * MOST_PARTS

    def run() -> None:
        with newer() as client:
            client.connect("127.0.0.1", running.port)
            parts = list(client.stream({"parts": count}))
            assert [part.get("n") for part in parts] == [*range(count), None]
            assert client.request({}) == {"last": True}

    await in_thread(run)


async def test_a_loop_may_send_a_request_for_each_part(serve: Serve) -> None:
    running = await serve(stream_server())
    count = 3000

    def run() -> None:
        with newer() as client:
            client.connect("127.0.0.1", running.port)
            for number, part in enumerate(client.stream({"parts": count})):
                assert part.get("n", count) == number
                assert client.request({}) == {"last": True}
            assert number == count

    await in_thread(run)
    assert len(running.logged("New session started")) == 1


def test_a_request_behind_more_parts_than_are_held_ends_their_stream() -> None:
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        got.append(peer.read())
        peer.send(numbered("PART", 1, {"n": 1}) * 9)
        got.append(peer.read())
        peer.send(numbered("PART", 1, {"n": 1}) + numbered("REPLY", 2, {"n": 2}))
        got.append(peer.read())
        peer.send(numbered("END", 1))
        peer.answer_all()

    with talking(talk) as port, newer(max_packet=20) as client:
        client.connect("127.0.0.1", port)
        parts = client.stream({})
        assert next(parts) == {"n": 1}
        assert client.request({}) == {"n": 2}
        assert [next(parts), next(parts)] == [{"n": 1}] * 2
        with pytest.raises(StreamOverflow, match="another request waits for an answer behind the next part"):
            next(parts)
        assert client.request({}) == {"n": 3}
    assert got == [("REQUEST", 1), ("REQUEST", 2), ("CANCEL", 1)]


def test_streams_that_are_open_end_with_the_connection_and_are_cancelled() -> None:
    got: list[Any] = []

    def talk(peer: Talker) -> None:
        got.append(peer.read())
        peer.send(numbered("PART", 1, {"n": 1}))
        got.extend(iter(peer.read, None))

    with talking(talk) as port:
        with newer() as client:
            client.connect("127.0.0.1", port)
            parts = client.stream({})
            assert next(parts) == {"n": 1}
        with pytest.raises(NotConnected, match="the client has disconnected"):
            next(parts)
    assert got == [("REQUEST", 1), ("CANCEL", 1)]


def test_a_stream_gets_its_answers_on_the_connection_that_the_server_leaves() -> None:
    answered = threading.Event()
    got: list[Any] = []

    def leave(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}))
        peer.read()
        peer.send(numbered("LEAVING", 1))
        answered.wait(10)
        peer.send(numbered("PART", 1, {"n": 2}) + numbered("REPLY", 1, {"n": 3}))
        got.extend(iter(peer.read, None))

    def answer(peer: Talker) -> None:
        answered_before = peer.read()
        assert answered_before is not None
        peer.send(numbered("REPLY", 1, {"new": True}))
        answered.set()
        peer.answer_all()

    with talking(leave, answer, at_once=True) as port, newer() as client:
        client.connect("127.0.0.1", port)
        parts = client.stream({})
        assert next(parts) == {"n": 1}
        assert client.request({}) == {"new": True}
        assert list(parts) == [{"n": 2}, {"n": 3}]
        assert client.request({}) == {"n": 2}
    assert got == [], "it is closed behind the last answer"


def test_a_stream_on_a_connection_that_the_server_has_left_is_cancelled_at_the_end() -> None:
    got: list[Any] = []

    def leave(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}))
        peer.read()
        peer.send(numbered("LEAVING", 1))
        got.extend(iter(peer.read, None))

    for disconnect in (True, False):
        got.clear()
        with talking(leave, Talker.answer_all, at_once=True) as port, newer() as client:
            client.connect("127.0.0.1", port)
            parts = client.stream({})
            assert next(parts) == {"n": 1}
            assert client.request({}) == {"n": 1}
            if disconnect:
                client.disconnect()
                with pytest.raises(NotConnected):
                    next(parts)
            else:
                parts.close()
                assert client.request({}) == {"n": 2}
        assert got == [("CANCEL", 1)]


def test_a_server_that_sends_without_end_does_not_hold_up_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking_numbered, "IDLE", 0)  # the seconds after which the connection is checked
    monkeypatch.setattr(blocking_numbered, "MAX_READ", 1024)
    flood = numbered("EVENT", 0, {"news": "x" * 100}) * 1000
    stop = threading.Event()

    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("REPLY", 1, {"n": 1}))
        while not stop.is_set():
            peer.send(flood)
        peer.answer_all()

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        assert client.request({}) == {"n": 1}
        exchange = client._exchange
        assert exchange is not None
        for _ in range(10):
            assert not exchange.has_ended()
        stop.set()
        assert client.request({}) == {"n": 2}


def test_a_client_belongs_to_one_thread_at_a_time() -> None:
    asked, leave = threading.Event(), threading.Event()
    replies: list[Any] = []

    def talk(peer: Talker) -> None:
        peer.read()
        asked.set()
        leave.wait(10)
        peer.send(numbered("REPLY", 1, {"n": 1}))
        peer.answer_all()

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        thread = threading.Thread(target=lambda: replies.append(client.request({})))
        thread.start()
        asked.wait(10)
        with pytest.raises(RemoteError, match="another thread uses this client"):
            client.request({})
        with pytest.raises(RemoteError, match="another thread uses this client"):
            next(client.stream({}))
        leave.set()
        thread.join(10)
        assert replies == [{"n": 1}]
        assert client.request({}) == {"n": 2}, "the others were not sent"


def test_a_stream_that_another_thread_drops_is_cancelled_with_the_next_packet() -> None:
    got: list[Any] = []
    asked, leave = threading.Event(), threading.Event()

    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}))
        peer.read()
        asked.set()
        leave.wait(10)
        peer.send(numbered("REPLY", 2, {"n": 2}))
        got.append(peer.read())
        peer.send(numbered("END", 1))
        peer.answer_all()

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        streams = [client.stream({})]
        assert next(streams[0]) == {"n": 1}
        thread = threading.Thread(target=client.request, args=({},))
        thread.start()
        asked.wait(10)
        streams.clear()
        gc.collect()
        leave.set()
        thread.join(10)
        assert client.request({}) == {"n": 3}
    assert got == [("CANCEL", 1)]


def in_fork(function: Any) -> int:
    """Run a function in a forked process, and return the status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_neither_continues_nor_cancels_a_stream() -> None:
    got: list[Any] = []
    forked = threading.Event()

    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}))
        forked.wait(10)
        peer.send(numbered("REPLY", 1, {"n": 2}))
        got.extend(iter(peer.read, None))

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        parts = client.stream({})
        assert next(parts) == {"n": 1}

        def go_on() -> None:
            with pytest.raises(NotConnected, match="connect a client in each process"):
                next(parts)

        def leave_it() -> None:
            parts.close()
            client.disconnect()

        assert in_fork(go_on) == 0
        assert in_fork(leave_it) == 0
        forked.set()
        assert list(parts) == [{"n": 2}]
    assert got == []


def user_timeout(connected: socket.socket | None) -> None:
    """Let the system end a connection, 100 ms after it has sent bytes that the peer does not take."""
    assert connected is not None
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)


LARGE = {"x": "x" * 30_000_000}


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
@pytest.mark.parametrize("timeout", [None, 1000])
@pytest.mark.parametrize("version", [22, 23])
def test_a_connection_that_the_system_ends_is_lost_whatever_the_timeout(version: Any, timeout: float | None) -> None:
    done = threading.Event()

    def read_nothing(peer: Talker) -> None:
        done.wait(10)

    with talking(read_nothing) as port, newer(version=version, timeout=timeout) as client:
        client.connect("127.0.0.1", port)
        user_timeout(client._socket)
        before = time.monotonic()
        with pytest.raises(ServerDisconnected, match="timed out"):
            client.request(LARGE)
        assert time.monotonic() - before < 60
        done.set()


@pytest.fixture
def silent_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that answers no connection; the system gives up connecting to it after a short time."""

    class Impatient(socket.socket):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            user_timeout(self)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            monkeypatch.setattr(socket, "socket", Impatient)
            yield port
            monkeypatch.undo()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
@pytest.mark.parametrize("timeout", [None, 1000])
def test_a_connection_that_the_system_does_not_make_is_not_connected(silent_port: int, timeout: float | None) -> None:
    with newer(timeout=timeout) as client, pytest.raises(NotConnected, match="timed out; is the server running there"):
        client.connect("127.0.0.1", silent_port)


@pytest.mark.parametrize("answers", [MOST_PARTS - 1, MOST_PARTS, MOST_PARTS + 1])
def test_as_many_answers_are_held_as_the_documentation_says(answers: int) -> None:
    def talk(peer: Talker) -> None:
        peer.read()
        peer.send(numbered("PART", 1, {"n": 0}))
        peer.read()
        peer.send(numbered("PART", 1, {"n": 1}) * (answers - 1) + numbered("REPLY", 1, {"n": 1}))
        peer.send(numbered("REPLY", 2, {"n": 2}))
        peer.answer_all()

    with talking(talk) as port, newer() as client:
        client.connect("127.0.0.1", port)
        parts = client.stream({})
        assert next(parts) == {"n": 0}
        assert client.request({}) == {"n": 2}
        taken = [next(parts) for _ in range(min(answers, MOST_PARTS))]
        assert taken == [{"n": 1}] * len(taken)
        with pytest.raises(StreamOverflow if answers > MOST_PARTS else StopIteration):
            next(parts)
