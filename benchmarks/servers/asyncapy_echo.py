"""AsyncAPY: a handler behind one filter sends the packet back. All limits and deadlines are at their defaults."""

from asyncapy import Server
from asyncapy.core import Client, Packet
from asyncapy.filters import Filters

server = Server(port=0)


@server.add_handler(Filters.Fields(test=None))
async def echo(client: Client, packet: Packet) -> None:
    """Send it back."""
    await client.send(packet)


server.start()
