"""Refusals of a server reach its clients, however the refusal, the request and the reset of the connection race."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from conftest import Certificates, Running, Serve
from peer import Peer, failure, json_packet

from asyncapy.client import AsyncClient, Client, Pool
from asyncapy.errors import FailureReply, ServerBusy, ServerDisconnected, SessionLimitReached

LIMITS: list[tuple[dict[str, Any], type[FailureReply], str]] = [
    ({"session_limit": 1}, SessionLimitReached, "ERR_SESSION_LIMIT_REACHED"),
    ({"max_connections": 1}, ServerBusy, "ERR_SERVER_BUSY"),
]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextlib.asynccontextmanager
async def full(running: Running, certificates: Certificates, *, tls: bool) -> Any:
    """Hold the only session of a server."""
    if tls:
        first = await Peer.connect_tls(running.port, certificates.client_context())
    else:
        first = await running.connect()
    async with first:
        assert await first.ask(a=1) == {"a": 1}
        yield


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize(("limit", "kind", "code"), LIMITS, ids=["session_limit", "max_connections"])
async def test_every_client_that_is_refused_is_told_so(
    serve: Serve, certificates: Certificates, tls: bool, size: int,
    limit: dict[str, Any], kind: type[FailureReply], code: str,
) -> None:  # fmt: skip
    running = await serve(**limit, tls_cert=certificates.server if tls else None)
    options: dict[str, Any] = {"tls": tls, "timeout": 20, "ca_file": certificates.ca_file if tls else None}
    outcomes: Counter[str] = Counter()

    async def ask(client: AsyncClient | Pool) -> None:
        try:
            outcomes[str(await client.request({"a": "x" * size}))] += 1
        except Exception as error:
            outcomes[type(error).__name__] += 1

    async def alone() -> None:
        async with AsyncClient("127.0.0.1", running.port, raise_failures=True, **options) as client:
            await ask(client)

    def in_a_thread() -> str:
        with Client(**options) as client:
            client.connect("127.0.0.1", running.port)
            client.send({"a": "x" * size})
            return str(client.receive().get("error"))

    async with full(running, certificates, tls=tls):
        for _ in range(30):
            await alone()
        async with trio.open_nursery() as nursery:
            for _ in range(20):  # more handshakes at a time than a full server has places for would be cut short
                nursery.start_soon(alone)
        pool = Pool("127.0.0.1", running.port, raise_failures=True, **options)
        async with pool, trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(ask, pool)
        assert outcomes == {kind.__name__: 110}
        for _ in range(30):
            assert await trio.to_thread.run_sync(in_a_thread) == code
        async with AsyncClient("127.0.0.1", running.port, **options) as client:
            assert await client.request({"a": 1}) == failure(code)


@contextlib.contextmanager
def refusing(wait: Callable[[socket.socket], object], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that sends a refusal, waits, and resets the connection without reading."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if context is not None:
                        accepted = context.wrap_socket(accepted, server_side=True)
                except OSError:  # the end of the test
                    return
                with accepted:
                    accepted.sendall(json_packet(**failure("ERR_SERVER_BUSY")))
                    wait(accepted)
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def wait_for_reset(client: Client) -> None:
    """Wait until the system has got the reset of the connection."""
    assert client._socket is not None
    poll = select.poll()
    poll.register(client._socket, 0)
    assert poll.poll(10_000)[0][1] & select.POLLHUP


def test_a_packet_for_a_connection_that_was_reset_behind_a_refusal_is_answered_by_it(
    certificates: Certificates, tls: bool
) -> None:
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server)
    ca_file = certificates.ca_file if tls else None
    connected = threading.Event()
    with (
        refusing(lambda accepted: connected.wait(10), context) as port,
        Client(tls=tls, timeout=10, ca_file=ca_file) as client,
    ):
        client.connect("127.0.0.1", port)
        connected.set()
        wait_for_reset(client)
        client.send({"a": 1})
        assert client.receive() == failure("ERR_SERVER_BUSY")
        with pytest.raises(ServerDisconnected, match="the server has left"):
            client.send({"a": 2})
        with pytest.raises(ServerDisconnected):
            client.receive()


async def test_requests_behind_a_refusal_get_it_as_well() -> None:
    """None of the requests on a refused connection was handled."""
    with refusing(lambda accepted: select.select([accepted], [], [], 10)) as port:
        outcomes = []
        async with AsyncClient("127.0.0.1", port, tls=False, timeout=10) as client, trio.open_nursery() as nursery:

            async def ask(number: int) -> None:
                outcomes.append(await client.request({"a": number}))

            for number in range(20):
                nursery.start_soon(ask, number)
    assert outcomes == [failure("ERR_SERVER_BUSY")] * 20


async def test_a_failure_of_a_handler_with_the_code_of_a_refusal_is_no_refusal() -> None:
    """A reply after it shows that the server has accepted the connection, so later requests are in doubt."""
    replies: list[dict[str, Any]] = [failure("ERR_SERVER_BUSY"), {"b": 1}]

    async def talk(stream: trio.SocketStream) -> None:
        received = b""
        while received.count(b"{") < 3:
            received += await stream.receive_some()
        for reply in replies:
            await stream.send_all(json_packet(**reply))
        await stream.aclose()

    outcomes: dict[int, Any] = {}
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, talk, 0)
        port = listeners[0].socket.getsockname()[1]
        async with AsyncClient("127.0.0.1", port, tls=False, timeout=10) as client, trio.open_nursery() as requests:

            async def ask(number: int) -> None:
                try:
                    outcomes[number] = await client.request({"a": number})
                except ServerDisconnected as error:
                    outcomes[number] = type(error)

            for number in range(3):
                requests.start_soon(ask, number)
        nursery.cancel_scope.cancel()
    assert list(outcomes.values()).count(ServerDisconnected) == 1
    assert replies[0] in outcomes.values()
    assert replies[1] in outcomes.values()
