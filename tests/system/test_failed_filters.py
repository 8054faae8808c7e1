"""Log lines about filters and guards that fail: each names the handler or the guard, in both versions."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from conftest import Serve
from numbered_peer import NumberedPeer

from asyncapy import Server
from asyncapy.errors import Failure
from asyncapy_core.routing.filter import Filter


class Fails(Filter):
    """A filter that fails in one of several ways."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def check(self, c: Any, p: Any) -> bool:
        if self.how == "is cut off":
            await trio.sleep_forever()
        raise ValueError("a failure") if self.how == "raises" else Failure("ERR_GONE", x=object())

    def __repr__(self) -> str:
        return "Fails()"


class FailsAtOnce(Filter):
    """A filter, not async, that fails."""

    def check(self, c: Any, p: Any) -> bool:
        raise Failure("ERR_GONE", x=object())


async def do_nothing(client: Any, packet: Any) -> None: ...


async def handle(client: Any, packet: Any) -> None: ...


@pytest.mark.parametrize("version", [22, 23])
@pytest.mark.parametrize("how", ["raises", "is cut off", "cannot be sent", "cannot be sent at once"])
@pytest.mark.parametrize(
    ("place", "subject"),
    [("guard", "The guard Fails()"), ("group 0", "A filter of 'handle'"), ("group 1", "A filter of 'handle'")],
)
async def test_a_filter_that_fails_is_named_by_its_handler(
    serve: Serve, version: int, how: str, place: str, subject: str
) -> None:
    server = Server(port=0, handler_timeout=0.05 if how == "is cut off" else None)
    at_once = how == "cannot be sent at once"
    failing = FailsAtOnce() if at_once else Fails(how)
    if place == "guard":
        server.guard(failing)
        server.register_handler(handle)
    else:
        server.register_handler(handle, failing, group=1)
        if place == "group 1":
            server.register_handler(do_nothing)
    running = await serve(server)
    if version == 23:
        async with await NumberedPeer.connect(running.port) as peer:
            await peer.ask()
    else:
        async with await running.connect() as old:
            if not (place == "group 1" and how == "raises"):  # then the packet has no answer
                await old.ask(a=1)
            else:
                await old.send(b'\x00\x00\x00\x09\x16\x00{"a":1}')
                await old.half_close()
                assert await old.closed()
    (line,) = running.logged("ERROR")
    assert (subject if not (at_once and place == "guard") else "The guard ") in line
