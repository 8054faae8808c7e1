"""AsyncClient in version 23, against real servers, and against peers that leave, break off or say nothing."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from numbered_peer import NumberedPeer, numbered
from peer import JSON, failure, packet
from ports import free_port
from scripted import all_outcomes, client_of, fake_server
from trio.testing import wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.client import AsyncClient
from asyncapy.errors import (
    Failure,
    HandlerFailed,
    InvalidReply,
    NotConnected,
    RemoteError,
    ReplyTimeout,
    ServerDisconnected,
    SessionLimitReached,
    VersionTooOld,
)
from asyncapy_core.client.events import MAX_EVENTS
from asyncapy_core.client.numbered_connection import KEEP_ALIVE, SILENCE
from asyncapy_core.client.streaming import ReplyStream
from asyncapy_core.client.versions import REMEMBERED
from asyncapy_core.testing import serving


@pytest.fixture
def jumping_clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """A clock that runs as others do, and can be advanced."""
    mock_clock.rate = 1
    return mock_clock


def newer(port: int, **settings: Any) -> AsyncClient:
    return client_of(port, **{"version": 23, **settings})


def asking(port: int, **settings: Any) -> AsyncClient:
    return client_of(port, **{"version": None, **settings})


class Handlers:
    """A server with handlers for all kinds of answers, and the requests that it has handled."""

    def __init__(self) -> None:
        self.server = Server(port=0)
        self.names: list[str] = []
        self.begun = trio.Event()
        self.cancelled = trio.Event()
        self.release = trio.Event()
        self.server.add_handler()(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        name = packet["do"]
        self.names.append(name)
        result: Any = await getattr(self, name)(client, packet)
        return result

    async def echo(self, client: Any, packet: Any) -> Any:
        return dict(packet.fields)

    async def nothing(self, client: Any, packet: Any) -> None: ...

    async def count(self, client: Any, packet: Any) -> Any:
        for number in range(packet["n"]):
            await client.send({"n": number})
        return None if "end" in packet else {"n": packet["n"]}

    async def endless(self, client: Any, packet: Any) -> None:
        try:
            for number in range(10**9):
                await client.send({"n": number})
                await trio.lowlevel.checkpoint()
        finally:
            self.cancelled.set()

    async def hang(self, client: Any, packet: Any) -> None:
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def wait(self, client: Any, packet: Any) -> Any:
        await self.release.wait()
        return {"waited": True}

    async def fail(self, client: Any, packet: Any) -> None:
        raise Failure("ERR_GONE", id=7)

    async def fail_late(self, client: Any, packet: Any) -> None:
        await client.send({"n": 0})
        raise ValueError("oops")

    async def push(self, client: Any, packet: Any) -> None:
        for number in range(packet["n"]):
            await client.session.send({"event": number})

    async def close(self, client: Any, packet: Any) -> Any:
        await client.close()


@pytest.mark.parametrize("settings", [{}, {"header_size": 3, "byteorder": "little"}, {"header_size": 8}])
@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_a_request_has_its_reply(serve: Serve, encoding: str, settings: dict[str, Any]) -> None:
    running = await serve(**settings)
    async with newer(running.port, encoding=encoding, **settings) as client:
        assert await client.request({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
        assert await client.request('{"text": 1}') == {"text": 1}
        assert client.pending == 0
    await running.settle()


async def test_it_uses_tls(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server)
    async with AsyncClient("localhost", running.port, ca_file=certificates.ca_file, version=23) as client:
        assert await client.request({"a": 1}) == {"a": 1}
    async with AsyncClient("localhost", running.port, version=23) as client:
        with pytest.raises(RemoteError, match="is not trusted"):
            await client.request({"a": 1})
        with pytest.raises(RemoteError, match="is not trusted"):
            async for _ in client.stream({"a": 1}):
                pass
        with pytest.raises(RemoteError, match="is not trusted"):
            async for _ in client.events():
                pass


async def test_requests_are_answered_in_any_order_over_one_connection(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server)
    async with newer(running.port) as client, trio.open_nursery() as nursery:
        waited: list[Any] = []

        async def wait() -> None:
            waited.append(await client.request({"do": "wait"}))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        for number in range(50):
            assert (await client.request({"do": "echo", "n": number}))["n"] == number
        assert client.pending == 1
        handlers.release.set()
    assert waited == [{"waited": True}]
    assert len(running.logged("New session started")) == 1


async def test_the_last_answer_counts(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        assert await client.request({"do": "count", "n": 3}) == {"n": 3}
        assert await client.request({"do": "count", "n": 3, "end": 1}) == {"n": 2}
        assert await client.request({"do": "nothing"}) is None


async def test_failures_are_mappings_or_exceptions(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        assert await client.request({"do": "fail"}) == {**failure("ERR_GONE"), "id": 7}
        assert await client.request({"do": "fail_late"}) == failure("ERR_HANDLER_FAILED")
    async with newer(running.port, raise_failures=True) as client:
        with pytest.raises(HandlerFailed):
            await client.request({"do": "fail_late"})


async def test_a_late_request_is_cancelled_and_costs_nothing_else(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server)
    async with newer(running.port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, {"do": "wait"})
        await client.request({"do": "echo"})
        with pytest.raises(ReplyTimeout, match=r"no whole answer within 0\.5 s"):
            await client.request({"do": "hang"}, timeout=0.5)
        await handlers.cancelled.wait()
        assert (await client.request({"do": "echo"})) == {"do": "echo"}
        handlers.release.set()
    assert len(running.logged("New session started")) == 1


async def test_a_cancelled_request_is_cancelled_on_the_server(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server)
    async with newer(running.port) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.request, {"do": "hang"})
                await handlers.begun.wait()
                scope.cancel()
        await handlers.cancelled.wait()
        assert client.pending == 0
        assert (await client.request({"do": "echo"})) == {"do": "echo"}
    assert len(running.logged("New session started")) == 1


async def test_a_session_that_a_handler_closes_is_made_again(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        for _ in range(3):
            assert await client.request({"do": "close"}) is None
        assert await client.request({"do": "echo"}) == {"do": "echo"}
    assert len(running.logged("New session started")) == 4


async def test_a_request_that_is_too_large_fails_and_costs_no_other_one(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server, max_packet=100_000)
    async with newer(running.port) as client, trio.open_nursery() as nursery:
        waited: list[Any] = []

        async def wait() -> None:
            waited.append(await client.request({"do": "wait"}))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        large = {"do": "echo", "x": "x" * 10_000_000}
        assert await client.request(large) == failure("ERR_PACKET_TOO_LARGE")
        assert await client.request({"do": "echo"}) == {"do": "echo"}
        handlers.release.set()
    assert waited == [{"waited": True}]


async def test_no_request_is_lost_or_handled_twice_while_servers_restart() -> None:
    port = free_port()
    handled: Counter[int] = Counter()
    outcomes: list[Any] = []

    def server() -> Server:
        server = Server(port=port)

        @server.add_handler()
        async def handler(client: Any, packet: Any) -> Any:
            handled[packet["n"]] += 1
            await trio.sleep(packet["n"] % 4 / 100)
            return {"n": packet["n"]}

        return server

    async def serve_again_and_again(scope: trio.CancelScope) -> None:
        with scope:
            while True:
                current = server()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(current.serve)
                    await trio.sleep(0.1)
                    current.stop()

    async def ask(numbers: range) -> None:
        for number in numbers:
            outcomes.append((number, await client.request({"n": number})))

    async with trio.open_nursery() as servers:
        scope = trio.CancelScope()
        servers.start_soon(serve_again_and_again, scope)
        async with newer(port) as client, trio.open_nursery() as nursery:
            for task in range(20):
                nursery.start_soon(ask, range(task * 40, task * 40 + 40))
        scope.cancel()
    assert sorted(outcomes, key=itemgetter(0)) == [(number, {"n": number}) for number in range(800)]
    assert set(handled.values()) == {1}


async def test_an_idle_client_answers_the_pings_of_the_server(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(port=0, timeout=10)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> Any:
        return dict(packet.fields)

    async with serving(server) as running, running.client(version=23) as client:
        assert await client.request({"a": 1}) == {"a": 1}
        await trio.sleep(1000)
        assert await client.request({"a": 2}) == {"a": 2}
        assert len([line for line in running.log if "New session started" in line]) == 1


async def test_a_request_that_was_never_sent_is_not_connected() -> None:
    async with newer(free_port()) as client:
        with pytest.raises(NotConnected, match=r"never sent within 0\.1 s: cannot connect to 127\.0\.0\.1"):
            await client.request({"a": 1}, timeout=0.1)
        with pytest.raises(NotConnected, match=r"never sent within 0\.1 s: cannot connect to 127\.0\.0\.1"):
            async for _ in client.stream({"a": 1}, timeout=0.1):
                pass
        assert client.pending == 0
    with pytest.raises(NotConnected, match="not open"):
        client.stream({"a": 1})
    with pytest.raises(NotConnected, match="not open"):
        client.events()


async def test_requests_wait_for_a_server_that_starts_later() -> None:
    port = free_port()
    replies: list[Any] = []

    async def echo(stream: trio.SocketStream) -> None:
        peer = NumberedPeer(stream)
        while (got := await peer.read()) is not None:
            await peer.send(numbered("REPLY", got.number, got.fields))

    answered = trio.Event()

    async def ask() -> None:
        replies.append(await client.request({"a": 1}))
        answered.set()

    async with newer(port) as client, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked(0.01)
        async with fake_server(echo, port):
            await answered.wait()
    assert replies == [{"a": 1}]


async def test_a_refused_connection_answers_its_requests(serve: Serve) -> None:
    running = await serve(session_limit=1)
    async with await running.connect() as first:
        assert await first.ask(a=1) == {"a": 1}
        async with newer(running.port) as client:
            assert await client.request({"a": 1}) == failure("ERR_SESSION_LIMIT_REACHED")
        async with asking(running.port, raise_failures=True) as client:
            with pytest.raises(SessionLimitReached):
                await client.request({"a": 1})
            with pytest.raises(SessionLimitReached):
                async for _ in client.stream({"a": 1}):
                    pass


async def test_the_end_of_the_client_ends_all_requests(serve: Serve) -> None:
    running = await serve(Handlers().server)
    outcomes: list[str] = []

    async def ask() -> None:
        with pytest.raises(ServerDisconnected) as caught:
            await client.request({"do": "hang"}, idempotent=True)
        outcomes.append(str(caught.value))

    async def listen() -> None:
        with pytest.raises(NotConnected) as caught:
            async for _ in events:
                pass
        outcomes.append(str(caught.value))

    async with trio.open_nursery() as nursery, newer(running.port) as client:
        events = client.events()
        nursery.start_soon(ask)
        nursery.start_soon(listen)
        await wait_all_tasks_blocked(0.01)
    assert sorted(outcomes) == ["the client was closed", "the client was closed before the reply came"]
    await running.settle()


class Connections:
    """A server that runs a function for each connection, numbered from 1."""

    def __init__(self, behave: Callable[[NumberedPeer, int], Awaitable[None]]) -> None:
        self.count = 0
        self._behave = behave

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.count += 1
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._behave(NumberedPeer(stream), self.count)


async def answer_all(peer: NumberedPeer) -> None:
    while (got := await peer.read(10**9)) is not None:
        if got.kind == "REQUEST":
            await peer.send(numbered("REPLY", got.number, got.fields))
        elif got.kind == "PING":
            await peer.send(numbered("PONG", got.number))


async def test_requests_that_leaving_did_not_take_are_sent_elsewhere() -> None:
    first_is_answered = trio.Event()
    replies: dict[int, Any] = {}

    async def behave(peer: NumberedPeer, number: int) -> None:
        if number > 1:
            await answer_all(peer)
            return
        for _ in range(3):
            assert (await peer.read()) is not None
        await peer.send(numbered("LEAVING", 1))
        await first_is_answered.wait()
        await peer.send(numbered("REPLY", 1, {"n": 0}))
        assert await peer.read() is None, "the client closes after the last answer"

    async def ask(number: int) -> None:
        replies[number] = await client.request({"n": number})
        if len(replies) == 2:
            first_is_answered.set()

    connections = Connections(behave)
    async with fake_server(connections) as port, newer(port) as client, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
    assert replies == {number: {"n": number} for number in range(3)}
    assert list(replies)[-1] == 0
    assert connections.count == 2


async def break_off_once(peer: NumberedPeer, number: int) -> None:
    if number == 1:
        await peer.read()
        await peer.send(numbered("FAILURE", 0, failure("ERR_TIMED_OUT")) + numbered("LEAVING", 9))
        await peer.stream.aclose()
    else:
        await answer_all(peer)


async def test_a_request_in_doubt_fails_and_is_not_repeated() -> None:
    connections = Connections(break_off_once)
    async with fake_server(connections) as port, newer(port) as client:
        with pytest.raises(ServerDisconnected, match="the server ended the session: ERR_TIMED_OUT"):
            await client.request({"a": 1})
        assert connections.count == 1
        assert await client.request({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("version", [22, 23, None])
async def test_an_idempotent_request_is_repeated(version: int | None) -> None:
    count = 0

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal count
        data = await stream.receive_some()
        if data[6:7] == b"\7":
            await stream.send_all(numbered("PONG", 0))
            data = await stream.receive_some()
        count += 1
        if count == 3:
            data = bytes(data)
            await stream.send_all(data if version == 22 else numbered("REPLY", 1, {"a": 1}))
            await trio.sleep_forever()

    async with fake_server(behave) as port, client_of(port, version=version) as client:
        assert await client.request({"a": 1}, idempotent=True) == {"a": 1}


async def test_a_request_that_ends_each_connection_is_not_repeated_for_ever() -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        await peer.read()
        await peer.stream.aclose()

    connections = Connections(behave)
    async with fake_server(connections) as port, newer(port) as client:
        with pytest.raises(ServerDisconnected):
            await client.request({"a": 1}, idempotent=True)
    assert connections.count == 4


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff", packet(JSON, b'{"a": 1}')])
async def test_a_server_of_another_protocol_is_invalid(data: bytes) -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(data + bytes(4))
        await trio.sleep_forever()

    async with fake_server(behave) as port, newer(port, max_packet=1000) as client:
        with pytest.raises(InvalidReply):
            await client.request({"a": 1})


async def test_a_server_that_has_vanished_is_given_up(jumping_clock: trio.testing.MockClock) -> None:
    requests: list[Any] = []

    async def behave(peer: NumberedPeer, number: int) -> None:
        while (got := await peer.read(10**9)) is not None:
            requests.append((number, got.kind))
            if number > 1:
                await peer.send(numbered("REPLY", got.number, got.fields))

    async with fake_server(Connections(behave)) as port, newer(port) as client, trio.open_nursery() as nursery:
        outcomes: list[Any] = []

        async def ask(seconds: float) -> None:
            try:
                outcomes.append(await client.request({"a": 1}, timeout=seconds))
            except RemoteError as error:
                outcomes.append(error)

        nursery.start_soon(ask, 10)
        nursery.start_soon(ask, 1000)
        await wait_all_tasks_blocked(0.01)
        jumping_clock.jump(11)
        await wait_all_tasks_blocked(0.01)
        assert [type(each) for each in outcomes] == [ReplyTimeout]
        jumping_clock.jump(SILENCE + 1)
        await wait_all_tasks_blocked(0.01)
        assert [type(each) for each in outcomes] == [ReplyTimeout, ServerDisconnected]
        assert "has sent nothing for 30 s" in str(outcomes[1])
        await ask(10)
        assert outcomes[2] == {"a": 1}
    assert requests == [(1, "REQUEST"), (1, "REQUEST"), (1, "PING"), (1, "CANCEL"), (2, "REQUEST")]


async def test_a_server_that_answers_a_ping_is_not_given_up(jumping_clock: trio.testing.MockClock) -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        while (got := await peer.read(10**9)) is not None:
            if got.kind == "PING":
                await peer.send(numbered("PONG", got.number))
            elif got.fields == {"a": 2}:
                await peer.send(numbered("REPLY", got.number, {"n": number}))

    async with fake_server(Connections(behave)) as port, newer(port) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ReplyTimeout):
                await client.request({"a": 1}, timeout=10)

        for _ in range(3):
            nursery.start_soon(ask)
            await wait_all_tasks_blocked(0.01)
            jumping_clock.jump(11)
            await wait_all_tasks_blocked(0.01)
            jumping_clock.jump(SILENCE + 1)
            await wait_all_tasks_blocked(0.01)
        assert await client.request({"a": 2}) == {"n": 1}


async def test_a_server_that_always_leaves_is_not_flooded(jumping_clock: trio.testing.MockClock) -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        await peer.read()
        await peer.send(numbered("LEAVING", 0))
        await peer.read()

    connections = Connections(behave)
    async with fake_server(connections) as port, newer(port) as client:
        with pytest.raises(NotConnected):
            await client.request({"a": 1}, timeout=0.3)
    assert 2 <= connections.count <= 7


# version=None


async def test_a_client_that_asks_finds_version_23(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with asking(running.port) as client:
        assert [part async for part in client.stream({"do": "count", "n": 1})] == [{"n": 0}, {"n": 1}]
        assert await client.request({"do": "echo"}) == {"do": "echo"}
    assert len(running.logged("New session started")) == 1


class Old:
    """A server of version 22, such as AsyncAPY 0.5, that replies with its first bytes to a packet of version 23."""

    def __init__(self) -> None:
        self.first: list[bytes] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        data = bytes(await stream.receive_some())
        self.first.append(data)
        if data[4:5] == b"\x17":
            await stream.send_all(packet(JSON, b'{"status": "failure", "error": "ERR_HEADER_INVALID"}'))
            await stream.aclose()
            return
        while data:
            await stream.send_all(data)
            data = bytes(await stream.receive_some())


async def test_a_client_that_asks_falls_back_to_version_22_and_remembers() -> None:
    old = Old()
    async with fake_server(old) as port, asking(port) as client:
        requests = [{"n": number} for number in range(3)]
        assert await all_outcomes(client, requests) == requests
        assert await client.request({"n": 4}) == {"n": 4}
        assert old.first[0] == numbered("PING", 0), "it is sent alone"
        assert len(old.first) == 2
        with pytest.raises(VersionTooOld, match=r"stream\(\) needs version 23"):
            client.stream({"n": 1})
        with pytest.raises(VersionTooOld, match=r"events\(\) needs version 23"):
            client.events()


async def test_streams_and_events_find_version_22() -> None:
    async with fake_server(Old()) as port:
        async with asking(port) as client:
            with pytest.raises(VersionTooOld):
                async for _ in client.stream({"n": 1}):
                    pass
        async with asking(port) as client:
            with pytest.raises(VersionTooOld):
                async for _ in client.events():
                    pass
        async with client_of(port) as client:
            with pytest.raises(VersionTooOld):
                client.stream({"n": 1})
        async with newer(port) as client:
            assert await client.request({"n": 1}) == failure("ERR_HEADER_INVALID")


async def test_a_client_asks_again_after_an_hour(jumping_clock: trio.testing.MockClock, serve: Serve) -> None:
    old = Old()
    async with fake_server(old) as port, asking(port) as client:
        assert await client.request({"n": 1}) == {"n": 1}
        jumping_clock.jump(REMEMBERED - 1)
        assert await client.request({"n": 2}) == {"n": 2}
        assert len(old.first) == 2
        jumping_clock.jump(2)
        assert await client.request({"n": 3}) == {"n": 3}
        assert [data[4] for data in old.first] == [23, 22, 23]


async def test_a_server_that_returns_to_version_22_is_asked_again() -> None:
    count = 0

    async def behave(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        if count == 1:
            peer = NumberedPeer(stream)
            assert (await peer.read()) is not None
            await peer.send(numbered("PONG", 0))
            got = await peer.read()
            assert got is not None
            await peer.send(numbered("REPLY", got.number, got.fields))
            await stream.aclose()
        else:
            await Old()(stream)

    async with fake_server(behave) as port, asking(port) as client:
        assert await client.request({"n": 1}) == {"n": 1}
        await wait_all_tasks_blocked(0.01)
        assert await client.request({"n": 2}) == failure("ERR_HEADER_INVALID")
        assert await client.request({"n": 3}) == {"n": 3}
        assert count == 4


async def test_a_failure_of_version_22_is_no_reason_to_fall_back() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(packet(JSON, b'{"status": "failure", "error": "ERR_SERVER_BUSY"}'))

    async with fake_server(behave) as port, asking(port) as client:
        assert await client.request({"n": 1}) == failure("ERR_SERVER_BUSY")


async def test_a_server_that_does_not_answer_the_ping_is_given_up(jumping_clock: trio.testing.MockClock) -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        if number == 1:
            await peer.read(10**9)
            await trio.sleep_forever()
        await answer_all(peer)

    async def ask_in_vain() -> None:
        with pytest.raises(NotConnected, match="has not answered the PING that asks for its version"):
            await client.request({"n": 2}, timeout=5)

    async def ask() -> None:
        replies.append(await client.request({"n": 1}))

    replies: list[Any] = []
    async with (
        fake_server(Connections(behave)) as port,
        asking(port, timeout=1000) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask)
        nursery.start_soon(ask_in_vain)
        for seconds in (10, SILENCE, 1):
            await wait_all_tasks_blocked(0.01)
            jumping_clock.jump(seconds)
    assert replies == [{"n": 1}]


@pytest.mark.parametrize("version", [0, 21, 24, "23", True])
def test_other_versions_are_mistakes(version: Any) -> None:
    with pytest.raises(ValueError, match=r"version is .*; it must be 22 or 23, or None"):
        AsyncClient("localhost", 1, version=version)


# streams


async def test_a_stream_has_all_answers(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        assert [part["n"] async for part in client.stream({"do": "count", "n": 3})] == [0, 1, 2, 3]
        assert [part["n"] async for part in client.stream({"do": "count", "n": 3, "end": 1})] == [0, 1, 2]
        assert [part async for part in client.stream({"do": "nothing"})] == []


async def test_a_failure_in_a_stream_is_raised_behind_the_parts(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        stream = client.stream({"do": "fail_late"})
        assert await stream.__anext__() == {"n": 0}
        with pytest.raises(HandlerFailed):
            await stream.__anext__()


async def fail_within(stream: ReplyStream) -> None:
    async with stream:
        async for part in stream:
            raise KeyError(part["n"])


async def test_a_stream_that_is_left_early_is_cancelled(serve: Serve) -> None:
    for how in ("break", "aclose", "with", "raise", "cancel"):
        handlers = Handlers()
        running = await serve(handlers.server)
        async with newer(running.port) as client:
            stream = client.stream({"do": "endless"})
            if how == "break":
                async for _ in stream:
                    break
                del stream
                gc.collect()
            elif how == "aclose":
                assert await stream.__anext__()
                await stream.aclose()
                assert [part async for part in stream] == []
            elif how == "with":
                async with stream:
                    assert await stream.__anext__()
            elif how == "raise":
                with pytest.raises(KeyError):
                    await fail_within(stream)
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.stream({"do": "hang"}).__anext__)
                    await handlers.begun.wait()
                    nursery.cancel_scope.cancel()
            with trio.fail_after(5):
                await handlers.cancelled.wait()
            assert await client.request({"do": "echo"}) == {"do": "echo"}
        await running.settle()


async def test_a_stream_that_was_never_begun_sends_nothing(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server)
    async with newer(running.port) as client:
        client.stream({"do": "count"})
        async with client.stream({"do": "count"}) as closed:
            pass
        assert [part async for part in closed] == []
        await client.request({"do": "echo"})
    assert handlers.names == ["echo"]
    del running


async def test_a_stream_without_a_part_in_time_is_cancelled(serve: Serve) -> None:
    handlers = Handlers()
    running = await serve(handlers.server)
    async with newer(running.port) as client:
        await client.request({"do": "echo"})
        with pytest.raises(ReplyTimeout, match=r"within 0\.5 s"):
            async for _ in client.stream({"do": "hang"}, timeout=0.5):
                pass
        await handlers.cancelled.wait()


# events


async def test_events_reach_all_who_listen(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        await client.request({"do": "push", "n": 1})
        first, second = client.events(), client.events()
        await client.request({"do": "push", "n": 2})
        for events in (first, second):
            assert [await events.__anext__(), await events.__anext__()] == [{"event": 0}, {"event": 1}]
            assert events.lost == 0


async def test_events_that_are_not_taken_are_counted(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        events = client.events()
        await client.request({"do": "push", "n": MAX_EVENTS + 5})
        assert await events.__anext__() == {"event": 5}
        assert events.lost == 5


async def test_events_are_bounded_by_bytes(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port, max_packet=40) as client:
        events = client.events()
        await client.request({"do": "push", "n": 10})
        assert [(await events.__anext__())["event"] for _ in range(3)] == [7, 8, 9]
        assert events.lost == 7


async def test_a_client_that_only_listens_keeps_a_connection() -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        ping = await peer.read()
        assert ping is not None
        assert (ping.kind, ping.number) == ("PING", 0), "so that the session has version 23"
        await peer.send(numbered("PONG", 0) + numbered("EVENT", 0, {"news": number}))
        if number == 1:
            await peer.stream.aclose()
        await trio.sleep_forever()

    async with fake_server(Connections(behave)) as port, newer(port) as client:
        events = client.events()
        assert await events.__anext__() == {"news": 1}
        with pytest.raises(ServerDisconnected):
            await events.__anext__()
        async with client.events() as again:
            assert await again.__anext__() == {"news": 2}
        with pytest.raises(StopAsyncIteration):
            await again.__anext__()


async def test_the_events_of_a_session_that_is_left_come_up_to_its_end() -> None:
    left, end = trio.Event(), trio.Event()

    async def behave(peer: NumberedPeer, number: int) -> None:
        if number == 1:
            await peer.read()
            await peer.read()
            await peer.send(numbered("LEAVING", 1))
            await left.wait()
            await peer.send(numbered("EVENT", 0, {"session": 1}))
            await end.wait()
            await peer.send(numbered("END", 1))
        else:
            assert await peer.read() is not None
            await peer.send(numbered("REPLY", 1, {"n": 2}) + numbered("EVENT", 0, {"session": 2}))
            await answer_all(peer)

    connections = Connections(behave)
    async with fake_server(connections) as port, newer(port) as client, trio.open_nursery() as nursery:
        old = client.events()
        nursery.start_soon(client.request, {"n": 1})
        await wait_all_tasks_blocked(0.01)
        assert await client.request({"n": 2}) == {"n": 2}, "it is sent on the second connection"
        new = client.events()
        left.set()
        assert await old.__anext__() == {"session": 1}
        end.set()
        with pytest.raises(ServerDisconnected):
            await old.__anext__()
        assert not new.ended
        assert await client.request({"n": 3}) == {"n": 3}
    assert connections.count == 2


async def test_a_server_that_vanishes_while_events_are_expected_is_noticed(
    jumping_clock: trio.testing.MockClock,
) -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        await peer.read(10**9)
        await peer.send(numbered("PONG", 0))
        await trio.sleep_forever()

    async with fake_server(Connections(behave)) as port, newer(port) as client, trio.open_nursery() as nursery:
        ended = trio.Event()

        async def listen() -> None:
            with pytest.raises(ServerDisconnected, match="has sent nothing for 30 s"):
                async for _ in client.events():
                    pass
            ended.set()

        nursery.start_soon(listen)
        for _ in range(3):
            await wait_all_tasks_blocked(0.01)
            jumping_clock.jump(KEEP_ALIVE + 1)
        await ended.wait()


async def test_an_event_stream_that_is_closed_has_no_more_events(serve: Serve) -> None:
    running = await serve(Handlers().server)
    async with newer(running.port) as client:
        events = client.events()
        await client.request({"do": "push", "n": 2})
        assert await events.__anext__() == {"event": 0}
        await events.aclose()
        await client.request({"do": "push", "n": 2})
        assert [event async for event in events] == []
        assert events.lost == 0


async def test_two_tasks_may_share_a_stream(serve: Serve) -> None:
    running = await serve(Handlers().server)
    got: list[int] = []

    async def take() -> None:
        async for part in stream:
            got.append(part["n"])

    async with newer(running.port) as client:
        stream = client.stream({"do": "count", "n": 20})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
    assert sorted(got) == list(range(21))


async def test_a_connection_that_is_reset_is_reported() -> None:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with fake_server(behave) as port, newer(port) as client:
        with pytest.raises(ServerDisconnected, match=r"the connection was lost without an answer.*reset") as caught:
            await client.request({"a": 1})
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_server_that_reads_nothing_holds_up_nobody(jumping_clock: trio.testing.MockClock) -> None:
    async def behave(peer: NumberedPeer, number: int) -> None:
        if number == 1:
            await trio.sleep_forever()
        await answer_all(peer)

    async with fake_server(Connections(behave)) as port, newer(port) as client, trio.open_nursery() as nursery:

        async def ask(kind: type[RemoteError]) -> None:
            with pytest.raises(kind):
                await client.request({"x": "x" * 30_000_000}, timeout=100)

        nursery.start_soon(ask, ReplyTimeout)
        await wait_all_tasks_blocked(0.01)
        nursery.start_soon(ask, NotConnected)
        await wait_all_tasks_blocked(0.01)
        jumping_clock.jump(101)
        await wait_all_tasks_blocked(0.01)
        jumping_clock.jump(SILENCE)
        assert await client.request({"a": 1}) == {"a": 1}
