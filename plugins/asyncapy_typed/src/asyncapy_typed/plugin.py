"""The plugin module, which the entry point ``typed`` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncapy_core import hookimpl
from asyncapy_core.errors import PluginError
from asyncapy_typed.adapting import adapt

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.routing.router import Route


@hookimpl
def asyncapy_adapt(function: Callable[..., Any], server: ServerInterface, route: Route) -> Any:
    """Return the handler for a function with models or dependencies.

    Raises:
        PluginError: the function cannot be called for a packet; the message gives the reason.
    """
    try:
        return adapt(function, server, route)
    except TypeError as error:
        raise PluginError(str(error)) from error
