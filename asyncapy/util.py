"""The factory of API keys, and the record of a key."""

from asyncapy_core import APIKeyFactory, KeyRecord

__all__ = ["APIKeyFactory", "KeyRecord"]
