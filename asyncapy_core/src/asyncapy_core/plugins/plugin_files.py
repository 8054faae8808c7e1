"""Lists and imports the plugins in a folder of Python files, for programs whose plugins are in no distribution."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from zlib import crc32

from asyncapy_core.errors import ConfigError
from asyncapy_core.foreign.inspection import is_a, read_traceback

PACKAGE_PREFIX: Final = "asyncapy_plugins_"
"""The beginning of the name of the package that the modules of a folder are imported into. Their own names alone could
be those of other modules, as in ``plugins/json.py``."""

_NAME: Final = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class PluginFile:
    """A Python file or a package in a folder of plugins, in place of an entry point.

    Attributes:
        name: the name of the file without its suffix, or that of the package.
        path: the file or the folder of the package.
    """

    name: str
    path: Path

    @property
    def value(self) -> str:
        """The path, for messages: from the working directory, if it is below that."""
        return _shown(self.path)

    @property
    def fault(self) -> str:
        """The reason why its name cannot be used, or nothing."""
        if _NAME.fullmatch(self.name):
            return ""
        return f"its name {self.name!r} has other characters than letters, digits, '_' and '-'; rename it"

    def load(self) -> Any:
        """Import the module."""
        return importlib.import_module(f"{_make_package(self.path.parent)}.{self.name}")

    def place_of(self, error: BaseException) -> str:
        """Return the innermost line of the plugin that raised an exception, for messages, or nothing."""
        with contextlib.suppress(Exception):  # the attributes of an exception may raise
            if is_a(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(self.path):
                return f" at {error.filename}:{error.lineno}"
            for frame, line in reversed([*traceback.walk_tb(read_traceback(error))]):
                if Path(frame.f_code.co_filename).is_relative_to(self.path):
                    return f" at {frame.f_code.co_filename}:{line}"
        return ""


def list_plugin_files(folder: Path) -> list[PluginFile]:
    """Return the plugins in a folder: its Python files, and its folders with an ``__init__.py``.

    Names that begin with ``.`` or ``_`` are left out, as those of modules that plugins import.

    Args:
        folder: an absolute path.

    Raises:
        ConfigError: the folder cannot be read; the message names it and the reason.
    """
    found = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith((".", "_")):
                continue
            if path.is_dir():
                if (path / "__init__.py").is_file():
                    found.append(PluginFile(path.name, path))
            elif path.suffix == ".py":
                found.append(PluginFile(path.stem, path))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"the folder of plugins {_shown(folder)!r} cannot be read: {reason}; create it, or name another folder"
        ) from error
    return found


def _shown(path: Path) -> str:
    """Return a path for messages: from the working directory, if it is below that."""
    with contextlib.suppress(OSError, ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _make_package(folder: Path) -> str:
    """Return the name of a package whose modules are the files in a folder. It is made once."""
    name = f"{PACKAGE_PREFIX}{crc32(os.fsencode(folder)):08x}"
    if name not in sys.modules:
        specification = ModuleSpec(name, None, is_package=True)
        specification.submodule_search_locations = [str(folder)]
        sys.modules[name] = package = ModuleType(name)
        package.__spec__, package.__path__ = specification, [str(folder)]
    return name
