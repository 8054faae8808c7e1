"""The plugin host: `hookspecs` is the whole plugin API, `loading` imports plugins, `manager` calls them."""

from asyncapy_core.plugins.bound_hook import BoundHook
from asyncapy_core.plugins.hookspecs import hookimpl, hookspec
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.plugins.record import PluginRecord
from asyncapy_core.plugins.restriction import Restriction
from asyncapy_core.plugins.server_hooks import ServerHooks

__all__ = [
    "BoundHook",
    "PluginManager",
    "PluginRecord",
    "Restriction",
    "ServerHooks",
    "default_manager",
    "hookimpl",
    "hookspec",
]
