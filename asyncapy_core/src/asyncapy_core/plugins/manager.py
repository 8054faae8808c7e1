"""`PluginManager`: collects codecs, filters and key stores from plugins. `server_hooks` calls the other hooks.

Hooks are called one plugin at a time; a plugin that raises is quarantined. `loading` finds and imports the plugins.
A manager may be used by several threads: it owns `HOST_LOCK` while it collects, so that they see whole results only.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asyncapy_core.defaults import PLUGIN_NAME, split_list
from asyncapy_core.errors import ConfigError
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.keys.store import KeyStore
from asyncapy_core.logs import reason_of, traceback_of
from asyncapy_core.plugins import hook_results
from asyncapy_core.plugins.host_lock import HOST_LOCK
from asyncapy_core.plugins.implementations import Implementation, InvalidPlugin
from asyncapy_core.plugins.loading import PluginLoader
from asyncapy_core.plugins.options import refuse_options, validate_options
from asyncapy_core.plugins.ordering import in_order
from asyncapy_core.plugins.record import PluginRecord
from asyncapy_core.plugins.registry import NameRegistry
from asyncapy_core.plugins.restriction import Restriction
from asyncapy_core.protocol.codec import Codec
from asyncapy_core.routing.filter import Filter

if TYPE_CHECKING:
    from pydantic import BaseModel

    from asyncapy_core.plugins.specifications import Specification

log: logging.Logger = logging.getLogger("asyncapy.plugins")

T = TypeVar("T")

RawOptions = Mapping[str, Mapping[str, Any]]
"""The options of a configuration file, by plugin."""


class PluginManager:
    """The plugins of a process, or of one server with plugins of its own. They are found and imported on first use.

    Args:
        allow: the names of the plugins to load; None loads all.
        deny: the names of plugins that are not imported. If one of them is not installed, each use of the plugins is a
            ConfigError: a misspelt name would deny nothing.
        discover: False leaves out installed plugins, so that there are only those in ``folder`` and those passed to
            `register`.
        folder: a folder whose Python files and packages are plugins, too, each with the name of its file. If
            it cannot be read, each use of the plugins is a ConfigError.
    """

    def __init__(
        self,
        *,
        allow: Collection[str] | None = None,
        deny: Collection[str] = (),
        discover: bool = True,
        folder: str | Path | None = None,
    ) -> None:
        place = None if folder is None else Path(folder).absolute()
        self._loader = PluginLoader(Restriction(allow, deny), discover=discover, folder=place)
        self._registries: dict[str, NameRegistry[Any]] = {}

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """All plugins, in any state, in the order in which their hooks are called."""
        return tuple(self._loader.records)

    @property
    def loaded(self) -> tuple[PluginRecord, ...]:
        """The plugins that can be used."""
        return tuple(record for record in self.plugins if record.state == "loaded")

    @property
    def problems(self) -> tuple[PluginRecord, ...]:
        """The quarantined plugins."""
        return tuple(record for record in self.plugins if record.state == "quarantined")

    @property
    def names(self) -> frozenset[str]:
        """The names of all plugins, which need not be imported for this."""
        return self._loader.names

    @property
    def discovers(self) -> bool:
        """Whether these are the installed plugins, and those passed to `register`."""
        return self._loader.discovers

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Folders of metadata that are not read, as an interrupted pip has left them behind."""
        _ = self.plugins
        return tuple(self._loader.leftovers)

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin by hand, after the others.

        Raises:
            PluginError: the name is taken or denied, or a hook implementation is wrong.
        """
        with HOST_LOCK:
            self._loader.add(plugin, name)
            self._registries.clear()

    def restrict(self, restriction: Restriction, replaced: Restriction | None = None) -> None:
        """Add a restriction, or replace an earlier one. Plugins are loaded if all restrictions allow them.

        Raises:
            ConfigError: a plugin that the restriction denies is loaded already, or is not installed.
        """
        with HOST_LOCK:
            if self._loader.restrict(restriction, replaced):
                self._registries.clear()

    def refusal(self, *names: str) -> str:
        """Return the reason why the lists deny code with these names, such as a command, or ``""``."""
        with HOST_LOCK:
            return self._loader.refusal(*names)

    def require(self, names: Iterable[str]) -> None:
        """Check that plugins are loaded.

        Raises:
            PluginError: one is missing, denied or quarantined; the message names it and the reason.
        """
        self._loader.require(names)

    def specification(self, hook: str) -> Specification | None:
        """Return a hook that a plugin brings for others, or None."""
        _ = self.plugins
        return self._loader.specifications.find(hook)

    def quarantine(self, record: PluginRecord, reason: str) -> None:
        """Exclude a plugin from use, and log the reason."""
        with HOST_LOCK:
            self._loader.quarantine(record, reason)

    def load_all(self) -> None:
        """Load all plugins, so that their mistakes are logged when the server starts."""
        _ = self.filters, self.key_stores

    def codecs(self, options: RawOptions | None = None) -> list[Codec]:
        """Collect the codecs of all plugins. Codecs that share a name or a wire id are left out, and logged.

        Args:
            options: the options of a server's configuration; None without one, as in clients. Then a plugin that
                requires options is left out, with a warning.

        Raises:
            ConfigError: the options of a plugin are wrong or incomplete.
        """
        by_id, by_name = self._codec_registries(self.provided_codecs(options))
        usable = list(map(id, by_name.unambiguous().values()))
        return [codec for codec in by_id.unambiguous().values() if id(codec) in usable]

    def provided_codecs(self, options: RawOptions | None = None) -> list[tuple[PluginRecord, hook_results.NamedCodec]]:
        """Collect the codecs of all plugins as `codecs` does, each with its plugin, contested ones included."""
        found = self._collect("asyncapy_codecs", hook_results.codecs, options)
        return [(record, codec) for record, codecs in found for codec in codecs]

    def codec_complaints(self, options: RawOptions | None = None) -> list[str]:
        """A message for each wire id, and each name of a codec, that two plugins provide."""
        by_id, by_name = self._codec_registries(self.provided_codecs(options))
        return [*by_id.complaints, *by_name.complaints]

    @staticmethod
    def _codec_registries(
        provided: Iterable[tuple[PluginRecord, hook_results.NamedCodec]],
    ) -> tuple[NameRegistry[Codec], NameRegistry[Codec]]:
        by_id: NameRegistry[Codec] = NameRegistry("wire id")
        by_name: NameRegistry[Codec] = NameRegistry("codec")
        for record, (name, wire_id, codec) in provided:
            by_id.add(record, str(wire_id), codec)
            by_name.add(record, name, codec)
        return by_id, by_name

    def contracts(self) -> list[tuple[PluginRecord, type]]:
        """Collect the contract classes of all plugins, for ``asyncapy plugins test``."""
        found = self._collect("asyncapy_contracts", hook_results.contracts)
        return [(record, contract) for record, contracts in found for contract in contracts]

    @property
    def filters(self) -> NameRegistry[type[Filter]]:
        """The filter classes of all plugins, by name."""
        return self._collected("asyncapy_filters", "filter", hook_results.filters)

    @property
    def key_stores(self) -> NameRegistry[Callable[[str], KeyStore]]:
        """The functions that open key stores, of all plugins, by URL scheme."""
        return self._collected("asyncapy_key_stores", "key store scheme", hook_results.key_stores)

    def check_options(self, options: RawOptions) -> None:
        """Validate the options of all plugins.

        Raises:
            ConfigError: the options of a plugin are wrong or incomplete, or it is not installed; a line for each.
        """
        faults = self.option_faults(options)
        if faults:
            raise ConfigError("\n".join(faults.values()))

    def option_faults(self, options: RawOptions) -> dict[str, str]:
        """Validate the options of all plugins; return messages about wrong ones, by the name of the plugin."""
        known = {record.name: record for record in self.plugins}
        faults: dict[str, str] = {}
        for name in (*known, *options):
            if name not in known:
                if options[name]:
                    faults[name] = refuse_options(name, options[name], known)
                continue
            record = known[name]
            try:
                validate_options(record, options)
            except InvalidPlugin as error:
                self._loader.quarantine(record, str(error))
            except ConfigError as error:
                faults[name] = str(error)
        return faults

    def _collect(
        self, hook: str, read: Callable[[Any], T], options: RawOptions | None = None
    ) -> list[tuple[PluginRecord, T]]:
        """Call a hook of one plugin after the other, and ``read`` its result. A plugin that raises is quarantined."""
        collected: list[tuple[PluginRecord, T]] = []
        failed = set()
        with HOST_LOCK:
            for record, implementations in in_order(self.loaded, hook):
                if not implementations or record in failed or self._loader.is_calling(record, hook):
                    continue
                usable, validated = self._options_for(record, implementations, options)
                if not usable:
                    continue
                try:
                    with self._loader.calling(record, hook):
                        results = [read(implementation(options=validated)) for implementation in implementations]
                except BaseException as error:  # a plugin may raise anything
                    if is_from_signal(error):
                        raise
                    failed.add(record)
                    self._loader.quarantine(record, f"{hook} raised {reason_of(error)}", traceback_of(error))
                else:
                    collected.extend((record, result) for result in results)
        return [(record, result) for record, result in collected if record not in failed]

    def _options_for(
        self, record: PluginRecord, implementations: Iterable[Implementation], options: RawOptions | None
    ) -> tuple[bool, BaseModel | None]:
        """Return whether hooks of a plugin can be called, and the options that they take."""
        if not any("options" in implementation.arguments for implementation in implementations):
            return True, None
        try:
            return True, validate_options(record, options or {})
        except InvalidPlugin as error:
            self._loader.quarantine(record, str(error))
        except ConfigError as error:
            if options is not None:
                raise
            if not record.left_out:  # once: a program may create a client for each request
                record.left_out = True
                log.warning("%s is left out, as there is no configuration here: %s", record.title, error)
        return False, None

    def _collected(self, hook: str, kind: str, read: Callable[[Any], dict[str, T]]) -> NameRegistry[T]:
        """Collect the results of a hook by name, once; while the code of a plugin is running, without keeping them."""
        with HOST_LOCK:
            if hook in self._registries:
                return self._registries[hook]
            registry: NameRegistry[T] = NameRegistry(kind)
            for record, values in self._collect(hook, read):
                for name, value in values.items():
                    registry.add(record, name, value)
            if not self._loader.unfinished:
                self._registries[hook] = registry
                registry.log_complaints()
            return registry

    @property
    def unfinished(self) -> tuple[PluginRecord, ...]:
        """The plugins whose import or hook is running in this thread, so that their results are missing."""
        return tuple(self._loader.unfinished)


def default_manager() -> PluginManager:
    """Return the manager of this process, which resolves `Filters.X` and the URLs of key stores.

    ``ASYNCAPY_PLUGINS_ALLOW`` and ``ASYNCAPY_PLUGINS_DENY`` are names of plugins, separated by commas, and
    ``ASYNCAPY_PLUGINS_DIR`` is a folder whose Python files are plugins.

    Raises:
        ConfigError: an item of a list is no name of a plugin.
    """
    with HOST_LOCK:  # two threads would get two managers
        return _default_manager()


@functools.cache
def _default_manager() -> PluginManager:
    return PluginManager(
        allow=_names("ASYNCAPY_PLUGINS_ALLOW"),
        deny=_names("ASYNCAPY_PLUGINS_DENY") or (),
        folder=os.environ.get("ASYNCAPY_PLUGINS_DIR") or None,
    )


def _names(variable: str) -> list[str] | None:
    """Return the names of plugins in a variable of the environment, or None if it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return None
    names = split_list(text)
    for name in names:
        if PLUGIN_NAME.fullmatch(name) is None:
            raise ConfigError(
                f"{name!r}, from the environment variable {variable}, is no name of a plugin: write names without "
                "quotes, brackets, blanks and comments"
            )
    return names
