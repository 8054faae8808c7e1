"""Finds plugins, loads those that are allowed, quarantines those that are broken, and calls hooks one at a time.

Knows no plugin by name. Has a loader of its own because pluggy's stops at the first plugin that cannot be imported and
silently drops the second of two that share a name.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from asyncapy_core.codec import Codec
from asyncapy_core.errors import ConfigError, PluginError
from asyncapy_core.filter import Filter
from asyncapy_core.keystore import KeyStore
from asyncapy_core.plugins import hookspecs, provided
from asyncapy_core.plugins.claims import Claims
from asyncapy_core.plugins.options import validate_options
from asyncapy_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from asyncapy_core.server import Server

log = logging.getLogger("asyncapy.plugins")

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
        self._allow = allow
        self._deny = deny
        self._discover = discover
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._records: list[PluginRecord] = []

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """All plugins that were found, whatever became of them, in the order in which their hooks are called."""
        self._load()
        return tuple(self._records)

    @property
    def problems(self) -> tuple[PluginRecord, ...]:
        """The plugins that are quarantined."""
        return tuple(record for record in self.plugins if record.state == "quarantined")

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin by hand, behind those that are there.

        Raises:
            PluginError: the name is taken, or the plugin implements a hook wrongly.
        """
        if any(record.name == name for record in self.plugins):
            raise PluginError(f"there is a plugin {name!r} already; register this one under another name")
        record = PluginRecord(name, plugin=plugin)
        self._admit(record)
        if record.state == "quarantined":
            raise PluginError(f"{record.title}: {record.reason}")
        self._records.append(record)
        for collected in ("filters", "key_stores"):
            self.__dict__.pop(collected, None)

    def restrict(self, allow: Collection[str] | None, deny: Collection[str]) -> None:
        """Add to the lists: only what both allow-lists name, and neither deny-list, is loaded.

        Raises:
            ConfigError: a plugin that this denies is loaded already.
        """
        fine = [record for record in self._records if record.entry_point is not None and not self._denied(record)]
        if allow is not None:
            self._allow = set(allow) if self._allow is None else set(allow).intersection(self._allow)
        self._deny = {*self._deny, *deny}
        for record in fine:
            if record.state == "loaded" and self._denied(record):
                raise ConfigError(
                    f"{record.title} is loaded already, so this server cannot deny it: make the server before you use "
                    "Filters or key stores, set ASYNCAPY_PLUGINS_DENY, or give it plugins=PluginManager(...)"
                )

    def require(self, names: Iterable[str]) -> None:
        """Check that plugins are there and well.

        Raises:
            PluginError: one of them is missing, denied or quarantined; the message says which and why.
        """
        known = {record.name: record for record in self.plugins}
        for name in names:
            record = known.get(name)
            if record is None:
                installed = ", ".join(known) or "none"
                raise PluginError(f"plugin {name!r} is required but not installed (installed: {installed})")
            if record.state != "loaded":
                raise PluginError(f"{record.title} is required but {record.state}: {record.reason}\n{record.traceback}")

    def report(self) -> None:
        """Load what is not loaded yet, so that all that is wrong is in the log from the start."""
        _ = self.filters, self.key_stores

    def codecs(self, options: RawOptions | None = None) -> list[Codec]:
        """Collect what `asyncapy_codecs` brings; one whose name or wire id is contested is left out and reported."""
        ids: Claims[Codec] = Claims("wire id")
        names: Claims[Codec] = Claims("codec")
        for record, codecs in self._collect("asyncapy_codecs", provided.codecs, options):
            for codec in codecs:
                ids.add(record, str(codec.wire_id), codec)
                names.add(record, codec.name, codec)
        agreed = names.agreed()
        return [codec for codec in ids.agreed().values() if codec.name in agreed]

    @functools.cached_property
    def filters(self) -> Claims[type[Filter]]:
        """What `asyncapy_filters` brings, by name."""
        return self._named("asyncapy_filters", "filter", provided.filters)

    @functools.cached_property
    def key_stores(self) -> Claims[Callable[[str], KeyStore]]:
        """What `asyncapy_key_stores` brings, by URL scheme."""
        return self._named("asyncapy_key_stores", "key store scheme", provided.key_stores)

    async def setup(self, server: Server, options: RawOptions, done: list[PluginRecord]) -> None:
        """Call `asyncapy_setup` of one plugin after the other, and put each into ``done``.

        Raises:
            PluginError: an implementation raised; it is the cause.
        """
        for record in self._loaded():
            try:
                await self._call(record, "asyncapy_setup", server=server, options=validate_options(record, options))
            except Exception as error:
                log.debug("%s failed in setup", record.title, exc_info=error)
                raise PluginError(f"{record.title} failed in setup: {type(error).__name__}: {error}") from error
            done.append(record)

    async def shutdown(self, server: Server, options: RawOptions, done: list[PluginRecord]) -> list[Exception]:
        """Call `asyncapy_shutdown` of the plugins in ``done``, last first, all of them; return what was raised."""
        failures: list[Exception] = []
        while done:
            record = done.pop()
            try:
                await self._call(record, "asyncapy_shutdown", server=server, options=validate_options(record, options))
            except Exception as error:
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

    def _load(self) -> None:
        if not self._discover:
            return
        self._discover = False
        from importlib.metadata import entry_points  # noqa: PLC0415  # its import costs more than the rest of this module

        found = [_record(entry_point) for entry_point in entry_points(group=hookspecs.PROJECT)]
        sharing: defaultdict[str, list[PluginRecord]] = defaultdict(list)
        for record in sorted(found, key=lambda record: (record.name, record.distribution)):
            sharing[record.name].append(record)
            self._records.append(record)
        for record in self._records:
            others = [other for other in sharing[record.name] if other is not record]
            if reason := self._denied(record):
                record.state = "denied"
                record.reason = reason
            elif others:
                names = " and ".join(sorted({record.distribution, *(other.distribution for other in others)}))
                self._quarantine(record, f"the name {record.name!r} is claimed by {names}; uninstall one of them")
            else:
                self._import(record)

        for name in {*(self._allow or ()), *self._deny}.difference(sharing):
            log.warning("there is no plugin %r, which is on the list of those to allow or deny", name)

    def _denied(self, record: PluginRecord) -> str:
        """Return why the lists keep a plugin out, or nothing."""
        if record.name in self._deny:
            return "it is on the deny list"
        return "" if self._allow is None or record.name in self._allow else "it is not on the allow list"

    def _import(self, record: PluginRecord) -> None:
        assert record.entry_point is not None
        started = time.perf_counter()
        try:
            record.plugin = record.entry_point.load()
        except Exception as error:
            self._quarantine(record, f"import failed with {type(error).__name__}: {error}", traceback.format_exc())
        else:
            self._admit(record)
        record.import_seconds = time.perf_counter() - started

    def _admit(self, record: PluginRecord) -> None:
        """Check a plugin against the hook specifications, on its own, so that its faults are told as its own."""
        reason = self._fault(record)
        if reason is None:
            record.state = "loaded"
            return
        if self._pluggy.has_plugin(record.name):
            self._pluggy.unregister(name=record.name)
        self._quarantine(record, reason)

    def _fault(self, record: PluginRecord) -> str | None:
        """Register a plugin with pluggy; return what is wrong with it, or None."""
        try:
            self._pluggy.register(record.plugin, record.name)
            self._pluggy.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            return _hint(str(error))
        callers = self._pluggy.get_hookcallers(record.plugin) or []
        record.hooks = tuple(sorted(caller.name for caller in callers))
        for caller in callers:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is record.plugin and (implementation.wrapper or implementation.hookwrapper):
                    return f"{caller.name} is a hook wrapper, which is not supported: each plugin is called on its own"
        return None

    def _quarantine(self, record: PluginRecord, reason: str, trace: str = "") -> None:
        record.quarantine(reason, trace)
        log.error("%s is quarantined: %s", record.title, reason)

    def _loaded(self) -> Iterator[PluginRecord]:
        return (record for record in self.plugins if record.state == "loaded")

    def _implementation(self, record: PluginRecord, hook: str) -> Any:
        for implementation in getattr(self._pluggy.hook, hook).get_hookimpls():
            if implementation.plugin is record.plugin:
                return implementation
        return None

    async def _call(self, record: PluginRecord, hook: str, **arguments: Any) -> None:
        implementation = self._implementation(record, hook)
        if implementation is not None:
            result = implementation.function(*(arguments[name] for name in implementation.argnames))
            if inspect.isawaitable(result):
                await result

    def _collect(
        self, hook: str, read: Callable[[Any], T], options: RawOptions | None = None
    ) -> Iterator[tuple[PluginRecord, T]]:
        """Call a hook of one plugin after the other, and ``read`` what it returns; one that fails is quarantined."""
        for record in self._loaded():
            implementation = self._implementation(record, hook)
            if implementation is None:
                continue
            arguments: dict[str, Any] = {}
            if "options" in implementation.argnames:
                try:
                    arguments["options"] = validate_options(record, options or {})
                except ConfigError as error:
                    if options is not None:
                        raise
                    log.warning("%s is left out, as there is no configuration here: %s", record.title, error)
                    continue
            try:
                result = read(implementation.function(*(arguments[name] for name in implementation.argnames)))
            except Exception as error:
                self._quarantine(record, f"{hook} raised {type(error).__name__}: {error}", traceback.format_exc())
            else:
                yield record, result

    def _named(self, hook: str, kind: str, read: Callable[[Any], dict[str, T]]) -> Claims[T]:
        claims: Claims[T] = Claims(kind)
        for record, values in self._collect(hook, read):
            for name, value in values.items():
                claims.add(record, name, value)
        claims.report()
        return claims


@functools.cache
def default_manager() -> PluginManager:
    """Return the one manager of this process, which `Filters.X` and key-store URLs are resolved with.

    ``ASYNCAPY_PLUGINS_ALLOW`` and ``ASYNCAPY_PLUGINS_DENY`` are lists of names, separated by commas.
    """
    allow = os.environ.get("ASYNCAPY_PLUGINS_ALLOW")
    deny = os.environ.get("ASYNCAPY_PLUGINS_DENY", "")
    return PluginManager(allow=None if allow is None else _names(allow), deny=_names(deny))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _record(entry_point: EntryPoint) -> PluginRecord:
    distribution = entry_point.dist
    if distribution is None:
        return PluginRecord(entry_point.name, "(unknown)", entry_point=entry_point)
    return PluginRecord(entry_point.name, distribution.name, distribution.version, entry_point=entry_point)


def _hint(message: str) -> str:
    """Return pluggy's message on one line, with the hook that was probably meant."""
    message = " ".join(message.split())
    known = [name for name in vars(hookspecs) if name.startswith("asyncapy_")]
    for word in message.replace("'", " ").split():
        if word.startswith("asyncapy") and word not in known:
            close = difflib.get_close_matches(word, known, n=1)
            return f"{message} (did you mean {close[0]}?)" if close else f"{message} (hooks: {', '.join(known)})"
    return message
