"""The server; and `Router`, for handlers in modules of their own."""

from asyncapy_core import Registration, Router, Server

__all__ = ["Registration", "Router", "Server"]
