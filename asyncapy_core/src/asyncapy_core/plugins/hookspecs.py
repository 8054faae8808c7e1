"""The whole plugin API, on one page.

A plugin is a module or an object with functions marked `hookimpl`, named by an entry point in the group ``asyncapy``.
An implementation declares the arguments that it needs, and no others. No hook is called for a packet: filters and key
stores are collected on first use, codecs once for each server and client. Plugins are imported, and these three hooks
are called, by one thread at a time; an import or a hook may use the filters, codecs and key stores of other plugins.

A plugin with options has a pydantic model as its attribute ``asyncapy_options``. The model validates the section
``[plugin:NAME]`` of an INI file, the table ``[plugins.NAME]`` of a TOML file, the argument ``plugin_options`` of a
server, and variables ``ASYNCAPY_PLUGIN_NAME__OPTION``; unknown names are forbidden. Hooks with an argument ``options``
get the instance, or None if the plugin has no such model.

Plugins are called in the order of their names. ``hookimpl(tryfirst=True)`` is called before all others, and
``hookimpl(trylast=True)`` after them. A plugin may implement a hook several times, with ``hookimpl(specname="...")``;
all of these are called. Wrappers are not supported.
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
"""The entry-point group, and the project name of pluggy's markers."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)


@hookspec
def asyncapy_codecs(options: Any) -> Iterable[Codec]:  # type: ignore[empty-body]  # a specification has no body
    """Return the codecs of this plugin. Wire ids 2 to 255 are free for plugins."""


@hookspec
def asyncapy_filters() -> Mapping[str, type[Filter]]:  # type: ignore[empty-body]  # a specification has no body
    """Return filter classes by name: with ``{"Spam": SpamFilter}``, users write ``Filters.Spam(...)``."""


@hookspec
def asyncapy_key_stores() -> Mapping[str, Callable[[str], KeyStore]]:  # type: ignore[empty-body]  # a specification has no body
    """Return functions that open a key store, by URL scheme. Each is called with the whole URL."""


@hookspec
def asyncapy_contracts() -> Iterable[type]:  # type: ignore[empty-body]  # a specification has no body
    """Return the contracts of this plugin, which ``asyncapy plugins test`` runs; no server calls this.

    They are subclasses of the contracts in `asyncapy_core.testing`, and are tested without pytest and its fixtures. A
    filter is tested only if there is a contract for it; a codec is tested in any case.
    """


@hookspec
def asyncapy_setup(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Prepare the plugin before ``server`` opens its port; plain or ``async``. An exception ends the start.

    Context managers entered into ``server.exit_stack`` are closed after the server has stopped.
    """


@hookspec
def asyncapy_shutdown(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Undo `asyncapy_setup`; plain or ``async``. Called for each plugin that was set up, in reverse order.

    With ``tryfirst`` and ``trylast`` here, it is called before or after the others, whatever the order of the setups.
    """
