"""Finds the entry points of installed distributions, and the files in a folder of plugins, and imports none of them.

`importlib.metadata.entry_points` is not used: it raises for all plugins if the metadata of any distribution is broken.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.defaults import PLUGIN_NAME
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import reason_of
from asyncapy_core.plugins.plugin_files import list_plugin_files
from asyncapy_core.plugins.record import METADATA, PluginRecord

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint
    from pathlib import Path

COMMANDS: Final = "asyncapy.commands"
"""The group of commands, which the command line finds. Lists of plugins may name them."""

_VALUE: Final = re.compile(r"\s*[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\]\s*)?")
_FILE: Final = "entry_points.txt"


@dataclass(frozen=True, slots=True)
class Discovery:
    """The result of a search.

    Attributes:
        records: the plugins, in the order in which their hooks are called, and distributions with broken metadata.
        leftovers: folders of metadata that an interrupted pip has left behind, and that are not read.
        unusual: whether `importlib.metadata.entry_points` may raise here, in AsyncAPY or in another package.
    """

    records: list[PluginRecord]
    leftovers: list[str]
    unusual: bool


def find_plugins(group: str) -> Discovery:
    """Find the entry points of a group.

    A distribution hides others of the same name later on ``sys.path``. An entry point is found once, even if the
    metadata has it twice. A distribution whose metadata cannot be read is a quarantined record.
    """
    from importlib.metadata import PathDistribution  # noqa: PLC0415  # takes longer to import than this package

    first: dict[str, Distribution] = {}
    plugins: dict[tuple[str, str, str], PluginRecord] = {}
    leftovers: dict[str, None] = {}
    distributions, broken = _distributions()
    for distribution in distributions:
        folder = _folder(distribution)
        if folder.startswith("~"):
            leftovers.setdefault(os.path.realpath(str(getattr(distribution, "_path", folder))))
            continue
        name = re.sub(r"[-_.]+", "-", _stem(folder)[0] or _title(distribution, folder)[0]).lower()
        before = first.setdefault(name, distribution)
        if before is distribution or not _has_name(before):
            for record in _plugins(distribution, group, folder):
                value = record.reason if record.entry_point is None else record.entry_point.value
                plugins.setdefault((name, record.name, value), record)
    records = sorted([*broken, *plugins.values()], key=lambda record: (record.name, record.distribution))
    unusual = any(type(distribution) is not PathDistribution for distribution in distributions)
    return Discovery(records, list(leftovers), unusual or any(record.name == METADATA for record in records))


def find_in_folder(folder: Path) -> list[PluginRecord]:
    """Find the Python files and packages in a folder.

    Raises:
        ConfigError: the folder cannot be read.
    """
    records = []
    for file in list_plugin_files(folder):
        record = PluginRecord(file.name, file.value, entry_point=file)
        if file.fault:
            record.quarantine(file.fault)
        records.append(record)
    return records


def _distributions() -> tuple[list[Distribution], list[PluginRecord]]:
    """Return the distributions of all finders, and a quarantined record for each finder that raises.

    `importlib.metadata.distributions` would stop at the first of these.
    """
    from importlib.metadata import DistributionFinder  # noqa: PLC0415  # as above

    found: list[Distribution] = []
    broken = []
    for finder in sys.meta_path:
        try:
            find = getattr(finder, "find_distributions", None)
            if find is not None:
                found.extend(find(DistributionFinder.Context()))
        except BaseException as error:  # the finder of another package may raise anything
            if is_from_signal(error):
                raise
            kind = type(finder).__name__
            broken.append(_broken("(unknown)", "", f"{kind} on sys.meta_path fails to list them: {reason_of(error)}"))
    return found, broken


def _folder(distribution: Distribution) -> str:
    """Return the name of the folder of metadata, or nothing for a distribution of another kind."""
    try:
        return str(getattr(distribution, "_path", "")).replace("\\", "/").rstrip("/").rpartition("/")[2]
    except Exception:  # an object of another package's finder
        return ""


def _stem(folder: str) -> tuple[str, str]:
    """Return the name and the version in the name of a folder of metadata, or nothing."""
    stem, dot, kind = folder.rpartition(".")
    name, _, version = stem.partition("-") if dot and kind in {"dist-info", "egg-info"} else ("", "", "")
    return name, version


def _has_name(distribution: Distribution) -> bool:
    """Return True if a distribution has metadata, and is not the empty folder of one that was uninstalled."""
    try:
        return bool(distribution.metadata["Name"])
    except Exception:  # not UTF-8, unreadable or missing
        return False


def _title(distribution: Distribution, folder: str) -> tuple[str, str]:
    """Return the name and the version of a distribution, from the name of its folder if its metadata is broken."""
    try:
        name: Any = distribution.metadata["Name"]
        version: Any = distribution.metadata["Version"]
    except Exception:  # not UTF-8, unreadable or missing
        name = version = None
    given = _stem(folder)
    name = name.strip() if isinstance(name, str) else ""
    return name or given[0] or "(unknown)", version if isinstance(version, str) else given[1]


def _plugins(distribution: Distribution, group: str, folder: str) -> list[PluginRecord]:
    """Return the plugins of a distribution; one quarantined record if its metadata is broken."""
    try:
        entry_points: list[EntryPoint] = [each for each in distribution.entry_points if each.group == group]
        if not entry_points and _is_unreadable(distribution):
            return [_broken(*_title(distribution, folder), f"its {_FILE} cannot be read")]
    except BaseException as error:  # a line without "=", not UTF-8, or anything in the distribution of a finder
        if is_from_signal(error):
            raise
        return [_broken(*_title(distribution, folder), f"its {_FILE} cannot be read: {reason_of(error)}")]
    if not entry_points:
        return []
    name, version = _title(distribution, folder)
    records = [PluginRecord(each.name, name, version, entry_point=each) for each in entry_points]
    for record, entry_point in zip(records, entry_points, strict=True):
        if not PLUGIN_NAME.fullmatch(record.name):
            record.quarantine(f"its name {record.name!r} has other characters than letters, digits, '_', '-' and '.'")
        elif not _VALUE.fullmatch(entry_point.value):
            record.quarantine(f"its entry point {entry_point.value!r} is neither MODULE nor MODULE:OBJECT")
    return records


def _is_unreadable(distribution: Distribution) -> bool:
    """Return True if a file with entry points exists that importlib.metadata silently passes over."""
    folder: Any = getattr(distribution, "_path", None)
    if distribution.read_text(_FILE) is not None or folder is None:
        return False
    try:
        return bool(folder.joinpath(_FILE).exists())
    except OSError:
        return True


def _broken(distribution: str, version: str, reason: str) -> PluginRecord:
    record = PluginRecord(METADATA, distribution, version)
    record.quarantine(reason)
    return record
