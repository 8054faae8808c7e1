"""Extra utilities."""

from asyncapy_core import APIKeyFactory

__all__ = ["APIKeyFactory"]
