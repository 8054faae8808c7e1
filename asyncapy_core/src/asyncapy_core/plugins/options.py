"""The options of a plugin, validated by its pydantic model."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncapy_core.errors import ConfigError
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.plugins.implementations import InvalidPlugin
from asyncapy_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from pydantic import BaseModel


def validate_options(record: PluginRecord, options: Mapping[str, Mapping[str, Any]]) -> BaseModel | None:
    """Return the options of a plugin as an instance of its ``asyncapy_options``; None if it has no such model.

    Raises:
        ConfigError: an option is unknown or has a wrong value, or the plugin takes none.
        InvalidPlugin: the model raised another exception.
    """
    given = options.get(record.name, {})
    if record.state in {"denied", "quarantined"}:
        return None
    model = record.options
    if model is None:
        if given:
            names = ", ".join(f"{option}{_source(given, option)}" for option in sorted(given))
            raise ConfigError(f"there are options for {record.title}, which takes none: {names}")
        return None
    from pydantic import ValidationError  # noqa: PLC0415  # the plugin has imported it already

    try:
        named = {
            _field(option, model): option for option in reversed(list(given))
        }  # the first source of an option wins
        return model.model_validate({name: given[option] for name, option in named.items()}, extra="forbid")
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}{_source(given, named.get(_first(fault['loc'])))}"
            for fault in error.errors()
        )
        allowed = ", ".join(model.model_fields)
        message = f"options of {record.title}: {faults} (its options: {allowed})"
    except BaseException as error:  # a validator may raise anything
        if is_from_signal(error):
            raise
        fault = f"its asyncapy_options raised {type(error).__name__}{_raised_in(error)}"
        raise InvalidPlugin(fault) from None  # the exception may quote the values, too
    raise ConfigError(message)  # without pydantic's error as its cause, which quotes the values: they may be secrets


def _field(option: str, model: type[BaseModel]) -> str:
    """Return the name of an option in its model: INI files have small letters, the environment ``_`` for ``-``, too."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    matches = [name for name in names if name.lower().replace("-", "_") == option.replace("-", "_")]
    return matches[0] if option not in names and len(matches) == 1 else option


def _first(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else ""


def _source(given: Mapping[str, Any], option: str | None) -> str:
    """Return the source of an option, for messages."""
    source = getattr(given, "sources", {}).get(option)
    return f" (from {source})" if source else ""


def _raised_in(error: BaseException) -> str:
    """Return the line that raised an exception."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    return f" at {frames[-1][0].f_code.co_filename}:{frames[-1][1]}" if frames else ""
