"""AsyncAPY: 200 operations, `operation_000` to `operation_199`, each of which sends the packet back."""

from asyncapy import Server
from asyncapy.core import Client, Packet

server = Server(port=0)

for number in range(200):

    @server.operation(f"operation_{number:03}")
    async def echo(client: Client, packet: Packet) -> None:
        """Send the packet back."""
        await client.send(packet)


server.start()
