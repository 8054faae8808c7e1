"""The option ``--plugins-dir``: a folder whose Python files are plugins, beside those that are installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "ASYNCAPY_PLUGINS_DIR"
"""The environment variable that `asyncapy_core.plugins.default_manager` reads."""


def with_plugins_dir(function: F) -> F:
    """Add the option ``--plugins-dir``. It takes effect before the command begins, and needs no argument."""
    option = click.option(
        "--plugins-dir",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        callback=_set_variable,
        is_eager=True,  # other options are completed from the plugins
        expose_value=False,
        help="A folder whose Python files and packages are plugins, too.",
    )
    return option(function)


def plugins_dir() -> Path | None:
    """Return the folder of plugins, or None."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def is_plugins_dir_given() -> bool:
    """Return whether the running command has the option."""
    return click.get_current_context().get_parameter_source("plugins_dir") is ParameterSource.COMMANDLINE


def _set_variable(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Set the variable, before the program of a server uses `Filters`, and for the processes that it starts."""
    if value is not None:
        os.environ[VARIABLE] = str(Path(value).absolute())
