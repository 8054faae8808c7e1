"""AsyncAPY: a handler that waits for a millisecond before it sends the packet back."""

import trio

from asyncapy import Client, Packet, Server

server = Server(port=0)


@server.add_handler()
async def echo(client: Client, packet: Packet) -> Packet:
    """Send the packet back, a millisecond later."""
    await trio.sleep(0.001)
    return packet


server.start()
