"""The PROXY protocol: headers of trusted and other peers, and a real HAProxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Certificates, Running, Serve, Start
from haproxy import Haproxy
from installed import needs_haproxy
from peer import Peer, json_packet
from ports import free_port
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.errors import ConfigError
from asyncapy.filters import Filters

LINE = b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 443\r\n"
BINARY = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\x30\x39\x01\xbb"


def address_server(**settings: Any) -> Server:
    """A server that replies with the address of the client, under another name for one network."""
    server = Server(port=0, **settings)

    @server.add_handler(Filters.Ip("192.0.2.0/24"))
    async def friend(client: Any, packet: Any) -> None:
        await client.send({"friend": client.address})

    @server.add_handler()
    async def anybody(client: Any, packet: Any) -> None:
        await client.send({"address": client.address})

    return server


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["version 1", "version 2"])
@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_trusted_proxy_says_who_its_client_is(serve: Serve, header: bytes, bytewise: bool) -> None:
    running = await serve(address_server(proxy_protocol_from=["127.0.0.0/8"]))
    async with await running.connect() as peer:
        await (peer.send_bytewise if bytewise else peer.send)(header + json_packet(a=1))
        assert await peer.json() == {"friend": "192.0.2.7"}


@pytest.mark.parametrize(
    "trusted",
    [
        "::ffff:127.0.0.1",
        "::ffff:127.0.0.0/104",
        "::ffff:7f00:1/128",
        "10.0.0.1\n  ::ffff:127.0.0.1",
        ["::ffff:0:0/96"],
    ],
)
async def test_a_proxy_is_trusted_by_its_address_in_ipv6(serve: Serve, trusted: Any) -> None:
    running = await serve(address_server(proxy_protocol_from=trusted))
    async with await running.connect() as peer:
        await peer.send(LINE + json_packet(a=1))
        assert await peer.json() == {"friend": "192.0.2.7"}


async def test_a_proxy_that_speaks_for_itself_keeps_its_address(serve: Serve) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1"))
    async with await running.connect() as peer:
        await peer.send(b"PROXY UNKNOWN\r\n" + json_packet(a=1))
        assert await peer.json() == {"address": "127.0.0.1"}


async def test_a_mapped_address_is_told_as_ipv4(serve: Serve) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1"))
    async with await running.connect() as peer:
        await peer.send(b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 1\r\n" + json_packet(a=1))
        assert await peer.json() == {"friend": "192.0.2.9"}


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"]])
@pytest.mark.parametrize("header", [LINE, BINARY])
async def test_from_anybody_else_it_is_never_read_as_one(serve: Serve, header: bytes, trusted: list[str]) -> None:
    running = await serve(address_server(proxy_protocol_from=trusted))
    async with await running.connect() as peer:
        await peer.send(header + json_packet(a=1))
        assert await peer.failure() in {"ERR_PACKET_TOO_LARGE", "ERR_HEADER_INVALID"}
        assert await peer.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        json_packet(a=1),
        b"PROXY TCP4 " + b"1" * 108,
        BINARY[:14] + b"\xff\xff" + bytes(100),
        b"PROXY TCP4 300.0.0.1 127.0.0.1 1 1\r\n",
    ],
    ids=["HTTP", "a packet", "108 bytes without an end", "length ffff", "no address"],
)
async def test_garbage_from_a_trusted_proxy_is_closed_without_a_reply(serve: Serve, data: bytes) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1"))
    async with await running.connect() as peer:
        await peer.send(data)
        with contextlib.suppress(trio.BrokenResourceError):  # closed with bytes unread
            assert await peer.closed()
    await running.settle()
    assert running.logged("No session for 127.0.0.1")


@pytest.mark.parametrize("data", [b"", LINE[:20], BINARY[:20]])
async def test_a_proxy_that_says_nothing_is_closed_after_three_seconds(
    asyncapy_server: Start, autojump_clock: MockClock, data: bytes
) -> None:
    running = await asyncapy_server(address_server(proxy_protocol_from="127.0.0.1"))
    began = trio.current_time()
    async with await running.connect() as stream:
        await stream.send_all(data)
        assert await stream.receive_some() == b""
    assert trio.current_time() - began == 3


@pytest.mark.parametrize("data", [b"", LINE[:20], BINARY[:20]])
async def test_a_proxy_that_leaves_in_the_middle_is_forgotten(serve: Serve, data: bytes) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1"))
    async with await running.connect() as peer:
        await peer.send(data)
        await peer.half_close()
        assert await peer.closed()
    await running.settle()


async def test_the_limit_is_for_each_client_and_not_for_the_proxy(serve: Serve) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1", session_limit=1))
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3):
            peer = await stack.enter_async_context(await running.connect())
            await peer.send(LINE.replace(b"192.0.2.7", b"192.0.2.%d" % number) + json_packet(a=1))
            assert await peer.json() == {"friend": f"192.0.2.{number}"}
        again = await stack.enter_async_context(await running.connect())
        await again.send(LINE.replace(b"192.0.2.7", b"192.0.2.1") + json_packet(a=1))
        assert await again.failure() == "ERR_SESSION_LIMIT_REACHED"


async def test_the_header_comes_before_tls(serve: Serve, certificates: Certificates) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1", tls_cert=certificates.server))
    plain = await trio.open_tcp_stream("127.0.0.1", running.port)
    await plain.send_all(BINARY)
    stream = trio.SSLStream(plain, certificates.client_context(), server_hostname="127.0.0.1")
    async with Peer(stream) as peer:
        assert await peer.ask(a=1) == {"friend": "192.0.2.7"}


async def test_the_deadline_of_the_header_does_not_hold_for_the_tls_handshake_after_it(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates
) -> None:
    running = await asyncapy_server(address_server(proxy_protocol_from="127.0.0.1", tls_cert=certificates.server))
    plain = await running.connect()
    await trio.sleep(2)
    await plain.send_all(BINARY)
    await trio.sleep(5)
    stream = trio.SSLStream(plain, certificates.client_context(), server_hostname="127.0.0.1")
    assert await Peer(stream).ask(a=1) == {"friend": "192.0.2.7"}


async def test_the_deadline_of_the_tls_handshake_begins_after_the_header(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates
) -> None:
    server = address_server(proxy_protocol_from="127.0.0.1", tls_cert=certificates.server, handshake_timeout=4)
    running = await asyncapy_server(server)
    began = trio.current_time()
    stream = await running.connect()
    await trio.sleep(2)
    await stream.send_all(BINARY)
    assert await stream.receive_some() == b""
    assert trio.current_time() - began == 2 + 4


def test_what_is_no_network_is_not_trusted() -> None:
    with pytest.raises(ConfigError, match=r"proxy_protocol_from is .*'everybody'"):
        Server(proxy_protocol_from="everybody")
    with pytest.raises(ConfigError, match=r"'fe80::1%eth0' has a zone; write it without %eth0"):
        Server(proxy_protocol_from="fe80::1%eth0")


@contextlib.contextmanager
def haproxy(folder: Path, backends: list[str]) -> Iterator[int]:
    """Run an HAProxy in TCP mode in front of these ``HOST:PORT OPTIONS``, and yield its port."""
    port = free_port()
    servers = "\n".join(f"  server s{number} {backend}" for number, backend in enumerate(backends))
    text = (
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"listen api\n  bind 127.0.0.1:{port}\n  balance roundrobin\n{servers}\n"
    )
    with Haproxy(folder, text, port):
        yield port


@needs_haproxy
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_behind_haproxy_clients_have_their_own_addresses(serve: Serve, tmp_path: Path, option: str) -> None:
    running = await serve(address_server(proxy_protocol_from="127.0.0.1"))
    with haproxy(tmp_path, [f"127.0.0.1:{running.port} {option}"]) as port:
        for host in ("127.0.0.1", "127.0.0.5", "127.9.9.9"):
            sock = trio.socket.socket()
            await sock.bind((host, 0))
            await sock.connect(("127.0.0.1", port))
            async with Peer(trio.SocketStream(sock)) as peer:
                assert await peer.ask(a=1) == {"address": host}
                await peer.send(json_packet(a=1) * 100)
                assert [await peer.json() for _ in range(100)] == [{"address": host}] * 100
        await running.settle()


@needs_haproxy
async def test_haproxy_spreads_clients_over_two_servers_and_goes_on_with_one(serve: Serve, tmp_path: Path) -> None:
    def named(name: str) -> Server:
        server = Server(port=0, proxy_protocol_from="127.0.0.1")

        @server.add_handler()
        async def tell(client: Any, packet: Any) -> None:
            await client.send({"server": name, "address": client.address})

        return server

    async def ask(port: int, host: str) -> Any:
        sock = trio.socket.socket()
        await sock.bind((host, 0))
        await sock.connect(("127.0.0.1", port))
        async with Peer(trio.SocketStream(sock)) as peer:
            return await peer.ask(a=1)

    first: Running = await serve(named("first"))
    second: Running = await serve(named("second"))
    backends = [f"127.0.0.1:{running.port} send-proxy-v2 check inter 100ms" for running in (first, second)]
    with haproxy(tmp_path, backends) as port:
        replies = [await ask(port, f"127.0.0.{number}") for number in range(2, 12)]
        assert {reply["server"] for reply in replies} == {"first", "second"}
        assert [reply["address"] for reply in replies] == [f"127.0.0.{number}" for number in range(2, 12)]
        first.server.stop()
        with trio.fail_after(10):
            while first.server.addresses:  # noqa: ASYNC110  # the server has no event for this
                await trio.sleep(0.01)
        with trio.fail_after(10):
            while True:
                replies = [await ask(port, "127.0.0.2") for _ in range(4)]
                if all(reply is not None for reply in replies):
                    break
        assert {reply["server"] for reply in replies} == {"second"}
