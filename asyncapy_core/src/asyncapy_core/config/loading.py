"""`load_config`: reads the settings of a server from all sources.

The order of precedence: constructor arguments, ``ASYNCAPY_*`` environment variables, a configparser, a configuration
file (INI with a section ``[AsyncAPY]``, or TOML with a table of that name).
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from asyncapy_core.config.settings import ServerConfig, allowed_values
from asyncapy_core.config.sources import (
    ENVIRONMENT,
    SECTION,
    InstalledPlugins,
    PluginOptions,
    SourcedOptions,
    options_in_environment,
    quote_value,
    read_file,
    read_parser,
    settings_in_environment,
)
from asyncapy_core.errors import ConfigError

_Source = tuple[Callable[[str], str], dict[str, Any]]
"""A function that names the source of a setting, and the settings of that source."""


def load_config(
    arguments: Mapping[str, Any],
    *,
    path: str | os.PathLike[str] | None = None,
    parser: configparser.RawConfigParser | None = None,
    environ: Mapping[str, str] | None = None,
    plugin_options: Mapping[str, Mapping[str, Any]] | None = None,
    plugins: InstalledPlugins | None = None,
) -> tuple[ServerConfig, PluginOptions]:
    """Read and validate the settings from all sources.

    Args:
        arguments: the settings passed to the constructor, by name, without defaults.
        path: a configuration file; TOML if the name ends in ``.toml``, otherwise INI.
        parser: a configparser that was filled elsewhere; it precedes the file.
        environ: the environment, `os.environ` by default.
        plugin_options: the options of plugins passed to the constructor, by plugin.
        plugins: the plugins of the server, whose names may be in variables of the environment.

    Returns:
        The settings, and the options of plugins by the plugin's name.

    Raises:
        ConfigError: a file cannot be read, a name is unknown, or a value is wrong.
    """
    environ = os.environ if environ is None else environ
    sources: list[_Source] = [
        (lambda name: f"the argument {name}", dict(arguments)),
        (
            lambda name: f"the environment variable {ENVIRONMENT}{name.upper()}",
            settings_in_environment(environ, ServerConfig.model_fields),
        ),
    ]
    options: dict[str, SourcedOptions] = {}
    _add_options(options, _mappings({} if plugin_options is None else plugin_options), "the argument plugin_options")
    for plugin, given in options_in_environment(environ, plugins).items():
        for option, value in given.items():
            options.setdefault(plugin, SourcedOptions()).add(option, value, given.sources[option])
    if parser is not None:
        settings, parsed = read_parser(parser, "cfg_parser")
        sources.append((lambda _: f"cfg_parser, section [{SECTION}]", settings))
        _add_options(options, parsed, "cfg_parser")
    if path is not None:
        settings, parsed = read_file(Path(path))
        sources.append((lambda _: f"{path}, section [{SECTION}]", settings))
        _add_options(options, parsed, str(path))
    return _validated(sources), dict(options)


def merge_options(*sources: Mapping[str, Mapping[str, Any]] | None) -> PluginOptions:
    """Return the options of plugins from several mappings, of which earlier ones precede later ones.

    Raises:
        ConfigError: a source is not a mapping of mappings.
    """
    merged: PluginOptions = {}
    for source in sources:
        for plugin, given in _mappings({} if source is None else source).items():
            into = merged.setdefault(plugin, {})
            for option, value in given.items():
                into.setdefault(option, value)
    return merged


def _add_options(options: dict[str, SourcedOptions], more: Mapping[str, Mapping[str, Any]], source: str) -> None:
    """Add the options of a source to those of the sources that precede it."""
    for plugin, given in more.items():
        into = options.setdefault(plugin, SourcedOptions())
        for option, value in given.items():
            into.add(option, value, source)


def _mappings(given: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the argument plugin_options, checked."""
    if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
        raise ConfigError(
            "plugin_options, an argument, has to be a mapping of options for each plugin, as in "
            '{"codecs": {"engine": "msgspec"}}'
        )
    return dict(given)


def _validated(sources: list[_Source]) -> ServerConfig:
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for title, settings in sources:
        for name, value in settings.items():
            if name not in merged:
                merged[name] = value
                origin[name] = title(name)
    try:
        return ServerConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(fault, origin) for fault in error.errors())) from error


def _complaint(fault: Any, origin: dict[str, str]) -> str:
    name = str(fault["loc"][0])
    if name not in ServerConfig.model_fields:
        import difflib  # noqa: PLC0415  # only for a mistake

        close = difflib.get_close_matches(name, ServerConfig.model_fields, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"settings: {', '.join(ServerConfig.model_fields)}"
        return f"{name!r}, from {origin[name]}, is not a setting; {advice}"
    allowed = allowed_values(name)
    return f"{name} is {quote_value(fault['input'])}, from {origin[name]}: {fault['msg']} (allowed: {allowed})"
