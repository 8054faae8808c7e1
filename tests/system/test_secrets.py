"""The data of peers is a canary: it is in no log line, no repr and no error reply."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import JSON, Peer, json_packet, packet

from asyncapy import Server
from asyncapy.core import Packet
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory

CANARY = "canary-5c1f9e"


def server_with_everything(**settings: Any) -> tuple[Server, str, list[str]]:
    """Return a server with a guard and failing handlers, an API key for it, and the reprs that its handler collects."""
    server = Server(port=0, **settings)
    keys = APIKeyFactory()
    reprs: list[str] = []
    server.guard(Filters.APIFactory(keys, "key"))

    @server.add_handler(Filters.HasFields(fail=None))
    async def fail(client: Any, packet: Any) -> None:
        secret = packet["secret"]  # a traceback with locals would show the repr of this variable
        reprs.extend(map(repr, (packet, client, client.session, client.stream, server, server.handlers)))
        if packet["fail"] == "lookup":
            packet["not there"]
        if packet["fail"] == "send":
            await client.send(Packet({"secret": secret, "odd": object()}))
        if packet["fail"] == "encoding":
            await client.send(Packet({"secret": secret}, encoding="none"))
        raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [TypeError("two")])])

    @server.add_handler(Filters.HasFields(secret=r"\d+"))
    async def numbers(client: Any, packet: Any) -> None: ...

    return server, keys.issue(), reprs


@pytest.mark.parametrize("level", [10, 20])
async def test_what_a_peer_sends_is_nowhere(serve: Serve, level: int) -> None:
    server, key, reprs = server_with_everything(logging_level=level)
    running = await serve(server)
    replies: list[Any] = []
    async with await running.connect() as peer:
        for fields in (
            {"secret": CANARY},
            {"key": CANARY, "secret": CANARY},
            {"key": key, "secret": CANARY},
            {"key": key, "secret": CANARY, "fail": "lookup"},
            {"key": key, "secret": CANARY, "fail": "send"},
            {"key": key, "secret": CANARY, "fail": "encoding"},
            {"key": key, "secret": CANARY, "fail": "group"},
            {"key": [CANARY], "secret": {CANARY: CANARY}},
        ):
            await peer.send(json_packet(**fields))
            replies.append(await peer.json())
    for bad in (
        packet(JSON, b'{"secret": "' + CANARY.encode()),
        packet(JSON, b'"' + CANARY.encode() + b'"'),
        packet(JSON, b'{"' + CANARY.encode() + b'": 1e999}'),
        packet(1, b"\x81\xad" + CANARY.encode() + b"\xc1"),
        packet(7, CANARY.encode()),
        CANARY.encode(),
    ):
        async with await running.connect() as peer:
            await peer.send(bad)
            replies.append(await peer.read(1000))
    assert len(reprs) == 24
    for text in (*running.lines, *reprs, *map(repr, replies)):
        assert CANARY not in text
        assert key not in text
    assert len(running.logged("Handler 'fail' failed")) == 4


async def test_what_comes_before_tls_is_nowhere_either(serve: Serve, certificates: Certificates) -> None:
    running = await serve(tls_cert=certificates.server, proxy_protocol_from="127.0.0.9")
    for data in (CANARY.encode() * 10, b"PROXY " + CANARY.encode() + b"\r\n"):
        for host in ("127.0.0.1", "127.0.0.9"):
            async with await Peer.connect_from(host, running.port) as peer:
                with contextlib.suppress(trio.BrokenResourceError):  # the server may have closed before
                    await peer.send(data)
                    await peer.half_close()
                    assert CANARY.encode() not in await peer.read(1000)
    await running.settle()
    assert not running.logged(CANARY)
