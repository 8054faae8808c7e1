"""The hooks that plugins bring for others, with `asyncapy_hookspecs`. A hook of two plugins belongs to neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from asyncapy_core.plugins.hookspecs import PROJECT
from asyncapy_core.plugins.implementations import Functions, short_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncapy_core.plugins.record import PluginRecord


@dataclass(frozen=True, slots=True)
class Specification:
    """A hook that a plugin brings.

    Attributes:
        name: the name of the hook.
        function: the function that specifies it.
        arguments: the names of its arguments.
        first: whether the first result that is not None ends a call.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    first: bool


class SpecificationTable:
    """The hooks that the plugins of a manager bring."""

    def __init__(self) -> None:
        self._by_plugin: dict[PluginRecord, tuple[Specification, ...]] = {}

    def bring(self, record: PluginRecord, specifications: Iterable[Specification]) -> None:
        """Set the hooks that a plugin brings."""
        self._by_plugin[record] = tuple(specifications)

    def discard(self, record: PluginRecord) -> None:
        """Remove the hooks of a plugin."""
        self._by_plugin.pop(record, None)

    @property
    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """The functions that specify these hooks, by hook."""
        return {specification.name: specification.function for _, specification in self._valid()}

    def find(self, name: str) -> Specification | None:
        """Return the hook of this name, or None."""
        return next((specification for _, specification in self._valid() if specification.name == name), None)

    def contested(self) -> list[tuple[PluginRecord, str]]:
        """Return the plugins with a hook that another one brings, too, and the reason for their quarantine."""
        owners: dict[str, list[PluginRecord]] = {}
        for record, specification in self._valid():
            owners.setdefault(specification.name, []).append(record)
        return [
            (record, f"the hook {name!r} is brought by {_titles(rivals)}; uninstall or deny one of them")
            for name, rivals in owners.items()
            for record in rivals
            if len(rivals) > 1
        ]

    def _valid(self) -> list[tuple[PluginRecord, Specification]]:
        return [
            (record, specification)
            for record, specifications in self._by_plugin.items()
            if record.state != "quarantined"
            for specification in specifications
        ]


def find_specifications(found: Any) -> list[Specification]:
    """Return the specifications in a module or an object.

    Raises:
        TypeError: there is none, or one cannot be used.
    """
    marked = {name: function for name in dir(found) if _is_marked(function := getattr(found, name, None))}
    if not marked:
        raise TypeError(f"expected a module or an object with functions marked with hookspec, got {short_repr(found)}")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Functions(marked))  # type: ignore[arg-type]  # pluggy reads attributes only
    return [_checked(getattr(manager.hook, name)) for name in marked]


def _is_marked(function: object) -> bool:
    return isinstance(getattr(function, f"{PROJECT}_spec", None), dict)


def _checked(caller: pluggy.HookCaller) -> Specification:
    name, found = caller.name, caller.spec
    assert found is not None
    if name.startswith(f"{PROJECT}_"):
        raise TypeError(f"{name} cannot be the name of a hook of a plugin: those of AsyncAPY begin with {PROJECT}_")
    if found.opts["historic"]:
        raise TypeError(f"{name} is historic, which is not supported")
    return Specification(name, found.function, tuple(found.argnames), bool(found.opts["firstresult"]))


def _titles(records: Iterable[PluginRecord]) -> str:
    return " and ".join(dict.fromkeys(record.title for record in records))
