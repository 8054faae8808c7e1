"""A codec of a third party that raises other exceptions than EncodeError, in both versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Serve
from numbered_peer import NumberedPeer, numbered
from peer import packet

from asyncapy import Server
from asyncapy.errors import Failure
from asyncapy_core.plugins import PluginManager, hookimpl

OWN = 77
BROKEN = b'{"status": "failure", "error": "ERR_HANDLER_FAILED"}'


class Json:
    """JSON as the standard library encodes it: other values are a TypeError."""

    name = "json-77"
    wire_id = OWN

    def encode(self, fields: Any) -> bytes:
        return json.dumps({**fields}).encode()

    def decode(self, payload: bytes) -> Any:
        return json.loads(payload)


class Codecs:
    @hookimpl
    def asyncapy_codecs(self) -> list[Any]:
        return [Json()]


@pytest.mark.parametrize("version", [22, 23])
@pytest.mark.parametrize("how", ["returns", "sends", "fails"])
async def test_a_value_that_it_cannot_encode_is_a_failure_of_the_handler(serve: Serve, version: int, how: str) -> None:
    plugins = PluginManager()
    plugins.register(Codecs(), "json-77")
    server = Server(port=0, plugins=plugins)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if how == "sends":
            await client.send({"n": object()})
        if how == "fails":
            raise Failure("ERR_GONE", n=object())
        return {"n": object()}

    running = await serve(server)
    if version == 23:
        async with await NumberedPeer.connect(running.port) as peer:
            for number in (1, 2):
                await peer.send(numbered("REQUEST", number, encoding=OWN, payload=b"{}"))
                answer = await peer.read()
                assert answer == ("FAILURE", number, BROKEN, OWN)
    else:
        async with await running.connect() as old:
            for _ in range(2):
                await old.send(packet(OWN, b"{ }"))
                assert await old.reply() == (OWN, BROKEN)
    assert all("Handler 'handle' failed" in line for line in running.logged("ERROR"))
    assert running.logged("TypeError")
