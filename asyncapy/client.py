"""Clients, which connect to a server; not the `Client` that handlers are given.

`Client` is that of the documentation, for plain programs; `AsyncClient` and `Pool` are for programs that run trio.
"""

from asyncapy_core.client import AsyncClient, Client, Pool

__all__ = ["AsyncClient", "Client", "Pool"]
