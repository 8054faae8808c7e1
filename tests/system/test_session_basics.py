from __future__ import annotations

import json

from conftest import Serve
from peer import JSON, ZIPROTO, packet


async def test_a_packet_is_echoed_in_json(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        assert await peer.ask(test=1) == {"test": 1}


async def test_a_packet_is_echoed_in_ziproto(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(packet(ZIPROTO, b"\x81\xa3foo\xa3bar"))
        assert await peer.reply() == (ZIPROTO, b"\x81\xa3foo\xa3bar")


async def test_the_first_packet_fixes_the_encoding_of_the_session(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(packet(JSON, b'{"foo":"bar"}') + packet(ZIPROTO, b"\x81\xa3foo\xa3bar"))
        for _ in range(2):
            reply = await peer.reply()
            assert reply is not None
            assert reply[0] == JSON
            assert json.loads(reply[1]) == {"foo": "bar"}
