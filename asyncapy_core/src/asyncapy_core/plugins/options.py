"""The options of a plugin, validated by its pydantic model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncapy_core.errors import ConfigError
from asyncapy_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from pydantic import BaseModel


def validate_options(record: PluginRecord, options: Mapping[str, Mapping[str, Any]]) -> BaseModel | None:
    """Return the options of a plugin as an instance of its ``asyncapy_options``; None if it has no such model.

    Raises:
        ConfigError: an option is unknown or has a wrong value, or the plugin takes none.
    """
    given = options.get(record.name, {})
    if record.state in {"denied", "quarantined"}:
        return None
    model: type[BaseModel] | None = getattr(record.plugin, "asyncapy_options", None)
    if model is None:
        if given:
            raise ConfigError(f"there are options for {record.title}, which takes none: {', '.join(sorted(given))}")
        return None
    from pydantic import ValidationError  # noqa: PLC0415  # the plugin has imported it already

    try:
        return model.model_validate(dict(given), extra="forbid")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        allowed = ", ".join(model.model_fields)
        message = f"options of {record.title}: {faults} (its options: {allowed})"
    raise ConfigError(message)  # without pydantic's error as its cause, which quotes the values: they may be secrets
