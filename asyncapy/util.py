"""The factory of API keys."""

from asyncapy_core import APIKeyFactory

__all__ = ["APIKeyFactory"]
