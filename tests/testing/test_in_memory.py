"""Servers and clients in memory, with a mock clock: no test waits in real time."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio
from conftest import Certificates, Start
from peer import JSON, Peer, json_packet, packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.errors import BindError, ConfigError, NotConnected, ReplyTimeout, VersionTooOld
from asyncapy.filters import Filters
from asyncapy_core.testing import serving
from asyncapy_core.testing.fixtures import OpenClient
from asyncapy_core.testing.memory import LogLines


def sleeper(**settings: Any) -> Server:
    """A server whose handler replies after the number of seconds in the packet."""
    server = Server(**settings)

    @server.add_handler()
    async def sleep(client: Any, packet: Any) -> None:
        await trio.sleep(packet.get("seconds", 0))
        await client.send({"slept": packet.get("seconds", 0), "address": client.address})

    return server


async def test_a_silent_client_is_told_so_after_60_seconds(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(sleeper())
    before = trio.current_time()
    async with await running.connect() as stream:
        assert await stream.receive_some() == packet(JSON, b'{"status":"failure","error":"ERR_TIMED_OUT"}')
        assert await stream.receive_some() == b""
    assert trio.current_time() - before == 60


async def test_a_trickle_does_not_extend_the_deadline(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(sleeper(timeout=10))
    before = trio.current_time()
    async with Peer(await running.connect()) as peer:
        for byte in json_packet(seconds=1)[:9]:
            await peer.send(bytes((byte,)))
            await trio.sleep(1)
        assert await peer.failure() == "ERR_TIMED_OUT"
    assert trio.current_time() - before == 10


async def test_a_handler_is_cut_off_in_time(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(sleeper(handler_timeout=30))
    async with running.client() as client:
        before = trio.current_time()
        assert await client.request({"seconds": 31}) == {"status": "failure", "error": "ERR_HANDLER_FAILED"}
        assert trio.current_time() - before == 30
        assert await client.request({"seconds": 29}) == {"slept": 29, "address": "127.0.0.1"}
    assert [line for line in running.log if "cut off after 30 s" in line]


async def test_a_client_gives_up_in_time(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(sleeper())
    async with running.client(timeout=20) as client:
        before = trio.current_time()
        with pytest.raises(ReplyTimeout, match="within 20 s"):
            await client.request({"seconds": 21})
        assert trio.current_time() - before == 20


async def test_clients_come_from_any_address(asyncapy_server: Start) -> None:
    server = Server(session_limit=1, header_size=2, byteorder="little")

    @server.add_handler(Filters.Ip("10.0.0.0/8"))
    async def inner(client: Any, packet: Any) -> None:
        await client.send({"address": client.address, "sessions": len(client.get_sessions())})

    running = await asyncapy_server(server)
    async with running.client(address="10.0.0.1") as one, running.client(address="10.0.0.2", encoding="ziproto") as two:
        assert await one.request({"a": 1}) == {"address": "10.0.0.1", "sessions": 1}
        assert await two.request({"a": 1}) == {"address": "10.0.0.2", "sessions": 1}
        async with running.client(address="10.0.0.1") as third:
            assert await third.request({"a": 1}) == {"status": "failure", "error": "ERR_SESSION_LIMIT_REACHED"}
    async with running.client(address="192.0.2.1") as stranger:
        assert await stranger.request({"a": 1}) == {"status": "failure", "error": "ERR_NO_HANDLER"}


async def test_tls_is_spoken_where_the_server_speaks_it(asyncapy_server: Start, certificates: Certificates) -> None:
    running = await asyncapy_server(sleeper(tls_cert=certificates.server))
    async with running.client(tls=True, ca_file=certificates.ca_file) as client:
        assert await client.request({"seconds": 0}) == {"slept": 0, "address": "127.0.0.1"}


async def test_setup_and_shutdown_are_run(autojump_clock: MockClock) -> None:
    calls = []

    class Noting(Server):
        async def setup(self) -> None:
            calls.append("setup")

        async def shutdown(self) -> None:
            calls.append("shutdown")

    server = Noting()
    for _ in range(2):  # a server may serve again
        async with serving(server):
            assert calls == ["setup"]
        assert calls == ["setup", "shutdown"]
        calls.clear()


async def test_what_goes_wrong_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigError, match="tls_cert"):
        async with serving(sleeper(tls_cert="nowhere.pem")):
            raise AssertionError
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the block around the raise is under test
        async with serving(sleeper()) as running:
            stream = await running.connect()
            raise ZeroDivisionError
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_who_comes_after_the_end_is_told_that_nobody_is_there(autojump_clock: MockClock) -> None:
    async with serving(sleeper()) as running, running.client(timeout=100) as client:
        await client.request({"seconds": 0})
        await running.stop()
        with pytest.raises(NotConnected, match="is not serving"):
            await client.request({"seconds": 0})


async def test_no_port_is_opened_and_nothing_is_left() -> None:
    async with serving(sleeper()) as running:
        assert running.server.addresses == ()
        await running.connect()
        assert [line for line in running.log if "Serving on no address" in line]
    assert running.server.log.handlers
    assert not any(isinstance(handler, LogLines) for handler in running.server.log.handlers)


async def test_a_server_serves_on_sockets_that_it_is_given() -> None:
    server = sleeper()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(lambda task_status: server.serve(listeners=[listener], task_status=task_status))
        assert addresses == (("127.0.0.1", port),)
        async with await Peer.connect(port) as peer:
            assert await peer.ask(seconds=0) == {"slept": 0, "address": "127.0.0.1"}
        server.stop()
    assert listener.fileno() == -1


async def test_sockets_that_it_is_given_are_closed_even_where_it_cannot_serve() -> None:
    with socket.socket() as listener:
        with pytest.raises(ConfigError):
            await sleeper(tls_cert="nowhere.pem").serve(listeners=[listener])
        assert listener.fileno() == -1


async def test_a_server_that_does_not_serve_admits_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RuntimeError, match="is not serving"):
        sleeper().admit(theirs, "127.0.0.1")


async def test_a_thread_of_a_handler_is_waited_for_without_a_clock_that_jumps(asyncapy_server: Start) -> None:
    server = Server()

    @server.add_handler()
    async def work(client: Any, packet: Any) -> None:
        await client.send({"main": await server.run_sync_task(threading.current_thread) is threading.main_thread()})

    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"main": False}


def test_bind_errors_are_still_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BindError, match="in use"):
        trio.run(sleeper(port=taken.getsockname()[1]).serve)


def hanging_server() -> Server:
    server = Server()

    @server.add_handler()
    async def never(client: Any, packet: Any) -> None:
        await trio.sleep_forever()

    return server


async def test_a_handler_that_never_ends_ends_with_the_test(asyncapy_server: Start, mock_clock: MockClock) -> None:
    running = await asyncapy_server(hanging_server())
    stream = await running.connect()
    await stream.send_all(json_packet(a=1))
    await trio.testing.wait_all_tasks_blocked()
    assert [line for line in running.log if "New session" in line]


async def test_what_a_block_raises_comes_out_though_a_handler_is_at_work(mock_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the block around the raise is under test
        async with serving(hanging_server()) as running:
            stream = await running.connect()
            await stream.send_all(json_packet(a=1))
            await trio.testing.wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert running.server.addresses == ()


async def test_an_address_that_is_none_is_told(asyncapy_server: Start) -> None:
    running = await asyncapy_server(sleeper())
    with pytest.raises(ValueError, match="'localhost' does not appear to be an IPv4 or IPv6 address"):
        running.client(address="localhost")


def counting() -> Server:
    server = Server()

    @server.add_handler()
    async def count(client: Any, packet: Any) -> Any:
        if "push" in packet:
            await client.session.send({"pushed": packet["push"]})
        for number in range(packet.get("count", 0)):
            yield {"n": number, "address": client.address}

    return server


async def test_an_opened_client_has_the_version_that_it_is_given(asyncapy_client: OpenClient) -> None:
    server = counting()
    newer = await asyncapy_client(server, version=23, address="10.1.2.3")
    events = newer.events()
    assert [part["n"] async for part in newer.stream({"count": 3, "push": 1})] == [0, 1, 2]
    assert await events.__anext__() == {"pushed": 1}
    assert await newer.request({"count": 3}) == {"n": 2, "address": "10.1.2.3"}
    assert await newer.request({}) is None
    for older in (await asyncapy_client(server, version=22), await asyncapy_client(server)):
        assert await older.request({"count": 1}) == {"n": 0, "address": "127.0.0.1"}
        with pytest.raises(VersionTooOld):
            older.stream({"count": 1})
        with pytest.raises(VersionTooOld):
            older.events()
    assert len({session.client.address for session in server.sessions}) == 2, "one server has all these clients"


async def test_opened_clients_of_several_servers_end_with_the_test(
    asyncapy_client: OpenClient, autojump_clock: MockClock
) -> None:
    for version in (22, 23, None):
        client = await asyncapy_client(sleeper(), version=version)
        assert (await client.request({"seconds": 50}))["slept"] == 50
        waiting = client.stream({"seconds": 10**6}) if version != 22 else None
        with trio.move_on_after(1):
            assert waiting is None or await waiting.__anext__() is None


async def test_arguments_of_an_opened_client_are_checked(asyncapy_client: OpenClient) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        await asyncapy_client(counting(), address="localhost")
    with pytest.raises(ValueError, match="version is 24"):
        await asyncapy_client(counting(), version=24)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ConfigError, match="tls_cert"):
        await asyncapy_client(sleeper(tls_cert="nowhere.pem"))


async def test_a_client_in_memory_takes_the_version_of_the_protocol() -> None:
    server = Server(port=0)

    @server.add_handler()
    async def twice(client: Any, packet: Any) -> Any:
        await client.send({"n": 1})
        return {"n": 2}

    async with serving(server) as running, running.client(version=None) as client:
        assert [part["n"] async for part in client.stream({"a": 1})] == [1, 2]
