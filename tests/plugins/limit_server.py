"""A server program for tests: ``python limit_server.py STORE_URL`` prints its port, and serves until its input ends."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import trio

from asyncapy.filters import Filters
from asyncapy_core import Client, Packet, Server

server = Server(port=0, plugin_options={"limits": {"store": sys.argv[1]}})


@server.operation("few", Filters.Rate("30/hour", shared="few"))
async def few(client: Client, packet: Packet) -> Mapping[str, Any]:
    return {"passed": True}


@server.operation("many", Filters.Rate("2000/hour; 100000/day", shared="many"))
async def many(client: Client, packet: Packet) -> Mapping[str, Any]:
    return {"passed": True}


async def main() -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.serve)
        print(addresses[0][1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        server.stop()


trio.run(main)
