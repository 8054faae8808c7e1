"""The order in which the plugins are called, and the plugins that other plugins name in it or cannot do without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from asyncapy_core.plugins.implementations import Implementation
    from asyncapy_core.plugins.record import PluginRecord

AFTER: Final = "asyncapy_after"
"""The attribute of a plugin with the names of plugins that it is called after, if they are there."""

REQUIRES: Final = "asyncapy_requires"
"""The attribute of a plugin with the names of plugins that it cannot do without; it is called after them, too."""

Step = tuple["PluginRecord", "tuple[Implementation, ...]"]
"""A plugin, and its implementations of one rank; no implementations for a plugin that has none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Plugins that cannot be used because of other ones.

    Attributes:
        records: the plugins.
        state: their state: ``denied`` if they require a plugin that is denied.
        reason: the reason.
    """

    records: tuple[PluginRecord, ...]
    state: Literal["denied", "quarantined"]
    reason: str


def in_order(records: Iterable[PluginRecord], hook: str, *, backward: bool = False) -> list[Step]:
    """Return the order of the calls of a hook.

    A plugin comes after those that it names. Among others, ``tryfirst`` implementations come first, and ``trylast``
    ones last.

    Args:
        records: the plugins, in the order in which those of one rank are called.
        hook: the hook.
        backward: whether a plugin comes before those that it names, as in a shutdown.
    """
    plugins = list(records)
    waiting: list[Step] = []
    for rank in range(3):
        for record in plugins:
            implementations = record.implementations.get(hook, ())
            of_rank = tuple(each for each in implementations if each.rank == rank)
            if of_rank or (rank == 1 and not implementations):
                waiting.append((record, of_rank))
    if not any(record.after or record.requires for record in plugins):
        return waiting
    order: list[Step] = []
    while waiting:
        left = [record for record, _ in waiting]
        free = (step for step in waiting if not any(_precedes(each, step[0], backward=backward) for each in left))
        step = next(free, waiting[0])  # there is a free one, unless the code of a plugin has changed a record
        waiting.remove(step)
        order.append(step)
    return order


def _precedes(record: PluginRecord, other: PluginRecord, *, backward: bool) -> bool:
    first, second = (other, record) if backward else (record, other)
    return first.name in second.after or first.name in second.requires


def find_fault(records: Sequence[PluginRecord]) -> Fault | None:
    """Find a loaded plugin that requires one that is not loaded, or plugins that name each other; or return None."""
    known = {record.name: record for record in records}
    loaded = {record.name: record for record in records if record.state == "loaded"}
    for record in loaded.values():
        for name in record.requires:
            if name not in loaded:
                return _unmet(record, name, known.get(name))
    if not any(record.after or record.requires for record in loaded.values()):
        return None
    import graphlib  # noqa: PLC0415  # few plugins name others

    try:
        graphlib.TopologicalSorter(
            {name: loaded.keys() & {*record.after, *record.requires} for name, record in loaded.items()}
        ).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        members = tuple(loaded[name] for name in sorted(set(circle)))
        reason = f"{AFTER} and {REQUIRES} make a circle: {' after '.join(reversed(circle))}; remove one of these names"
        return Fault(members, "quarantined", reason)
    return None


def _unmet(record: PluginRecord, name: str, other: PluginRecord | None) -> Fault:
    if other is None:
        return Fault((record,), "quarantined", f"it requires plugin {name!r}, which is not installed")
    reason = f"it requires {other.title}, which is {other.state}: {other.reason}"
    return Fault((record,), "denied" if other.state == "denied" else "quarantined", reason)
