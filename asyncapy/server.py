"""The server."""

from asyncapy_core import Server

__all__ = ["Server"]
