"""Clients of a server: `replies` and `pipeline` without I/O, the synchronous client, the trio client and its pool."""

from asyncapy_core.client.async_client import AsyncClient
from asyncapy_core.client.client import Client
from asyncapy_core.client.pool import Pool

__all__ = ["AsyncClient", "Client", "Pool"]
