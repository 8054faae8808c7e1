"""Bounds of all clients: one timeout for all addresses of a name, the largest reply, and a name with a final dot."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import JSON, json_packet, packet

from asyncapy import Server
from asyncapy.client import AsyncClient, Client, Pool
from asyncapy.errors import InvalidReply, NotConnected, ReplyTimeout

NAME = "several.example"
Addresses = Callable[..., int]


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    """Return ``addresses(*hosts, silent=n)``: the first ``n`` of these hosts answer no connection to the returned port.

    The host name `NAME` has all of these addresses.
    """
    with contextlib.ExitStack() as stack:

        def make(*hosts: str, silent: int, port: int = 0) -> int:
            for host in hosts[:silent]:
                listener = stack.enter_context(socket.socket())
                listener.bind((host, port))
                listener.listen(0)
                port = listener.getsockname()[1]
                for _ in range(3):  # the queue of the listener is full after the first
                    filler = stack.enter_context(socket.socket())
                    filler.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        filler.connect((host, port))
            found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for host in hosts]
            resolve(monkeypatch, lambda port: found)
            return port

        yield make


def resolve(monkeypatch: pytest.MonkeyPatch, resolver: Callable[[Any], Any], name: str = NAME) -> None:
    """Have a host name looked up by a function of the port."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if host in (name, name.encode()) and not flags & socket.AI_NUMERICHOST:
            return resolver(port)
        return real(host, port, family, type, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_the_timeout_of_a_connection_is_that_of_all_addresses_of_a_name(addresses: Addresses) -> None:
    port = addresses("127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14", silent=4)
    began = time.monotonic()
    with Client(tls=False, timeout=1) as client, pytest.raises(ReplyTimeout, match="did not answer within 1 s"):
        client.connect(NAME, port)
    assert time.monotonic() - began < 3  # 4 with a second for each address


@pytest.mark.parametrize("kind", [AsyncClient, Pool])
async def test_the_same_holds_for_the_clients_of_trio(addresses: Addresses, kind: type[AsyncClient | Pool]) -> None:
    port = addresses("127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14", silent=4)
    began = time.monotonic()
    async with kind(NAME, port, tls=False, timeout=1) as client:
        with pytest.raises(NotConnected, match="never sent within 1 s"):
            await client.request({"a": 1})
    assert time.monotonic() - began < 3  # 4 with a second for each address


def test_an_address_that_does_not_answer_leaves_time_for_the_next(addresses: Addresses) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.16", 0))
        listener.listen()
        addresses("127.0.0.15", "127.0.0.16", silent=1, port=listener.getsockname()[1])
        with Client(tls=False, timeout=2) as client:
            client.connect(NAME, listener.getsockname()[1])
            accepted, peer = listener.accept()
            accepted.close()
            assert peer[0] == "127.0.0.1"


def test_all_reasons_are_told_if_no_address_accepts(addresses: Addresses) -> None:
    port = addresses("127.0.0.17", "127.0.0.18", silent=1)
    with Client(tls=False, timeout=0.4) as client, pytest.raises(NotConnected, match=r"timed out and .*refused"):
        client.connect(NAME, port)


def test_the_look_up_of_a_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(port: Any) -> list[Any]:
        answer.wait(60)
        return []

    resolve(monkeypatch, hang)
    with Client(tls=False, timeout=0.3) as client, pytest.raises(ReplyTimeout, match=r"did not answer within 0\.3 s"):
        client.connect(NAME, 1)
    answer.set()


def test_a_server_that_accepts_no_more_data_gets_no_more_than_the_timeout_over_tls(certificates: Certificates) -> None:
    """A small read now and then does not extend the time for a packet."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as secured:
                while secured.recv(30_000) and not ended.wait(0.1):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Client(timeout=1, ca_file=certificates.ca_file) as client:
                client.connect("127.0.0.1", listener.getsockname()[1])
                began = time.monotonic()
                with pytest.raises(ReplyTimeout, match="did not take the packet within 1 s"):
                    client.send({"a": "x" * 30_000_000})
                assert time.monotonic() - began < 10
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("hostname", ["localhost", "localhost."])
async def test_a_host_name_with_a_final_dot_is_verified_without_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, hostname: str
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    names: list[str | None] = []
    address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    resolve(monkeypatch, lambda port: [(*address, ("127.0.0.1", port))], "localhost.")
    context.sni_callback = lambda sock, name, context: names.append(name)

    async def echo(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    def ask(port: int) -> dict[str, Any]:
        with Client(timeout=5, ca_file=certificates.ca_file) as client:
            client.connect(hostname, port)
            client.send({"a": 1})
            return client.receive()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, echo, [trio.SSLListener(listener, context, https_compatible=True)])
        assert await trio.to_thread.run_sync(ask, port) == {"a": 1}
        for kind in (AsyncClient, Pool):
            async with kind(hostname, port, timeout=5, ca_file=certificates.ca_file) as client:
                assert await client.request({"a": 1}) == {"a": 1}
        nursery.cancel_scope.cancel()
    assert names == ["localhost"] * 3


ANNOUNCED = 16 * 1024 * 1024 + 1
TOO_LARGE = rf"Content-Length is {ANNOUNCED}; at most {ANNOUNCED - 1} are accepted \(max_packet of the client\); give"


@pytest.mark.parametrize("largest", [{}, {"max_packet": None}, {"max_packet": ANNOUNCED}], ids=str)
async def test_a_reply_of_more_than_16_mib_is_refused_on_its_length_unless_it_is_allowed(
    serve: Serve, largest: dict[str, Any]
) -> None:
    server = Server(port=0)
    body = b'{"a":"' + b"x" * (ANNOUNCED - 10) + b'"}'
    reply = packet(JSON, body)
    assert reply.startswith(struct.pack(">I", ANNOUNCED))
    text = body[6:-2].decode()

    @server.add_handler()
    async def large(client: Any, packet: Any) -> None:
        await client.send({"a": text})

    running = await serve(server)

    def ask() -> dict[str, Any]:
        with Client(tls=False, timeout=30, **largest) as client:
            client.connect("127.0.0.1", running.port)
            client.send({"a": 1})
            return client.receive()

    if largest:
        assert await trio.to_thread.run_sync(ask) == {"a": text}
    else:
        with pytest.raises(InvalidReply, match=TOO_LARGE):
            await trio.to_thread.run_sync(ask)
    for kind in (AsyncClient, Pool):
        async with kind("127.0.0.1", running.port, tls=False, timeout=30, **largest) as client:
            if largest:
                assert await client.request({"a": 1}) == {"a": text}
            else:
                with pytest.raises(InvalidReply, match=TOO_LARGE):
                    await client.request({"a": 1})


def test_the_length_alone_is_enough() -> None:
    """No byte of the payload has to arrive."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Client(tls=False, timeout=10) as client:
        client.connect("127.0.0.1", listener.getsockname()[1])
        client.send({"a": 1})
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(json_packet(a=1) + struct.pack(">I", ANNOUNCED))
            assert client.receive() == {"a": 1}
            with pytest.raises(InvalidReply, match=TOO_LARGE):
                client.receive()
