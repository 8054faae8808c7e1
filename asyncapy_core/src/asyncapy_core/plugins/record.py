"""`PluginRecord`: the origin and the state of one plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pydantic import BaseModel

    from asyncapy_core.plugins.implementations import Implementation
    from asyncapy_core.plugins.plugin_files import PluginFile

METADATA: Final = "(metadata)"
"""The name of a record that stands for a distribution whose metadata cannot be read."""

PluginState = Literal["found", "loaded", "denied", "quarantined"]


@dataclass(slots=True, eq=False)
class PluginRecord:
    """An entry point of the group ``asyncapy``, a file in a folder of plugins, or an object registered by hand.

    Attributes:
        name: the name of the entry point, or of the file without its suffix. It is used in allow- and deny-lists and in
            sections of options.
        distribution: the name of its distribution, the path of its file, or ``"(registered)"``.
        version: the version of the distribution.
        state: ``loaded``, ``denied`` (not used, as a list does not allow it or a plugin that it requires), or
            ``quarantined``.
        reason: the reason for the state ``denied`` or ``quarantined``.
        hooks: the hooks that it implements.
        after: the names of the plugins that it is called after, if they are there.
        requires: the names of the plugins that it cannot do without, and is called after.
        import_seconds: the duration of its import.
        traceback: the traceback of the exception that led to the quarantine, or nothing.
        options: the model of its options, or None.
        kind: its kind in messages: a ``plugin``, or the ``command`` of another distribution.
        left_out: whether a warning was logged that clients do not use it, because it needs options.
    """

    name: str
    distribution: str = "(registered)"
    version: str = ""
    state: PluginState = "found"
    reason: str = ""
    traceback: str = ""
    hooks: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    import_seconds: float = 0.0
    kind: str = "plugin"
    left_out: bool = False
    entry_point: EntryPoint | PluginFile | None = None
    plugin: Any = field(default=None, repr=False)
    implementations: Mapping[str, tuple[Implementation, ...]] = field(default_factory=dict, repr=False)
    options: type[BaseModel] | None = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """Its name in messages."""
        version = f" {self.version}" if self.version else ""
        if self.name == METADATA:
            return f"the metadata of {self.distribution}{version}"
        return f"{self.kind} {self.name!r} of {self.distribution}{version}"

    def quarantine(self, reason: str, traceback: str = "") -> None:
        """Exclude the plugin from use, for a reason."""
        self.state = "quarantined"
        self.reason = reason
        self.traceback = traceback
