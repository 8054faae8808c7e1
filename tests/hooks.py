"""Plugins made of functions, and managers that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncapy_codecs.plugin
from asyncapy_core import PluginManager, hookimpl


class Plugin:
    """A plugin with these functions as hooks, and with further attributes.

    Args:
        attributes: ``asyncapy_options``, ``asyncapy_after`` and ``asyncapy_requires``.
        hooks: the functions, by hook.
    """

    def __init__(self, attributes: dict[str, Any] | None = None, /, **hooks: Callable[..., Any]) -> None:
        vars(self).update({name: hookimpl(function) for name, function in hooks.items()})
        vars(self).update(attributes or {})


def manager(**plugins: object) -> PluginManager:
    """Return a manager with the codecs and these plugins."""
    made = PluginManager(discover=False)
    made.register(asyncapy_codecs.plugin, "codecs")
    for name, plugin in plugins.items():
        made.register(plugin, name)
    return made
