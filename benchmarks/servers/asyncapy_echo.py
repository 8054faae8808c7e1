"""AsyncAPY: a handler behind one filter sends the packet back. All limits and deadlines are at their defaults.

Given the path of a certificate with its key, it uses TLS.
"""

import sys

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters

server = Server(port=0, tls_cert=sys.argv[1] if sys.argv[1:] else None)


@server.add_handler(Filters.Fields(test=None))
async def echo(client: Client, packet: Packet) -> None:
    """Send the packet back."""
    await client.send(packet)


@server.add_handler(Filters.HasFields(test=None))
async def echo_map(client: Client, packet: Packet) -> None:
    """Send a larger map back."""
    await client.send(packet)


server.start()
