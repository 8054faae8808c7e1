"""The options of a plugin, validated by its pydantic model."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.errors import ConfigError
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.plugins.implementations import InvalidPlugin
from asyncapy_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_STRUCTURED: Final = ("dict_type", "list_type", "set_type", "frozen_set_type", "tuple_type", "model_type")
"""pydantic's names of the errors for options that a text cannot be: texts are all that INI files, the environment and
the command line have."""


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
            f"{'.'.join(map(str, fault['loc']))}: {_reason(fault, model)}"
            f"{_source(given, named.get(_first(fault['loc'])))}"
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


def refuse_options(name: str, given: Mapping[str, Any], installed: Iterable[str]) -> str:
    """Return the message for options of a plugin that is not installed."""
    import difflib  # noqa: PLC0415  # only for a mistake

    names = ", ".join(f"{option}{_source(given, option)}" for option in sorted(given))
    close = difflib.get_close_matches(name, installed, n=1)
    advice = f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(sorted(installed))}"
    return f"there are options for plugin {name!r}, which is not installed: {names}; {advice}"


def _reason(fault: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the reason for which an option is wrong, and the remedy."""
    import difflib  # noqa: PLC0415  # only for a mistake

    if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
        names = [field.alias or name for name, field in model.model_fields.items()]
        close = difflib.get_close_matches(_first(fault["loc"]), names, n=1)
        return f"there is no such option{f'; did you mean {close[0]!r}?' if close else ''}"
    if fault["type"] in _STRUCTURED and isinstance(fault["input"], str):
        return f"{fault['msg']}; set it in a TOML file, or with the argument plugin_options"
    return fault["msg"]


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
