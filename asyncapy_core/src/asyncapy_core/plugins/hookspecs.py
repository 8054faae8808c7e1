"""The whole plugin API, on one page.

A plugin is a module or an object with functions marked `hookimpl`, named by an entry point in the group ``asyncapy``.
An implementation declares the arguments that it needs, and no others. No hook is called for a packet. Plugins are
imported, and the hooks that collect are called, by one thread at a time; an import or a hook may use the filters,
codecs and key stores of other plugins.

A plugin with options has a pydantic model as its attribute ``asyncapy_options``. The model validates the section
``[plugin:NAME]`` of an INI file, the table ``[plugins.NAME]`` of a TOML file, the argument ``plugin_options`` of a
server, and variables ``ASYNCAPY_PLUGIN_NAME__OPTION``; unknown names are forbidden. Hooks with an argument ``options``
get the instance, or None if the plugin has no such model.

Plugins are called in the order of their names. ``hookimpl(tryfirst=True)`` is called before all others, and
``hookimpl(trylast=True)`` after them. A plugin may implement a hook several times, with ``hookimpl(specname="...")``;
all of these are called. Wrappers are not supported.

A plugin with ``asyncapy_after = ("metrics",)`` is called after the plugin ``metrics`` if that is there, whatever
``tryfirst`` and ``trylast`` say, and shut down before it. A plugin with ``asyncapy_requires = ("metrics",)`` is, too,
and is not used without it. Plugins that name each other in a circle are not used.

``ASYNCAPY_TRACE_PLUGINS=1`` writes a line for each call of a hook.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

import pluggy

from asyncapy_core.keys.store import KeyStore
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter

if TYPE_CHECKING:
    import trio

    from asyncapy_core.interfaces import HandlerInterface, ServerInterface
    from asyncapy_core.routing.router import Route
    from asyncapy_core.session import Client

PROJECT: Final = "asyncapy"
"""The entry-point group, and the project name of pluggy's markers."""

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)

HandlerCall = Callable[[Any, Any], Awaitable[object]]
"""``async (client, packet)``: a handler as the server calls it. Its result is the answer."""


@hookspec
def asyncapy_codecs(options: Any) -> Iterable[Codec]:  # type: ignore[empty-body]  # a specification has no body
    """Return the codecs of this plugin. Wire ids 2 to 255 are free for plugins.

    When: a server starts, a client is created, and for ``asyncapy plugins``.
    How often: once for each.
    Order: the plugins in their order. A name or wire id of two codecs belongs to neither.
    May raise: an exception quarantines the plugin.

    Args:
        options: the options of this plugin; for a client, the options without a configuration file.
    """


@hookspec
def asyncapy_filters() -> Mapping[str, type[Filter]]:  # type: ignore[empty-body]  # a specification has no body
    """Return filter classes by name: with ``{"Spam": SpamFilter}``, users write ``Filters.Spam(...)``.

    Filters are created before a server has its options. A filter that needs those of its plugin finds them when it
    checks a packet: `asyncapy_setup` sets ``server.state.spam = options``, and the filter reads
    ``client.server.state.spam``.

    When: the program first uses ``Filters``, or a server starts.
    How often: once for each process.
    Order: the plugins in their order. A name of two filters belongs to neither.
    May raise: an exception quarantines the plugin.
    """


@hookspec
def asyncapy_key_stores() -> Mapping[str, Callable[[str], KeyStore]]:  # type: ignore[empty-body]  # a specification has no body
    """Return functions that open a key store, by URL scheme. Each is called with the whole URL.

    When: the program first opens a key store by its URL, or a server starts.
    How often: once for each process.
    Order: the plugins in their order. A scheme of two key stores belongs to neither.
    May raise: an exception quarantines the plugin.
    """


@hookspec
def asyncapy_contracts() -> Iterable[type]:  # type: ignore[empty-body]  # a specification has no body
    """Return the contracts of this plugin, which ``asyncapy plugins test`` runs; no server calls this.

    They are subclasses of the contracts in `asyncapy_core.testing`, and are tested without pytest and its fixtures. A
    filter is tested only if there is a contract for it; a codec is tested in any case.

    When: ``asyncapy plugins test`` runs.
    How often: once.
    Order: the plugins in their order.
    May raise: an exception quarantines the plugin.
    """


@hookspec
def asyncapy_hookspecs() -> object:
    """Return a module or an object with functions marked `hookspec`: hooks that this plugin adds for other plugins.

    Other plugins implement such a hook with `hookimpl`, and this plugin calls it with ``server.hooks.call``. Its name
    begins with the name of this plugin. An implementation is marked with ``hookimpl(optionalhook=True)`` if its plugin
    can do without this one, and its plugin names this one in ``asyncapy_requires`` if it cannot.

    When: the plugins are loaded, after all have been imported.
    How often: once for each process.
    Order: the plugins in the order of their names. A hook of two plugins belongs to neither.
    May raise: an exception quarantines the plugin.
    """


@hookspec
def asyncapy_adapt(function: Callable[..., Any], server: ServerInterface, route: Route, options: Any) -> Any:
    """Return an ``async (client, packet)`` made of a function of another shape, or None if it is not for this plugin.

    The result may be an async generator function. It takes the place of the function, which remains ``function`` of
    the handler. A function that is no handler, and that no plugin adapts, is a TypeError where it is registered.

    When: a function that can be a handler as it is, when the server starts. Any other function, and one that is
        registered while the server serves, when it is registered with the server, or included in it with a router.
    How often: once for each handler of each server.
    Order: the plugins in their order, until one returns a function.
    May raise: a PluginError, for a function that the plugin cannot adapt because of a mistake in it, is raised as it
        is. Any other exception makes the registration a PluginError that names the plugin and the exception.

    Args:
        function: the function.
        server: the server that it is a handler of.
        route: its filters, its group, and the name of its operation.
        options: the options of this plugin.
    """


@hookspec
def asyncapy_setup(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Prepare the plugin before ``server`` opens its port; plain or ``async``.

    Context managers entered into ``server.exit_stack`` are left after the server has stopped, or at once if the setup
    fails. An exception of one is logged with the name of the plugin. One that cancels the server, such as a nursery
    whose task has failed, ends it with a PluginError. Background work belongs into `asyncapy_run`. A plugin that takes
    more than 60 seconds is left out, unless ``plugins_require`` names it: the plugins before it are then shut down, and
    set up again. Handlers that a setup registers are removed at the end, as the next setup registers them again:
    ``server.exit_stack.callback(server.include(router).remove)``.

    When: the server starts. A stop cancels it.
    How often: once for each run of a server, and again if a plugin takes too long.
    Order: one plugin after the other, in their order; then ``Server.setup``.
    May raise: an exception is logged, and the plugin is left out of this run: its other hooks are not called, nor are
        those of plugins that require it. If it is a PluginError or a ConfigError, or if ``plugins_require`` names the
        plugin, the start ends with a PluginError.

    Args:
        server: the server.
        options: the options of this plugin.
    """


@hookspec
def asyncapy_wrap(
    server: ServerInterface, handler: HandlerInterface, call: HandlerCall, options: Any
) -> HandlerCall | None:
    """Return an ``async (client, packet)`` around a handler, or None to leave this handler as it is.

    The result awaits ``call(client, packet)``, and returns its result, which is the answer. An async generator has sent
    its answers when ``call`` returns. A handler for which all plugins return None is as fast as without this hook.

    When: the server has been set up, and has not opened its port; for handlers that are registered later, at once.
    How often: once for each handler and run of a server.
    Order: the wrap of the first plugin is the outermost, and the wraps of `Server.around` are inside all of these.
    May raise: an exception, or a result of another kind, is logged, and the handler is not wrapped by this plugin. If
        ``plugins_require`` names the plugin, the start or the registration is a PluginError.

    Args:
        server: the server.
        handler: the handler, with its ``name``, ``filters``, ``group`` and ``operation``.
        call: the function inside: the handler, or the wrap of the next plugin.
        options: the options of this plugin.
    """


@hookspec
def asyncapy_session(client: Client, options: Any) -> AbstractAsyncContextManager[Any] | None:
    """Return an async context manager around a session, or None.

    Its context variables are seen by all handlers of the session. An implementation is usually an async generator
    function decorated with `contextlib.asynccontextmanager`, below ``@hookimpl``.
    It is entered before the client has sent a byte, as it may greet the client with a packet. So it is also entered for
    connections that never send one, such as the health checks of a load balancer. The version of the session is not
    known then: a packet that is sent there has the form of version 22.

    When: entered when a session has been admitted, before its first packet is read; left when its connection has ended
        and its handlers have, also if the server ends. Entering may take ``timeout`` seconds, leaving 10.
        Code in a shield has 10 seconds more when the server ends.
    How often: once for each session, in version 22 and 23.
    Order: the context manager of the first plugin is entered first and left last; `Server.on_session` is inside.
    May raise: an exception of the context manager ends this session, and is logged with the name of the plugin. If this
        function raises or returns another object, that is logged, and the session goes on without this plugin, unless
        ``plugins_require`` names it.

    Args:
        client: the client of the session.
        options: the options of this plugin.
    """


@hookspec
async def asyncapy_run(server: ServerInterface, options: Any, task_status: trio.TaskStatus[Any]) -> None:
    """Do background work beside the server; ``async``.

    If it takes ``task_status``, the server opens its port after ``task_status.started()``, or after 60 seconds if
    ``plugins_require`` does not name the plugin. A return ends it. It is cancelled when the server has drained, and has
    the rest of ``drain_timeout`` to end. Then shields are removed.

    When: started after the setup of the server, before its port is opened.
    How often: once for each run of a server, and again after an exception: after half a second, then after up to twice
        as long each time, at most 30 seconds.
    Order: the plugins are started in their order, then the functions of `Server.beside`; all of them are cancelled
        together.
    May raise: an exception is logged with the name of the plugin, at most a line a second. If ``plugins_require``
        names the plugin, it stops the server, which then raises a PluginError.

    Args:
        server: the server.
        options: the options of this plugin.
        task_status: tells the server that it may open its port.
    """


@hookspec
def asyncapy_drain(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Prepare for the end of the server, for instance tell a load balancer; plain or ``async``.

    The server goes on accepting connections and handling packets until all plugins have returned.

    When: a stop was requested, and the port is still open. All of them together may take ``drain_timeout``
        seconds; then they are cancelled. After that, the running handlers have ``drain_timeout`` seconds to end.
    How often: once for each run of a server that has opened its port.
    Order: called in the order of the plugins; all ``async`` functions run together.
    May raise: an exception is logged with the name of the plugin, and the server ends as usual.

    Args:
        server: the server.
        options: the options of this plugin.
    """


@hookspec
def asyncapy_shutdown(server: ServerInterface, options: Any) -> Awaitable[None] | None:
    """Undo `asyncapy_setup`; plain or ``async``. It is cancelled after 60 seconds, unless ``plugins_require`` names it.

    When: the last connection of the server is closed, and ``Server.shutdown`` has returned.
    How often: once for each plugin that was set up.
    Order: the reverse order of the setups. With ``tryfirst`` and ``trylast`` here, it is called before or after the
        others, independent of the order of the setups.
    May raise: an exception is logged, and the other plugins are shut down.

    Args:
        server: the server.
        options: the options of this plugin, the same as for `asyncapy_setup`.
    """
