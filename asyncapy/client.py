"""Clients that connect to a server. `asyncapy.core.Client`, the argument of handlers, is another class.

`Client` is the documented client, for synchronous programs; `AsyncClient` and `Pool` are for programs that run trio.
"""

from asyncapy_core.client import AsyncClient, Client, Pool

__all__ = ["AsyncClient", "Client", "Pool"]
