"""The log of a server as its settings say, and the formats of log lines that distributions provide.

A distribution provides a format by an entry point in the group ``asyncapy.log_formats``. Its object is called without
arguments, and returns a `logging.Formatter`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from asyncapy_core import defaults
from asyncapy_core.errors import ConfigError
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import LineFormatter, reason_of
from asyncapy_core.plugins.discovery import find_plugins

if TYPE_CHECKING:
    from asyncapy_core.config import ServerConfig
    from asyncapy_core.logs.writer import ServerLogger
    from asyncapy_core.plugins.record import PluginRecord

GROUP: Final = "asyncapy.log_formats"

FORMATS: Final = frozenset({"console_format", "datefmt", "log_format"})
"""The settings with which a server writes to standard error also if the application has configured a handler."""


def configure_log(log: ServerLogger, config: ServerConfig) -> None:
    """Set the level of a server's log and the format of its lines.

    Raises:
        ConfigError: no installed distribution has the format, or it cannot be used.
    """
    log.console.setFormatter(log_formatter(config))
    log.console.steps_back = not FORMATS & config.model_fields_set
    log.setLevel(config.logging_level if "logging_level" in config.model_fields_set else logging.NOTSET)


def log_formatter(config: ServerConfig) -> logging.Formatter:
    """Return the formatter of log lines.

    Raises:
        ConfigError: as for `configure_log`.
    """
    name = config.log_format
    if name == defaults.LOG_FORMAT:
        return LineFormatter(config.console_format, config.datefmt)
    found = [record for record in find_plugins(GROUP).records if record.name == name]
    if not found:
        raise ConfigError(
            f"log_format is {name!r}, but no installed distribution has this format; "
            "'json' is in asyncapy-cli: pip install asyncapy-cli"
        )
    if len(found) > 1:
        both = " and ".join(record.distribution for record in found)
        raise ConfigError(f"log_format is {name!r}, which {both} provide; uninstall one of them")
    return _load(found[0])


def _load(record: PluginRecord) -> logging.Formatter:
    if record.entry_point is None or record.reason:
        raise ConfigError(f"log_format {record.name!r} of {record.distribution} cannot be used: {record.reason}")
    try:
        formatter = record.entry_point.load()()
    except BaseException as error:  # foreign code may raise anything
        if is_from_signal(error):
            raise
        text = f"log_format {record.name!r} of {record.distribution} cannot be used: {reason_of(error)}"
        raise ConfigError(text) from error
    if not isinstance(formatter, logging.Formatter):
        text = f"it returns an object of type {type(formatter).__name__} instead of a logging.Formatter"
        raise ConfigError(f"log_format {record.name!r} of {record.distribution} cannot be used: {text}")
    return formatter
