"""Version 23 over TLS, and a server that is cancelled."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from conftest import Certificates, Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from peer import Peer

from asyncapy import Server

SIZE = 3_000_000


async def connect(running: Running, certificates: Certificates) -> NumberedPeer:
    return NumberedPeer((await Peer.connect_tls(running.port, certificates.client_context())).stream)


def server_of(**settings: Any) -> tuple[Server, trio.Event]:
    server, free = Server(port=0, **settings), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if packet.get("large"):
            for _ in range(3):
                await client.send({"x": "x" * SIZE})
        if packet.get("wait"):
            await free.wait()
        return {"n": packet.get("n")}

    return server, free


async def test_requests_run_concurrently_over_tls(serve: Serve, certificates: Certificates) -> None:
    server, free = server_of(tls_cert=certificates.server, max_in_flight=3)
    running = await serve(server)
    async with await connect(running, certificates) as peer:
        for number in range(1, 6):
            await peer.request(wait=1, n=number)
        await peer.ping()
        await peer.cancel(2)
        assert await peer.read() == Answer("END", 2, None)
        await peer.cancel(5)
        assert await peer.read() == Answer("END", 5, None)
        free.set()
        answers = [await peer.read() for _ in range(3)]
        assert sorted(answer.number for answer in answers if answer is not None) == [1, 3, 4]
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 4, None)
        assert await peer.read() is None


async def test_a_cancel_while_an_answer_is_written_leaves_a_tls_connection_intact(
    serve: Serve, certificates: Certificates
) -> None:
    server, _ = server_of(tls_cert=certificates.server)
    running = await serve(server)
    async with await connect(running, certificates) as peer:
        for _ in range(2):
            number = await peer.request(large=1)
            while not running.server.statistics().bytes_queued:  # noqa: ASYNC110  # the server has no event for this
                await trio.sleep(0.002)
            await peer.cancel(number)
            while (answer := await peer.read()) is not None and answer.kind == "PART":
                assert answer == Answer("PART", number, {"x": "x" * SIZE})
            assert answer in (Answer("END", number, None), Answer("REPLY", number, {"n": None}))
            later = await peer.request(n=1)
            assert await peer.answers(later) == [Answer("REPLY", later, {"n": 1})]


async def test_a_reset_over_tls_cancels_its_requests(serve: Serve, certificates: Certificates) -> None:
    server, _ = server_of(tls_cert=certificates.server)
    running = await serve(server)
    before = running.footprint
    peer = await connect(running, certificates)
    await peer.send(b"".join(numbered("REQUEST", number, {"wait": 1}) for number in range(1, 20)))
    await peer.ping()
    await NumberedPeer(peer.stream.transport_stream).reset()  # type: ignore[attr-defined]  # an SSLStream
    with trio.fail_after(5):
        while running.grown_since(before) or running.server.statistics().abandoned:  # noqa: ASYNC110  # as above
            await trio.sleep(0.002)
    assert not running.logged("ERROR")


@pytest.mark.parametrize("requests", [0, 1, 5])
async def test_a_server_that_is_cancelled_ends_at_once(requests: int) -> None:
    server, _ = server_of(logging_level=100, max_in_flight=3)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(server.serve)
            peer = await NumberedPeer.connect(address[1])
            for number in range(requests):
                await peer.request(wait=1, n=number)
            await peer.ping()
            if requests:
                await peer.cancel(1)
            nursery.cancel_scope.cancel()
    await peer.stream.aclose()
