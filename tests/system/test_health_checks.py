"""Health checks of proxies: connections without a packet, and those of a proxy itself, are no sessions of clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Certificates, Running, Serve, Start
from haproxy import Haproxy, documented
from installed import needs_haproxy
from numbered_peer import Answer, NumberedPeer
from peer import Peer, json_packet
from ports import free_port
from trio.testing import MockClock

from asyncapy import Server
from asyncapy_core.server.connection import SILENT_SECONDS
from asyncapy_core.server.state import MAX_REFUSED_PER_NETWORK

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
LOCAL_WITH_ADDRESSES = SIGNATURE + b"\x20\x11\x00\x0c" + bytes([127, 0, 0, 1, 127, 0, 0, 1]) + b"\x30\x39\x01\xbb"
CLIENT = b"PROXY TCP4 %s 127.0.0.1 1000 80\r\n"
HEADERS = pytest.mark.parametrize("header", [UNKNOWN, LOCAL, LOCAL_WITH_ADDRESSES])


async def close(peer: Peer) -> None:
    await peer.stream.aclose()


async def half_close(peer: Peer) -> None:
    await peer.half_close()
    await peer.read(100)
    await peer.stream.aclose()


ENDS = pytest.mark.parametrize("end", [close, half_close, Peer.reset])
End = Callable[[Peer], Any]


def echo(**settings: Any) -> Server:
    server = Server(port=0, logging_level="DEBUG", **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        return packet

    return server


def proxied(**settings: Any) -> Server:
    return echo(proxy_protocol_from="127.0.0.1", **settings)


def lines(running: Running) -> list[str]:
    """Return the lines about peers above DEBUG."""
    return [line for line in running.logged("{Client handler}") if not line.startswith("[DEBUG]")]


async def assert_unnoticed(running: Running) -> None:
    """Wait for the end of all connections; none of them was logged, counted or refused."""
    await running.settle()
    with trio.fail_after(5):
        while running.server.statistics().handshakes:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.005)
    statistics = running.server.statistics()
    assert lines(running) == []
    assert (statistics.sessions_opened, dict(statistics.refusals)) == (0, {})


@ENDS
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("is_proxied", [False, True])
async def test_a_connection_without_a_byte(
    serve: Serve, certificates: Certificates, tls: bool, is_proxied: bool, end: End
) -> None:
    settings: dict[str, Any] = {"tls_cert": certificates.server} if tls else {}
    running = await serve((proxied if is_proxied else echo)(**settings))
    for _ in range(2):
        await end(await running.connect())
    await assert_unnoticed(running)
    assert running.logged("{Client handler}"), "at DEBUG"


@ENDS
@HEADERS
@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_without_a_byte_behind_its_proxy_header(
    serve: Serve, certificates: Certificates, tls: bool, header: bytes, end: End
) -> None:
    running = await serve(proxied(**({"tls_cert": certificates.server} if tls else {})))
    for _ in range(2):
        peer = await running.connect()
        await peer.send(header)
        await end(peer)
    await assert_unnoticed(running)
    assert running.logged("{Client handler}"), "at DEBUG"


@ENDS
@pytest.mark.parametrize("notifies", [False, True])
async def test_a_tls_handshake_without_a_packet(
    serve: Serve, certificates: Certificates, notifies: bool, end: End
) -> None:
    running = await serve(echo(tls_cert=certificates.server))
    raw = await running.connect()
    stream = trio.SSLStream(raw.stream, certificates.client_context(), server_hostname="localhost")
    await stream.do_handshake()
    await running.settle(1)
    if notifies:
        await stream.unwrap()
    await end(raw)
    await assert_unnoticed(running)


async def test_a_tls_session_that_breaks_before_its_first_packet_is_no_check(
    serve: Serve, certificates: Certificates
) -> None:
    running = await serve(echo(tls_cert=certificates.server))
    raw = await running.connect()
    stream = trio.SSLStream(raw.stream, certificates.client_context(), server_hostname="localhost")
    await stream.do_handshake()
    await raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    await running.settle()
    await raw.stream.aclose()
    assert running.logged("[INFO] {Client handler} New session started")
    assert running.logged("The client has left: the TLS session broke")


@pytest.mark.parametrize("header", [LOCAL, LOCAL_WITH_ADDRESSES])
async def test_a_ping_of_a_proxy(serve: Serve, header: bytes) -> None:
    running = await serve(proxied())
    for _ in range(2):
        async with await NumberedPeer.connect(running.port) as peer:
            await peer.send(header)
            await peer.ping()
    await assert_unnoticed(running)


async def test_connections_of_a_proxy_do_not_count_for_the_session_limit(serve: Serve) -> None:
    running = await serve(proxied(session_limit=1))
    async with contextlib.AsyncExitStack() as stack:
        for header in (LOCAL, LOCAL, CLIENT % b"127.0.0.1", LOCAL_WITH_ADDRESSES):
            peer = await stack.enter_async_context(await running.connect())
            await peer.send(header + json_packet(a=1))
            assert await peer.json() == {"a": 1}
        assert running.server.statistics().sessions_opened == 1
        another = await stack.enter_async_context(await running.connect())
        await another.send(CLIENT % b"127.0.0.1" + json_packet(a=1))
        assert await another.failure() == "ERR_SESSION_LIMIT_REACHED"
    assert len(running.logged("[INFO] {Client handler} New session started")) == 1


@pytest.mark.parametrize("settings", [{"session_limit": 1}, {"max_connections": 1}])
@pytest.mark.parametrize("header", [CLIENT % b"127.0.0.1", UNKNOWN])
async def test_a_connection_without_a_byte_is_not_refused(
    serve: Serve, header: bytes, settings: dict[str, int]
) -> None:
    running = await serve(proxied(**settings))
    async with await running.connect() as client:
        await client.send(CLIENT % b"127.0.0.1")
        assert await client.ask(a=1) == {"a": 1}
        before = lines(running)
        for _ in range(2):
            async with await running.connect() as check:
                await check.send(header)
        await running.settle(1)
        assert lines(running) == before
        assert dict(running.server.statistics().refusals) == {}


async def test_a_connection_that_stays_silent_is_refused_while_there_is_no_place(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echo(session_limit=1))
    first = Peer(await running.connect())
    assert await first.ask(a=1) == {"a": 1}
    began = trio.current_time()
    assert await Peer(await running.connect()).failure() == "ERR_SESSION_LIMIT_REACHED"
    assert trio.current_time() - began == pytest.approx(SILENT_SECONDS)


async def test_a_connection_gets_a_place_that_is_given_back_before_its_first_byte(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echo(session_limit=1))
    first, second = Peer(await running.connect()), Peer(await running.connect())
    assert await first.ask(a=1) == {"a": 1}
    await first.stream.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await second.ask(a=2) == {"a": 2}
    assert trio.current_time() < SILENT_SECONDS
    assert running.server.statistics().sessions_opened == 2


async def test_the_oldest_of_too_many_silent_connections_is_refused_at_once(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echo(session_limit=1))
    first = Peer(await running.connect())
    assert await first.ask(a=1) == {"a": 1}
    oldest, *others = [Peer(await running.connect()) for _ in range(MAX_REFUSED_PER_NETWORK + 1)]
    assert await oldest.failure() == "ERR_SESSION_LIMIT_REACHED"
    assert await oldest.closed()
    assert trio.current_time() < SILENT_SECONDS
    for other in others:
        assert await other.failure() == "ERR_SESSION_LIMIT_REACHED"
    assert dict(running.server.statistics().refusals) == {"ERR_SESSION_LIMIT_REACHED": MAX_REFUSED_PER_NETWORK + 1}


@pytest.mark.parametrize("header", [UNKNOWN, LOCAL])
async def test_half_a_header_is_no_check(serve: Serve, header: bytes) -> None:
    running = await serve(proxied())
    async with await running.connect() as peer:
        await peer.send(header[: len(header) // 2])
        await peer.half_close()
        assert await peer.closed()
    await running.settle()
    assert [line for line in lines(running) if "No session for 127.0.0.1" in line] == lines(running) != []
    assert running.server.statistics().sessions_opened == 0


@pytest.mark.parametrize(("header", "of_proxy"), [(UNKNOWN, False), (LOCAL, True), (CLIENT % b"192.0.2.7", False)])
async def test_a_second_header_is_a_packet_that_is_refused(serve: Serve, header: bytes, of_proxy: bool) -> None:
    running = await serve(proxied())
    async with await running.connect() as peer:
        await peer.send(header * 2)
        assert await peer.failure() == "ERR_PACKET_TOO_LARGE"
        assert await peer.closed()
    await running.settle()
    assert len(running.logged("ERR_PACKET_TOO_LARGE for")) == 1
    assert len([line for line in lines(running) if "ERR_PACKET_TOO_LARGE for" in line]) == (0 if of_proxy else 1)


async def test_a_client_of_version_23_is_no_check(serve: Serve) -> None:
    running = await serve(proxied())
    async with await NumberedPeer.connect(running.port) as peer:
        await peer.send(CLIENT % b"192.0.2.7")
        assert await peer.ask(a=1) == [Answer("REPLY", 1, {"a": 1})]
    await running.settle()
    assert len(lines(running)) == 2, "its start and its end"
    assert running.server.statistics().sessions_opened == 1


@contextlib.asynccontextmanager
async def haproxy(folder: Path, text: str, port: int) -> AsyncIterator[Haproxy]:
    """Run HAProxy beside the server."""
    proxy = Haproxy(folder, text, port)
    await trio.to_thread.run_sync(proxy.__enter__)
    try:
        yield proxy
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(proxy.__exit__)


async def assert_checks_are_unnoticed(running: Running, proxy: Haproxy, *, result: str, count: int = 6) -> None:
    """Wait for the result of a check, and for this number of lines, all of them at DEBUG."""
    with trio.fail_after(20):
        while len(running.logged("{Client handler}")) < count:  # noqa: ASYNC110  # it has no event for this
            await trio.sleep(0.01)
    await trio.to_thread.run_sync(lambda: proxy.wait_for("check_status", one=result))
    statistics = running.server.statistics()
    assert lines(running) == []
    assert (statistics.sessions_opened, dict(statistics.refusals)) == (0, {})


def configuration(port: int, running: Running, options: str) -> str:
    return (
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"listen api\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{running.port} check inter 10ms {options}\n"
    )


@needs_haproxy
async def test_checks_that_connect_only(serve: Serve, tmp_path: Path) -> None:
    running = await serve(echo(session_limit=1))
    async with haproxy(tmp_path, configuration(port := free_port(), running, ""), port) as proxy:
        # HAProxy resets the connection before its handshake is done: most of these checks are not even accepted
        await assert_checks_are_unnoticed(running, proxy, result="L4OK", count=0)


@needs_haproxy
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_checks_with_a_proxy_header(serve: Serve, tmp_path: Path, option: str) -> None:
    running = await serve(proxied(session_limit=1))
    async with haproxy(tmp_path, configuration(port := free_port(), running, option), port) as proxy:
        await assert_checks_are_unnoticed(running, proxy, result="L4OK")


@needs_haproxy
async def test_checks_with_a_tls_handshake(serve: Serve, tmp_path: Path, certificates: Certificates) -> None:
    running = await serve(proxied(session_limit=1, tls_cert=certificates.server))
    options = "send-proxy-v2 check-ssl verify none"
    async with haproxy(tmp_path, configuration(port := free_port(), running, options), port) as proxy:
        await assert_checks_are_unnoticed(running, proxy, result="L6OK")


@needs_haproxy
async def test_checks_of_the_documented_configuration(serve: Serve, tmp_path: Path, certificates: Certificates) -> None:
    running = await serve(proxied(session_limit=1))
    text = documented(certificates.server, port := free_port(), [running.port, free_port()])
    async with haproxy(tmp_path, text.replace("inter 1s", "inter 10ms"), port) as proxy:
        await assert_checks_are_unnoticed(running, proxy, result="L7OK")
        await trio.to_thread.run_sync(lambda: proxy.wait_for(two="DOWN"))
