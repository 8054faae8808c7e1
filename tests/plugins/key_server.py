"""A server program for tests: ``python key_server.py STORE_URL`` prints its port, and serves until its input ends."""

from __future__ import annotations

import sys
from typing import Any

import trio

from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory, Client, Packet, Server

factory = APIKeyFactory(store=sys.argv[1])
server = Server(port=0)


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


async def main() -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.serve)
        print(addresses[0][1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        server.stop()


trio.run(main)
