"""The core of AsyncAPY: the server, the clients, dispatch and the plugin host, without any codec, filter or store.

What is named here is public, and so are the modules `asyncapy_core.errors`, `asyncapy_core.plugins`,
`asyncapy_core.storage` and `asyncapy_core.testing`; everything else may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

from asyncapy_core import errors
from asyncapy_core.codec import Codec
from asyncapy_core.dispatch import Handler
from asyncapy_core.filter import Filter
from asyncapy_core.filters import Filters
from asyncapy_core.keys import APIKeyFactory
from asyncapy_core.keystore import KeyRecord, KeyStore, MemoryKeyStore
from asyncapy_core.packet import Packet
from asyncapy_core.plugins import PluginManager, hookimpl
from asyncapy_core.server import Server
from asyncapy_core.session import Client, Session

if TYPE_CHECKING:
    from asyncapy_core import remote
    from asyncapy_core.config import ServerConfig

__all__ = [
    "APIKeyFactory",
    "Client",
    "Codec",
    "Filter",
    "Filters",
    "Handler",
    "KeyRecord",
    "KeyStore",
    "MemoryKeyStore",
    "Packet",
    "PluginManager",
    "Server",
    "ServerConfig",
    "Session",
    "__version__",
    "errors",
    "hookimpl",
    "remote",
]

__version__ = "0.6.0.dev0"


def __getattr__(name: str) -> Any:
    """Import what a program may well do without when it is asked for: pydantic alone costs more than all the rest."""
    if name == "ServerConfig":
        return importlib.import_module("asyncapy_core.config").ServerConfig
    if name == "remote":
        return importlib.import_module("asyncapy_core.remote")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
