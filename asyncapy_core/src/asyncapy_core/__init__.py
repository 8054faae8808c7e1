"""The core of AsyncAPY: the server, the clients, dispatch and the plugin host. Codecs, filters and stores are plugins.

The names in ``__all__`` are public, and so are `asyncapy_core.client`, `asyncapy_core.errors`, `asyncapy_core.plugins`,
`asyncapy_core.storage` and `asyncapy_core.testing`. Everything else may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

from asyncapy_core import errors
from asyncapy_core.errors import Failure
from asyncapy_core.keys.factory import APIKeyFactory
from asyncapy_core.keys.store import BatchKeyStore, KeyRecord, KeyStore, MemoryKeyStore, WatchableKeyStore
from asyncapy_core.net.transport import Transport, Woken
from asyncapy_core.plugins import PluginManager, hookimpl, hookspec
from asyncapy_core.plugins.namespace import Filters
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.protocol.packet import Packet, SharedPacket
from asyncapy_core.routing.filter import Filter
from asyncapy_core.routing.handler import Handler
from asyncapy_core.routing.registration import Registration
from asyncapy_core.routing.router import Router
from asyncapy_core.routing.selection import Prefix
from asyncapy_core.server.server import Server
from asyncapy_core.session import Client, Session
from asyncapy_core.statistics import Durations, HandlerStatistics, ServerStatistics

if TYPE_CHECKING:
    from asyncapy_core import client
    from asyncapy_core.config import ServerConfig

__all__ = [
    "APIKeyFactory",
    "BatchKeyStore",
    "Client",
    "Codec",
    "Durations",
    "Failure",
    "Filter",
    "Filters",
    "Handler",
    "HandlerStatistics",
    "KeyRecord",
    "KeyStore",
    "MemoryKeyStore",
    "Packet",
    "PluginManager",
    "Prefix",
    "Registration",
    "Router",
    "Server",
    "ServerConfig",
    "ServerStatistics",
    "Session",
    "SharedPacket",
    "Transport",
    "WatchableKeyStore",
    "Woken",
    "__version__",
    "client",
    "errors",
    "hookimpl",
    "hookspec",
]

__version__ = "0.6.0.dev0"


def __getattr__(name: str) -> Any:
    """Import on first use: pydantic takes longer to import than everything else, and a server needs no client."""
    if name == "ServerConfig":
        return importlib.import_module("asyncapy_core.config").ServerConfig
    if name == "client":
        return importlib.import_module("asyncapy_core.client")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
