"""Clients of a server: a half without I/O, `conversation`, and the synchronous client, `client`."""

from asyncapy_core.remote.client import Client

__all__ = ["Client"]
