"""The target ``config``: configuration files, INI and TOML."""

from __future__ import annotations

import configparser
import logging
import os
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from asyncapy_core.config import ServerConfig
from asyncapy_core.config.loading import load_config
from asyncapy_core.config.sources import OBSOLETE, _warn_once
from asyncapy_core.errors import AsyncAPYError
from asyncapy_core.plugins import default_manager

FOLDER = tempfile.TemporaryDirectory(prefix="asyncapy-fuzz-")
MOST_SECONDS = 1.0


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def config(data: bytes) -> None:
    """A file is a configuration or an error with a message, soon; each section and key in it is used or named."""
    if not data:
        return
    toml = bool(data[0] & 1)
    path = Path(FOLDER.name, f"{os.getpid()}.{'toml' if toml else 'ini'}")
    path.write_bytes(data[1:])
    warnings = _Warnings()
    logger = logging.getLogger("asyncapy.config")
    logger.addHandler(warnings)
    logger.propagate = False
    _warn_once.cache_clear()
    manager = default_manager()
    began = time.process_time()
    try:
        settings, options = load_config({}, path=path, environ={}, plugins=manager)
        manager.check_options(options)
    except AsyncAPYError as error:
        settings, message = None, str(error)
    finally:
        logger.removeHandler(warnings)
        logger.propagate = True
    took = time.process_time() - began
    assert took < MOST_SECONDS, f"{took:.1f} s"
    if settings is None:
        assert message.strip()
        return
    used, named = settings.model_fields_set | {OBSOLETE}, "\n".join(warnings.texts)
    for section, keys in _sections(path, toml=toml).items():
        if section == "AsyncAPY":
            assert set(keys) <= used <= {*ServerConfig.model_fields, OBSOLETE}, keys
            assert OBSOLETE not in keys or OBSOLETE in named
        elif section.startswith("plugin:"):
            assert set(keys) <= set(options[section.removeprefix("plugin:")])
        else:
            assert f"[{section}]" in named, section


def _sections(path: Path, *, toml: bool) -> dict[str, Any]:
    """Return the sections of a file with their keys, in the form of an INI file."""
    data = path.read_bytes()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    if not toml:
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        return {section: dict(parser.items(section)) for section in parser.sections()}
    tables = tomllib.loads(text)
    plugins = tables.pop("plugins", {})
    return {**tables, **{f"plugin:{name}": keys for name, keys in plugins.items()}}
