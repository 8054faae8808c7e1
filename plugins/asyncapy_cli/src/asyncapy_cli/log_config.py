"""``asyncapy serve --log-config``: a configuration of the logging module in a file."""

from __future__ import annotations

import configparser
import difflib
import json
import logging.config
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from asyncapy_core.errors import ConfigError
from asyncapy_core.foreign.inspection import read_cause
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import reason_of

KEYS: Final = (
    "version",
    "formatters",
    "filters",
    "handlers",
    "loggers",
    "root",
    "incremental",
    "disable_existing_loggers",
)
LOGGER_KEYS: Final = ("level", "handlers", "filters", "propagate")

_READERS: Final[dict[str, Callable[[str], Any]]] = {".json": json.loads, ".toml": tomllib.loads}


def apply_log_config(path: str) -> None:
    """Configure the logging module from a file: JSON or TOML for `logging.config.dictConfig`, or INI for `fileConfig`.

    Loggers that exist and are not in the file stay enabled, unless the file says ``disable_existing_loggers``.

    Raises:
        ConfigError: the file cannot be read, or it is no such configuration; the message gives the reason.
    """
    file = Path(path)
    if file.suffix.lower() in {".yaml", ".yml"}:
        raise ConfigError(f"the log configuration {path} is YAML, which is not supported; write it as TOML or JSON")
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"the log configuration {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    read = _READERS.get(file.suffix.lower())
    try:
        if read is None:
            parser = configparser.ConfigParser()
            parser.read_string(text, path)
            logging.config.fileConfig(parser, disable_existing_loggers=False)
            return
        given = read(text)
    except BaseException as error:  # a handler in an INI file may raise anything
        if is_from_signal(error):
            raise
        raise ConfigError(f"{path} is no log configuration: {_reason(error)}") from error
    config = {"version": 1, "disable_existing_loggers": False, **_checked(path, given)}
    try:
        logging.config.dictConfig(config)
    except BaseException as error:  # as above
        if is_from_signal(error):
            raise
        raise ConfigError(f"{path} is no log configuration: {_reason(error)}") from error


def _checked(path: str, config: object) -> dict[str, Any]:
    """Return a configuration without unknown keys, which `logging.config.dictConfig` ignores."""
    if not isinstance(config, dict):
        raise ConfigError(f"{path} has to be an object with the keys {', '.join(KEYS)}")
    _check_keys(path, "", config, KEYS)
    loggers = config.get("loggers")
    named = loggers.items() if isinstance(loggers, dict) else ()
    for name, logger in (*((f"loggers.{name}", logger) for name, logger in named), ("root", config.get("root"))):
        if isinstance(logger, dict):
            _check_keys(path, f" in {name}", logger, LOGGER_KEYS)
    return config


def _check_keys(path: str, where: str, found: Iterable[str], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"keys: {', '.join(known)}"
            raise ConfigError(f"{path} has the unknown key {key!r}{where}; {advice}")


def _reason(error: BaseException) -> str:
    """Return the text of an exception in one line, and that of its cause, which the logging module does not repeat."""
    cause = read_cause(error)
    text = reason_of(error) if cause is None else f"{reason_of(error)} ({reason_of(cause)})"
    return " ".join(text.split())
