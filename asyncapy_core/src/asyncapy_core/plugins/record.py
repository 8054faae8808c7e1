"""What the manager knows of one plugin: where it is from and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PluginState = Literal["found", "loaded", "denied", "quarantined"]


@dataclass(slots=True)
class PluginRecord:
    """One entry point of the group ``asyncapy``, or an object that was registered by hand.

    Attributes:
        name: the name of the entry point; allow- and deny-lists and option sections go by it.
        distribution: the name of the package that it is from, or ``"(registered)"``.
        version: the version of that package.
        state: ``loaded``, ``denied`` before import, or ``quarantined`` for the ``reason``.
        hooks: the hooks that it implements.
        import_seconds: how long its import took.
        traceback: of an exception, where that is the reason.
        left_out: whether it was said that clients do without it, as it needs options.
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
    plugin: Any = None

    @property
    def title(self) -> str:
        """What to call it in a message."""
        version = f" {self.version}" if self.version else ""
        return f"plugin {self.name!r} of {self.distribution}{version}"

    def quarantine(self, reason: str, traceback: str = "") -> None:
        """Keep it from being used, and remember why."""
        self.state = "quarantined"
        self.reason = reason
        self.traceback = traceback
