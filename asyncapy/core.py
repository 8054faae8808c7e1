"""What handlers are given, and what they are wrapped in."""

from asyncapy_core import Client, Handler, Packet, Session

__all__ = ["Client", "Handler", "Packet", "Session"]
