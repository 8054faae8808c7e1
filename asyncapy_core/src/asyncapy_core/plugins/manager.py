"""What plugins bring, and what they are told: calls hooks one plugin at a time, and quarantines a plugin that fails.

Knows no plugin by name; which plugins there are is the business of `loading`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from asyncapy_core.errors import ConfigError, PluginError
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.keys.store import KeyStore
from asyncapy_core.logs import safe_str
from asyncapy_core.plugins import hook_results
from asyncapy_core.plugins.loading import PluginLoader, Restriction
from asyncapy_core.plugins.options import validate_options
from asyncapy_core.plugins.record import PluginRecord
from asyncapy_core.plugins.registry import NameRegistry
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface

log: logging.Logger = logging.getLogger("asyncapy.plugins")

T = TypeVar("T")

RawOptions = Mapping[str, Mapping[str, Any]]
"""Options as a configuration file gave them, by plugin name."""


class PluginManager:
    """The plugins of one process, or of one server that was given its own.

    Nothing is searched or imported before something is asked for.

    Args:
        allow: only plugins of these names are loaded; None allows all.
        deny: plugins of these names are not loaded, nor imported.
        discover: False leaves out installed plugins, so that only those given to `register` are there.
    """

    def __init__(
        self, *, allow: Collection[str] | None = None, deny: Collection[str] = (), discover: bool = True
    ) -> None:
        self._loader = PluginLoader(Restriction(allow, deny), discover=discover)
        self._claims: dict[str, NameRegistry[Any]] = {}

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """All plugins that were found, whatever became of them, in the order in which their hooks are called."""
        return tuple(self._loader.records)

    @property
    def problems(self) -> tuple[PluginRecord, ...]:
        """The plugins that are quarantined."""
        return tuple(record for record in self.plugins if record.state == "quarantined")

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin by hand, behind those that are there.

        Raises:
            PluginError: the name is taken, or the plugin implements a hook wrongly.
        """
        self._loader.add(plugin, name)
        self._claims.clear()

    def restrict(self, restriction: Restriction, replaced: Restriction | None = None) -> None:
        """Have only those plugins loaded that this restriction, too, allows; in place of an earlier one, if given.

        Raises:
            ConfigError: a plugin that this denies is loaded already.
        """
        if self._loader.restrict(restriction, replaced):
            self._claims.clear()

    def require(self, names: Iterable[str]) -> None:
        """Check that plugins are there and well.

        Raises:
            PluginError: one of them is missing, denied or quarantined; the message says which and why.
        """
        self._loader.require(names)

    def load_all(self) -> None:
        """Load what is not loaded yet, so that all that is wrong is in the log from the start."""
        _ = self.filters, self.key_stores

    def codecs(self, options: RawOptions | None = None) -> list[Codec]:
        """Collect what `asyncapy_codecs` brings; one whose name or wire id is contested is left out and reported.

        Args:
            options: those of a server; None where there is no configuration, as in clients: then a plugin that cannot
                do without is left out, with a warning.

        Raises:
            ConfigError: a plugin does not take the options that it is given, or lacks what it needs.
        """
        ids: NameRegistry[Codec] = NameRegistry("wire id")
        names: NameRegistry[Codec] = NameRegistry("codec")
        for record, codecs in self._collect("asyncapy_codecs", hook_results.codecs, options):
            for codec in codecs:
                ids.add(record, str(codec.wire_id), codec)
                names.add(record, codec.name, codec)
        agreed = names.agreed()
        return [codec for codec in ids.agreed().values() if codec.name in agreed]

    @property
    def filters(self) -> NameRegistry[type[Filter]]:
        """What `asyncapy_filters` brings, by name."""
        return self._collected("asyncapy_filters", "filter", hook_results.filters)

    @property
    def key_stores(self) -> NameRegistry[Callable[[str], KeyStore]]:
        """What `asyncapy_key_stores` brings, by URL scheme."""
        return self._collected("asyncapy_key_stores", "key store scheme", hook_results.key_stores)

    async def setup(self, server: ServerInterface, options: RawOptions, done: list[PluginRecord]) -> None:
        """Call `asyncapy_setup` of one plugin after the other, and put each into ``done``.

        Raises:
            PluginError: an implementation raised; it is the cause.
        """
        for record in self._loaded():
            try:
                await self._call(record, "asyncapy_setup", server=server, options=validate_options(record, options))
            except BaseException as error:  # a plugin may raise anything
                if _goes_through(error):
                    raise
                log.debug("%s failed in setup", record.title, exc_info=error)
                raise PluginError(
                    f"{record.title} failed in setup: {type(error).__name__}: {safe_str(error)}"
                ) from error
            done.append(record)

    async def shutdown(
        self, server: ServerInterface, options: RawOptions, done: list[PluginRecord]
    ) -> list[BaseException]:
        """Call `asyncapy_shutdown` of the plugins in ``done``, last first, all of them; return what was raised."""
        failures: list[BaseException] = []
        while done:
            record = done.pop()
            try:
                await self._call(record, "asyncapy_shutdown", server=server, options=validate_options(record, options))
            except BaseException as error:  # a plugin may raise anything
                if _goes_through(error):
                    raise
                error.add_note(f"raised by {record.title} in shutdown")
                failures.append(error)
        return failures

    def check_options(self, options: RawOptions) -> None:
        """Validate all options before anything is started.

        Raises:
            ConfigError: a plugin does not take what it is given, lacks what it needs, or is not there.
        """
        known = {record.name: record for record in self.plugins}
        for name in (*known, *options):
            validate_options(known.get(name) or PluginRecord(name, "no installed package"), options)

    def _loaded(self) -> Iterator[PluginRecord]:
        return (record for record in self.plugins if record.state == "loaded")

    async def _call(self, record: PluginRecord, hook: str, **arguments: Any) -> None:
        implementation = self._loader.implementation(record, hook)
        if implementation is not None:
            result = implementation.function(*(arguments[name] for name in implementation.argnames))
            if inspect.isawaitable(result):
                await result

    def _collect(
        self, hook: str, read: Callable[[Any], T], options: RawOptions | None = None
    ) -> Iterator[tuple[PluginRecord, T]]:
        """Call a hook of one plugin after the other, and ``read`` what it returns; one that fails is quarantined."""
        for record in self._loaded():
            implementation = self._loader.implementation(record, hook)
            if implementation is None:
                continue
            arguments: dict[str, Any] = {}
            if "options" in implementation.argnames:
                try:
                    arguments["options"] = validate_options(record, options or {})
                except ConfigError as error:
                    if options is not None:
                        raise
                    if not record.left_out:  # once, as a program may make a client for each request
                        record.left_out = True
                        log.warning("%s is left out, as there is no configuration here: %s", record.title, error)
                    continue
            try:
                result = read(implementation.function(*(arguments[name] for name in implementation.argnames)))
            except BaseException as error:  # a plugin may raise anything
                if is_interrupt(error):
                    raise
                reason = f"{hook} raised {type(error).__name__}: {safe_str(error)}"
                self._loader.quarantine(record, reason, traceback.format_exc())
            else:
                yield record, result

    def _collected(self, hook: str, kind: str, read: Callable[[Any], dict[str, T]]) -> NameRegistry[T]:
        """Collect what a hook brings by name, once; but not for good while some plugins are still to come."""
        if hook in self._claims:
            return self._claims[hook]
        claims: NameRegistry[T] = NameRegistry(kind)
        for record, values in self._collect(hook, read):
            for name, value in values.items():
                claims.add(record, name, value)
        if not self._loader.loading:
            self._claims[hook] = claims
            claims.log_complaints()
        return claims


@functools.cache
def default_manager() -> PluginManager:
    """Return the one manager of this process, which `Filters.X` and key-store URLs are resolved with.

    ``ASYNCAPY_PLUGINS_ALLOW`` and ``ASYNCAPY_PLUGINS_DENY`` are lists of names, separated by commas.
    """
    allow = os.environ.get("ASYNCAPY_PLUGINS_ALLOW")
    deny = os.environ.get("ASYNCAPY_PLUGINS_DENY", "")
    return PluginManager(allow=None if allow is None else _names(allow), deny=_names(deny))


def _goes_through(error: BaseException) -> bool:
    """Return True for a Ctrl+C, and for a cancellation where the server is cancelled."""
    cancelled = trio.current_effective_deadline() == -math.inf

    def goes_through(leaf: BaseException) -> bool:
        return (isinstance(leaf, trio.Cancelled) and cancelled) or is_interrupt(leaf)

    return error.subgroup(goes_through) is not None if isinstance(error, BaseExceptionGroup) else goes_through(error)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
