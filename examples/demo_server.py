"""The server of `make demo`: the documentation's echo server, with a filter, groups and an API key."""

import sys

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory

server = Server(addr="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
keys = APIKeyFactory()


@server.add_handler(Filters.Fields(foo=r"\d+", bar=None))
async def filtered(client: Client, packet: Packet) -> None:
    """Gets packets with a number in foo, anything in bar, and nothing else."""
    await client.send({"filtered": True, "foo": packet["foo"]})


@server.add_handler(Filters.Fields(subscribe=r"\w+"))
async def subscribe(client: Client, packet: Packet) -> None:
    """Hands out an API key."""
    await client.send({"key": keys.issue({"owner": packet["subscribe"]})})


@server.add_handler(Filters.APIFactory(keys, "key"))
async def members_only(client: Client, packet: Packet) -> None:
    """Gets packets with a valid key in the field key."""
    await client.send({"welcome": keys.get(packet["key"])["owner"]})


@server.add_handler(~Filters.HasFields(key=None))
async def echo(client: Client, packet: Packet) -> None:
    """Gets packets that no handler before it matched, and sends them back."""
    await client.send(packet)


@server.add_handler(Filters.HasFields(groups=None), group=-1)
async def first(client: Client, packet: Packet) -> None:
    """Gets packets with a field groups before the handlers of group 0."""
    await client.send({"group": -1})


if __name__ == "__main__":
    server.start()
