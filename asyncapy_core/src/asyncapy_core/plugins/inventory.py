"""`take_inventory`: everything that each plugin provides, by name, for listings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncapy_core.plugins.implementations import short_repr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

    from asyncapy_core.plugins.manager import PluginManager
    from asyncapy_core.plugins.record import PluginRecord


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a plugin.

    Attributes:
        name: its name in a file.
        type: its type, as text.
        default: its default, as text, or None if it is required.
        description: its description in the model, or nothing.
    """

    name: str
    type: str
    default: str | None
    description: str


@dataclass(slots=True)
class Provided:
    """The names that one plugin provides.

    Attributes:
        codecs: the wire ids of its codecs by name.
        filters: its filters.
        key_stores: the schemes of its key stores.
        options: its options.
        commands: its commands, which the command line adds.
        contested: those of the names that another plugin provides as well, so that they cannot be used.
    """

    codecs: dict[str, int] = field(default_factory=dict)
    filters: list[str] = field(default_factory=list)
    key_stores: list[str] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    contested: list[str] = field(default_factory=list)


def take_inventory(manager: PluginManager) -> dict[PluginRecord, Provided]:
    """Return the names that each plugin of a manager provides. Codecs that need options are left out."""
    found = {record: Provided() for record in manager.plugins}
    for record, (name, wire_id, _) in manager.provided_codecs():
        found[record].codecs[name] = wire_id
    for registry, kind in ((manager.filters, "filters"), (manager.key_stores, "key_stores")):
        names: Iterable[str] = registry
        for name in names:
            owners = registry.owners(name)
            for owner in owners:
                getattr(found[owner], kind).append(name)
                if len(owners) > 1:
                    found[owner].contested.append(name)
    for record, provided in found.items():
        if record.options is not None and record.state == "loaded":
            provided.options = [_option(name, field) for name, field in record.options.model_fields.items()]
    return found


def _option(name: str, field: FieldInfo) -> Option:
    default = "computed" if field.default_factory is not None else short_repr(field.default)
    shown = None if field.is_required() else default
    return Option(field.alias or name, _type(field.annotation), shown, field.description or "")


def _type(annotation: Any) -> str:
    try:
        return inspect.formatannotation(annotation)
    except Exception:  # an annotation may be any object
        return short_repr(annotation)
