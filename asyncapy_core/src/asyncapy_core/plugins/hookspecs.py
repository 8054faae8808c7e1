"""The whole plugin API, on one page.

A plugin is a module or an object with functions marked `hookimpl`, named by an entry point in the group ``asyncapy``.
An implementation takes the arguments it needs and leaves out the rest. Nothing here is called for a packet: what
plugins provide is collected when it is first needed, and codecs once for each server and client.

A plugin that has options carries a pydantic model as its attribute ``asyncapy_options``. The section
``[plugin:NAME]`` of an INI file, or the table ``[plugins.NAME]`` of a TOML file, is validated by it, with unknown names
forbidden; hooks that take ``options`` get the instance, or None from a plugin without such a model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pluggy

from asyncapy_core.keys.store import KeyStore
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface

PROJECT: Final = "asyncapy"
"""The entry-point group, and the name that pluggy's markers carry."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


@hookspec
def asyncapy_codecs(options: Any) -> Iterable[Codec]:  # type: ignore[empty-body]  # a specification has no body
    """Return the codecs that this plugin brings. Wire ids 2 to 255 are free to claim."""


@hookspec
def asyncapy_filters() -> Mapping[str, type[Filter]]:  # type: ignore[empty-body]  # a specification has no body
    """Return filter classes by name: ``{"Spam": SpamFilter}`` is used as ``Filters.Spam(...)``."""


@hookspec
def asyncapy_key_stores() -> Mapping[str, Callable[[str], KeyStore]]:  # type: ignore[empty-body]  # a specification has no body
    """Return functions that open a key store, by the URL scheme they are for; each is given the whole URL."""


@hookspec
def asyncapy_setup(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Prepare something before ``server`` opens its port; plain or ``async``. An exception keeps it from starting.

    ``server.exit_stack`` closes what is entered into it, after the server has stopped.
    """


@hookspec
def asyncapy_shutdown(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Undo what `asyncapy_setup` did; plain or ``async``. Called in reverse order, for each plugin that was set up."""
