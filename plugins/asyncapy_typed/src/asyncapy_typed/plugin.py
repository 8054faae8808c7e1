"""The plugin module, which the entry point ``typed`` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncapy_core import hookimpl
from asyncapy_typed.adapting import adapt

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.routing.router import Route


@hookimpl
def asyncapy_adapt(function: Callable[..., Any], server: ServerInterface, route: Route) -> Any:
    """Return the handler for a function with models or dependencies."""
    return adapt(function, server, route)
