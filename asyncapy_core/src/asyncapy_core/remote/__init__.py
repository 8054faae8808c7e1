"""Clients of a server: `replies` and `pipeline` without I/O, the synchronous client, the trio client and its pool."""

from asyncapy_core.remote.async_client import AsyncClient
from asyncapy_core.remote.client import Client
from asyncapy_core.remote.pool import Pool

__all__ = ["AsyncClient", "Client", "Pool"]
