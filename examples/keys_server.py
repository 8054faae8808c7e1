"""A server for members only. Its keys are in SQLite, or in the store of the URL on the command line:

python keys_server.py                          keys.db in the working directory
python keys_server.py redis://localhost        a Redis that other servers can share

Make a key with ``asyncapy keys issue --store URL --metadata '{"owner": "alice"}'``.
"""

import sys
from typing import Any

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory

keys = APIKeyFactory(store=sys.argv[1] if len(sys.argv) > 1 else "sqlite:///keys.db")
server = Server(port=int(sys.argv[2]) if len(sys.argv) > 2 else 1500)


@server.add_handler(Filters.APIFactory(keys, "key"))
async def members_only(client: Client, packet: Packet) -> dict[str, Any]:
    """Gets packets with a valid key in the field key."""
    return {"welcome": packet.context["api_key"].metadata.get("owner")}


@server.add_handler()
async def others(client: Client, packet: Packet) -> None:
    """Gets all other packets."""
    await client.send({"welcome": None, "hint": "send a valid key in the field key"})


if __name__ == "__main__":
    server.start()
