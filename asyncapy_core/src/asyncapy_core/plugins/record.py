"""`PluginRecord`: the origin and the state of one plugin; and the order in which the hooks of several are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic import BaseModel

    from asyncapy_core.plugins.implementations import Implementation

METADATA: Final = "(metadata)"
"""The name of a record that stands for a distribution whose metadata cannot be read."""

PluginState = Literal["found", "loaded", "denied", "quarantined"]


@dataclass(slots=True, eq=False)
class PluginRecord:
    """An entry point of the group ``asyncapy``, or an object that was registered by hand.

    Attributes:
        name: the name of the entry point, used in allow- and deny-lists and in sections of options.
        distribution: the name of its distribution, or ``"(registered)"``.
        version: the version of the distribution.
        state: ``loaded``, ``denied`` (not imported), or ``quarantined``.
        reason: the reason for the state ``denied`` or ``quarantined``.
        hooks: the hooks that it implements.
        import_seconds: the duration of its import.
        traceback: the traceback of the exception that led to the quarantine, or nothing.
        options: the model of its options, or None.
        left_out: whether a warning was logged that clients do not use it, because it needs options.
    """

    name: str
    distribution: str = "(registered)"
    version: str = ""
    state: PluginState = "found"
    reason: str = ""
    traceback: str = ""
    hooks: tuple[str, ...] = ()
    import_seconds: float = 0.0
    left_out: bool = False
    entry_point: EntryPoint | None = None
    plugin: Any = field(default=None, repr=False)
    implementations: Mapping[str, tuple[Implementation, ...]] = field(default_factory=dict, repr=False)
    options: type[BaseModel] | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """Its name in messages."""
        version = f" {self.version}" if self.version else ""
        if self.name == METADATA:
            return f"the metadata of {self.distribution}{version}"
        return f"plugin {self.name!r} of {self.distribution}{version}"

    def quarantine(self, reason: str, traceback: str = "") -> None:
        """Exclude the plugin from use, for a reason."""
        self.state = "quarantined"
        self.reason = reason
        self.traceback = traceback


def in_order(records: Iterable[PluginRecord], hook: str) -> list[tuple[PluginRecord, tuple[Implementation, ...]]]:
    """Return the order of calls of a hook: ``tryfirst`` implementations, the others, and ``trylast`` ones.

    Args:
        records: the plugins, in the order in which those of one rank are called.
        hook: the hook.

    Returns:
        Pairs of a plugin and its implementations of one rank; no implementations for a plugin that has none.
    """
    order = []
    plugins = list(records)
    for rank in range(3):
        for record in plugins:
            implementations = record.implementations.get(hook, ())
            of_rank = tuple(each for each in implementations if each.rank == rank)
            if of_rank or (rank == 1 and not implementations):
                order.append((record, of_rank))
    return order
