"""The data of peers is a canary: it is in no log line, no repr and no error reply."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from conftest import Certificates, Serve
from peer import JSON, Peer, json_packet, packet

from asyncapy import Server
from asyncapy.core import Packet
from asyncapy.filters import Filter, Filters
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


QUOTES: dict[str, Callable[[Any], BaseException]] = {
    "key": lambda packet: KeyError(packet["key"]),
    "text": lambda packet: ValueError(f"no account for {packet['key']!r}, {packet['list']}"),
    "json": lambda packet: ValueError(str(packet)),
    "fields": lambda packet: ValueError(packet.fields),
    "group": lambda packet: ExceptionGroup("several", [KeyError(packet["key"])]),
    "cause": lambda packet: caused(packet["key"]),
}


def caused(key: str) -> BaseException:
    error = ValueError("no such account")
    error.__cause__ = KeyError(key)
    error.add_note(f"the key was {key}")
    return error


@pytest.mark.parametrize("level", [10, 20])
@pytest.mark.parametrize("raised", QUOTES)
@pytest.mark.parametrize("place", ["handler", "filter", "async filter", "guard"])
async def test_an_exception_that_quotes_a_packet_does_not_put_it_into_the_log(
    serve: Serve, level: int, raised: str, place: str
) -> None:
    server = Server(port=0, logging_level=level)

    def fail(client: Any, packet: Any) -> bool:
        raise QUOTES[raised](packet)

    class Failing(Filter):
        def check(self, c: Any, p: Any) -> Any:
            raise QUOTES[raised](p)

    class FailingLater(Filter):
        async def check(self, c: Any, p: Any) -> bool:
            raise QUOTES[raised](p)

    filters: dict[str, list[Filter]] = {"filter": [Failing()], "async filter": [FailingLater()]}

    @server.add_handler(*filters.get(place, []))
    async def handle(client: Any, packet: Any) -> None:
        if place == "handler":
            fail(client, packet)

    if place == "guard":
        server.guard(fail)
    running = await serve(server)
    secret = f"{CANARY}\n\t'\"{CANARY}"
    async with await running.connect() as peer:
        await peer.ask(key=secret, list=[secret, {"inner": secret}], number=1234567890)
    assert running.logged("[...]") or raised == "cause"
    for line in running.lines:
        assert CANARY not in line
        assert "1234567890" not in line


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
