"""The client of the documentation, which connects to a server; not the `Client` that handlers are given."""

from asyncapy_core.remote import Client

__all__ = ["Client"]
