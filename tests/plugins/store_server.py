"""A server program for tests: ``python store_server.py keys|limits STORE_URL``.

It prints its port, and serves until its input ends.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import trio

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, Client, Packet, Server


def with_keys(url: str) -> Server:
    """Return a server whose handlers check API keys in a store, and manage them."""
    server = Server(port=0)
    factory = APIKeyFactory(store=url)

    @server.add_handler(Filters.APIFactory(factory, "key"))
    async def secret(client: Client, packet: Packet) -> None:
        await client.send({"passed": True})

    @server.add_handler(Filters.HasFields(number=None), Filters.APIFactory(factory, "log_in", tell=True, once=True))
    async def member(client: Client, packet: Packet) -> dict[str, Any]:
        return {"number": packet["number"], "plan": packet.context["api_key"].metadata["plan"]}

    @server.add_handler(Filters.Fields(do=None, on=None))
    async def manage(client: Client, packet: Packet) -> None:
        key: str = packet.fields["on"]
        match packet.fields["do"]:
            case "issue":
                result: Any = await factory.aissue({"plan": "gold"})
            case "get":
                result = await factory.aget(key)
            case "reissue":
                result = await factory.areissue(key)
            case "revoke":
                await factory.arevoke(key)
                result = None
            case _:
                raise ValueError
        await client.send({"result": result})

    return server


def with_limits(url: str) -> Server:
    """Return a server whose handlers have limits that are shared over a store."""
    server = Server(port=0, plugin_options={"limits": {"store": url}})

    @server.operation("few", Filters.Rate("30/hour", shared="few"))
    async def few(client: Client, packet: Packet) -> Mapping[str, Any]:
        return {"passed": True}

    @server.operation("many", Filters.Rate("2000/hour; 100000/day", shared="many"))
    async def many(client: Client, packet: Packet) -> Mapping[str, Any]:
        return {"passed": True}

    return server


async def main(kind: str, url: str) -> None:
    server = {"keys": with_keys, "limits": with_limits}[kind](url)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.serve)
        print(addresses[0][1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        server.stop()


trio.run(main, sys.argv[1], sys.argv[2])
