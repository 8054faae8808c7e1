"""Clients of a server: `pipeline` and `exchange` without I/O, the synchronous client, the trio client and its pool."""

from asyncapy_core.client.async_client import AsyncClient
from asyncapy_core.client.client import Client
from asyncapy_core.client.events import EventStream
from asyncapy_core.client.pool import Pool
from asyncapy_core.client.streaming import ReplyStream
from asyncapy_core.client.typed_calls import TypedRequest, TypedStream, TypedStreamRequest

__all__ = [
    "AsyncClient",
    "Client",
    "EventStream",
    "Pool",
    "ReplyStream",
    "TypedRequest",
    "TypedStream",
    "TypedStreamRequest",
]
