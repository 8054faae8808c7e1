"""The plugin host: `hookspecs` is the whole plugin API, `loading` imports plugins, `manager` calls them."""

from asyncapy_core.plugins.hookspecs import hookimpl
from asyncapy_core.plugins.loading import Restriction
from asyncapy_core.plugins.manager import PluginManager, default_manager
from asyncapy_core.plugins.record import PluginRecord

__all__ = ["PluginManager", "PluginRecord", "Restriction", "default_manager", "hookimpl"]
