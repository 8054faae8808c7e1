"""AsyncAPY: ``push`` sends a `SharedPacket` to all other sessions, ``write`` its bytes to their sockets in a bare loop.

Both send to the same sockets, which the listener keeps. The first connection is that of the load that asks.
"""

import socket

import trio

from asyncapy import Server
from asyncapy.core import Client, Packet, SharedPacket

NEWS = '{"news":"a line of a chat"}'
READY = (len(NEWS) + 2).to_bytes(4, "big") + bytes((22, 0)) + NEWS.encode()

sockets: list[socket.socket] = []


class Listener(socket.socket):
    """Keeps the sockets that it accepts."""

    def accept(self) -> tuple[socket.socket, object]:
        """Accept a connection."""
        sock, address = super().accept()
        sockets.append(sock)
        return sock, address


server = Server(max_connections=20_000)


@server.operation("enter")
async def enter(client: Client, packet: Packet) -> Packet:
    """Answer, so that the load knows that its connection has a session."""
    return packet


@server.operation("push")
async def push(client: Client, packet: Packet) -> Packet:
    """Send a packet to all other sessions."""
    news = SharedPacket(NEWS)
    for session in server.sessions:
        if session is not client.session:
            session.send_nowait(news)
    return packet


@server.operation("write")
async def write(client: Client, packet: Packet) -> Packet:
    """Send the same bytes to the sockets of all other sessions."""
    for sock in sockets[1:]:
        sock.send(READY)
    return packet


async def main() -> None:
    """Serve on a free port."""
    listener = Listener()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    await server.serve(listeners=[listener])


trio.run(main)
