"""Applies allow- and deny-lists to the plugins that `discovery` finds, imports and checks them.

Calls no hook but `asyncapy_hookspecs`. pluggy's own loader is not used: it stops at the first plugin that cannot be
imported, and silently drops the second of two with the same name. An access to a plugin may raise any exception, which
quarantines the plugin. All state changes while the thread owns `HOST_LOCK`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from asyncapy_core.errors import ConfigError, PluginError
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import reason_of, traceback_of
from asyncapy_core.plugins import hookspecs
from asyncapy_core.plugins.admitting import HOOKSPECS, admit_plugin, bring_specifications, read_plugin
from asyncapy_core.plugins.discovery import COMMANDS, Discovery, find_in_folder, find_plugins
from asyncapy_core.plugins.host_lock import HOST_LOCK
from asyncapy_core.plugins.implementations import Functions, InvalidPlugin
from asyncapy_core.plugins.ordering import find_fault
from asyncapy_core.plugins.plugin_files import PluginFile
from asyncapy_core.plugins.record import METADATA, PluginRecord
from asyncapy_core.plugins.restriction import Restriction
from asyncapy_core.plugins.specifications import SpecificationTable

log: logging.Logger = logging.getLogger("asyncapy.plugins")

T = TypeVar("T")


class _Nesting(threading.local):
    """The plugins whose code the thread is running, the innermost last. A fork does not copy it for other threads."""

    def __init__(self) -> None:
        self.importing: list[PluginRecord] = []
        self.calling: list[tuple[PluginRecord, str]] = []
        self.failed: list[PluginRecord] = []
        """Plugins whose import failed while the code of another one was running."""


class PluginLoader:
    """Finds and imports plugins, when `records` is first read.

    The import or the hook of a plugin may use filters, or create a client. Then the other plugins are imported first,
    and their hooks are called; their results are not kept, as they may depend on the plugin that is unfinished.

    Args:
        restriction: the plugins that may be imported; `restrict` adds further restrictions.
        discover: False leaves out installed plugins.
        folder: a folder whose Python files are plugins, too, or None.

    Attributes:
        discovers: as given.
        leftovers: folders of metadata that are not read, as an interrupted pip has left them behind.
        specifications: the hooks that plugins bring.
    """

    def __init__(self, restriction: Restriction, *, discover: bool, folder: Path | None = None) -> None:
        self.leftovers: list[str] = []
        self.specifications: SpecificationTable = SpecificationTable()
        self._restrictions = [restriction]
        self._folder = folder
        self._searches = discover or folder is not None
        self._undiscovered = self._searches
        self.discovers: bool = discover
        self._warned: set[str] = set()
        self._records: list[PluginRecord] = []
        self._nesting = _Nesting()

    @property
    def records(self) -> list[PluginRecord]:
        """All plugins, in any state, in the order in which their hooks are called."""
        with HOST_LOCK:
            self._discover()
            self._load_all(list(self._records))
            self._check_dependencies()
            return list(self._records)

    @property
    def names(self) -> frozenset[str]:
        """The names of all plugins, of which none is imported for this."""
        with HOST_LOCK:
            self._discover()
            return frozenset(record.name for record in self._records if record.name != METADATA)

    @property
    def unfinished(self) -> list[PluginRecord]:
        """The plugins whose import or hook is running in this thread: their results are missing."""
        return [*self._nesting.importing, *(record for record, _ in self._nesting.calling)]

    def add(self, plugin: object, name: str) -> None:
        """Add a plugin by hand, after the others.

        Raises:
            PluginError: the name is taken or denied, or a hook implementation is wrong.
        """
        with HOST_LOCK:
            if any(name in restriction.denied for restriction in self._restrictions):
                raise PluginError(f"plugin {name!r} cannot be registered, as it is on the deny list")
            if any(record.name == name for record in self.records):
                raise PluginError(f"there is a plugin {name!r} already; register this one under another name")
            record = PluginRecord(name, plugin=plugin)
            try:
                functions = self._read(record)
                for contested, reason in self.specifications.contested():
                    if contested is record:
                        raise InvalidPlugin(reason)
                admit_plugin(record, functions, self._records, self.specifications)
                fault = find_fault([*self._records, record])
                if fault is not None:
                    raise InvalidPlugin(fault.reason)
            except InvalidPlugin as error:
                self.specifications.discard(record)
                raise PluginError(f"{record.title}: {error}") from error
            self._records.append(record)

    def restrict(self, restriction: Restriction, replaced: Restriction | None = None) -> bool:
        """Add a restriction, or replace an earlier one. Plugins are loaded if all restrictions allow them.

        Returns:
            Whether plugins that were denied before have been loaded.

        Raises:
            ConfigError: a plugin that the restriction denies is loaded already, or is not installed.
        """
        with HOST_LOCK:
            if restriction.denied:
                self._discover()
            if self._searches and not self._undiscovered:
                self._check_names(restriction)
            for record in self._records:
                installed = record.entry_point is not None
                refused = restriction.reason(record.name) if installed else record.name in restriction.denied
                if record.state == "loaded" and refused:
                    raise ConfigError(
                        f"{record.title} is loaded already, so this server cannot deny it: make the server before you "
                        "use Filters or key stores, set ASYNCAPY_PLUGINS_DENY, or give it plugins=PluginManager(...)"
                    )
            before = self._restrictions
            self._restrictions = [each for each in (*before, restriction) if each and each is not replaced]
            denied = [record for record in self._records if record.state == "denied"]
            for record in denied:
                record.state = "found"
            try:
                self._load_all(denied)
            except BaseException:  # an import may raise SystemExit or KeyboardInterrupt
                self._restrictions = before
                raise
            return any(record.state != "denied" for record in denied)

    def refusal(self, *names: str) -> str:
        """Return the reason why the restrictions deny code with these names, or ``""``."""
        return next(filter(None, (each.reason(*names) for each in self._restrictions)), "")

    def require(self, names: Iterable[str]) -> None:
        """Check that plugins are loaded.

        Raises:
            PluginError: one is missing, denied or quarantined; the message names it and the reason.
        """
        known = {record.name: record for record in self.records}
        for name in names:
            record = known.get(name)
            if record is None:
                installed = ", ".join(name for name in known if name != METADATA) or "none"
                raise PluginError(f"plugin {name!r} is required but not installed (installed: {installed})")
            if record.state != "loaded":
                raise PluginError(f"{record.title} is required but {record.state}: {record.reason}\n{record.traceback}")

    def is_calling(self, record: PluginRecord, hook: str) -> bool:
        """Return whether this thread is running this hook, which must not be called again inside itself."""
        return (record, hook) in self._nesting.calling

    @contextmanager
    def calling(self, record: PluginRecord, hook: str) -> Iterator[None]:
        """Note that this thread calls a hook of a plugin."""
        with self._unfinished(self._nesting.calling, (record, hook), f"calling {hook} of {record.title}"):
            yield

    def quarantine(self, record: PluginRecord, reason: str, trace: str = "") -> None:
        """Exclude a plugin from use, and log the reason.

        Not while the code of another plugin is running, which may be the reason: the plugin is then tried again.
        """
        if any(each is not record for each in self.unfinished):
            self._nesting.failed.append(record)
            return
        record.quarantine(reason, trace)
        log.error("%s is quarantined: %s", record.title, reason)

    def _discover(self) -> None:
        """Find the installed plugins and those in the folder, once, and check that the lists name no others."""
        if not self._undiscovered:
            return
        files = [] if self._folder is None else find_in_folder(self._folder)
        found = find_plugins(hookspecs.PROJECT) if self.discovers else Discovery([], [], unusual=False)
        self._records = sorted([*found.records, *files], key=lambda record: (record.name, record.distribution))
        self.leftovers = found.leftovers
        for restriction in self._restrictions:
            self._check_names(restriction)
        for record in self._records:
            if record.state == "quarantined":
                log.error("%s is quarantined: %s", record.title, record.reason)
        if found.unusual:
            from asyncapy_core.config.kinds import load_pydantic_plugins  # noqa: PLC0415  # imports pydantic

            load_pydantic_plugins()  # in such an environment, the import of a plugin with options would fail
        self._undiscovered = False

    def _check_names(self, restriction: Restriction) -> None:
        """Log names on an allow-list that no plugin and no command has.

        Raises:
            ConfigError: neither a plugin nor a command has a name on a deny-list, which would deny nothing.
        """
        known = [record.name for record in self._records if record.name != METADATA]
        if not (restriction.allowed | restriction.denied).issubset(known):
            known += (record.name for record in find_plugins(COMMANDS).records if record.name != METADATA)
        for name in sorted(restriction.denied.difference(known)):
            import difflib  # noqa: PLC0415  # only for a mistake

            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(known) or 'none'}"
            raise ConfigError(f"no plugin is called {name!r}, which is on the deny list; {advice}")
        for name in sorted(restriction.allowed.difference(known, self._warned)):
            self._warned.add(name)
            log.warning("no plugin is called %r, which is on an allow list", name)

    def _load_all(self, records: Iterable[PluginRecord]) -> None:
        """Load those of these plugins that are not loaded yet, or were not because of a nested or interrupted call.

        All are imported before the first is admitted, as it may implement a hook that another one brings.
        """
        imported = [record for record in records if self._is_to_load(record) and self._load(record)]
        functions: dict[PluginRecord, Functions] = {}
        for record in filter(self._is_to_load, imported):
            with self._quarantining(record):
                functions[record] = self._read(record)
        for record, reason in self.specifications.contested():
            self.quarantine(record, reason)
        for record in filter(self._is_to_load, functions):
            with self._quarantining(record):
                admit_plugin(record, functions[record], self._records, self.specifications)

    def _read(self, record: PluginRecord) -> Functions:
        """Read an imported plugin, and note the hooks that it brings; return its functions.

        Raises:
            InvalidPlugin: it breaks a rule of the plugin API, or raises an exception.
        """
        functions = read_plugin(record)
        with self.calling(record, HOOKSPECS):
            self.specifications.bring(record, bring_specifications(record, functions))
        return functions

    def _is_to_load(self, record: PluginRecord) -> bool:
        return record.state == "found" and record not in (*self.unfinished, *self._nesting.failed)

    @contextmanager
    def _quarantining(self, record: PluginRecord) -> Iterator[None]:
        """Quarantine a plugin if the block raises InvalidPlugin."""
        try:
            yield
        except InvalidPlugin as error:
            self.quarantine(record, str(error), error.trace)

    def _check_dependencies(self) -> None:
        """Exclude loaded plugins that cannot be used because of other ones, unless code of a plugin is running."""
        while not self.unfinished and (fault := find_fault(self._records)) is not None:
            for record in fault.records:
                if fault.state == "quarantined":
                    self.quarantine(record, fault.reason)
                else:
                    record.state, record.reason = fault.state, fault.reason
                    log.warning("%s is left out: %s", record.title, fault.reason)

    def _load(self, record: PluginRecord) -> bool:
        """Import a plugin, unless it is denied, or shares its name with another; return whether that was done."""
        sharing = [other for other in self._records if other.name == record.name]
        reason = self.refusal(record.name)
        if reason:
            record.state, record.reason = "denied", reason
        elif len(sharing) > 1:
            self.quarantine(record, _contested(sharing))
        else:
            with self._quarantining(record):
                self._import(record)
                return True
        return False

    def _import(self, record: PluginRecord) -> None:
        assert record.entry_point is not None
        started = time.perf_counter()
        try:
            with self._unfinished(self._nesting.importing, record, f"importing {record.title}"):
                record.plugin = record.entry_point.load()
        except BaseException as error:  # a plugin may raise anything
            if is_from_signal(error):
                raise
            place = record.entry_point.place_of(error) if isinstance(record.entry_point, PluginFile) else ""
            raise InvalidPlugin(f"import failed with {reason_of(error)}{place}", traceback_of(error)) from error
        finally:
            record.import_seconds += time.perf_counter() - started

    @contextmanager
    def _unfinished(self, stack: list[T], item: T, activity: str) -> Iterator[None]:
        """Keep an item on one of the stacks of this thread for the length of the block."""
        depth, before = len(stack), HOST_LOCK.activity
        try:  # a signal handler may raise anywhere
            stack.append(item)
            HOST_LOCK.activity = activity
            yield
        finally:
            del stack[depth:]
            HOST_LOCK.activity = before
            if not self.unfinished:
                self._nesting.failed.clear()


def _contested(records: Sequence[PluginRecord]) -> str:
    """Return the reason why none of several plugins with one name is imported."""
    name = records[0].name
    distributions = sorted({record.distribution for record in records})
    if len(distributions) == 1:
        values = " and ".join(record.entry_point.value for record in records if record.entry_point is not None)
        return f"{distributions[0]} has two entry points {name!r}, {values}; install it again"
    in_folder = any(isinstance(record.entry_point, PluginFile) for record in records)
    advice = "rename one of them" if in_folder else "uninstall one of them"
    return f"the name {name!r} is claimed by {' and '.join(distributions)}; {advice}"
