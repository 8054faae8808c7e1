"""Clients that connect to a server. `asyncapy.core.Client`, the argument of handlers, is another class.

`Client` is the documented client, for synchronous programs; `AsyncClient` and `Pool` are for programs that run trio.
`ReplyStream` and `EventStream` are results of their methods.
"""

from asyncapy_core.client import AsyncClient, Client, EventStream, Pool, ReplyStream

__all__ = ["AsyncClient", "Client", "EventStream", "Pool", "ReplyStream"]
