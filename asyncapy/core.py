"""The arguments of handlers, `Client` and `Packet`; the `Session` of a client; and `Handler`, which wraps a handler."""

from asyncapy_core import Client, Handler, Packet, Session, SharedPacket

__all__ = ["Client", "Handler", "Packet", "Session", "SharedPacket"]
