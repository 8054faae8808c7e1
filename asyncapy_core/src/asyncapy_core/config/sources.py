"""Reads settings and the options of plugins from INI and TOML files, configparsers and the environment.

Validates no value. A section, a table or a key that nothing reads is an error if it resembles one of AsyncAPY, and is
named in the log if it may belong to another program.
"""

from __future__ import annotations

import codecs
import configparser
import functools
import logging
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from asyncapy_core.errors import ConfigError

log: logging.Logger = logging.getLogger("asyncapy.config")

SECTION: Final = "AsyncAPY"
PLUGIN_SECTION: Final = "plugin:"
PLUGIN_TABLE: Final = "plugins"
ENVIRONMENT: Final = "ASYNCAPY_"
MAX_QUOTE: Final = 200
"""The most characters of a value in a message."""
OBSOLETE: Final = "encoding"
"""A setting in configuration files of version 0.5."""

PLUGIN_VARIABLE: Final = f"{ENVIRONMENT}PLUGIN_"
"""The beginning of a variable with an option of a plugin, ``ASYNCAPY_PLUGIN_NAME__OPTION``."""

PluginOptions = dict[str, dict[str, Any]]
"""The options of plugins by plugin."""


class SourcedOptions(dict[str, Any]):
    """The options of one plugin, from several sources.

    Attributes:
        sources: the name of the source of each option, for messages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, str] = {}

    def add(self, option: str, value: Any, source: str) -> None:
        """Set an option, unless an earlier source has set it."""
        if option not in self:
            self[option] = value
            self.sources[option] = source


class InstalledPlugins(Protocol):
    """The plugins of a server, before they are imported."""

    @property
    def names(self) -> Collection[str]:
        """The names of the plugins."""

    @property
    def discovers(self) -> bool:
        """Whether these include the installed plugins."""


_PLUGIN_NEAR_MISS: Final = re.compile(r"\s*plugins?\s*[.:]", re.IGNORECASE)
"""A misspelt section of a plugin, or one in the form of the other file format, which no plugin would get."""

_SIMILAR: Final = 0.85
"""The similarity, as difflib measures it, from which a name is a misspelt one: AsyncAPI is, asyncpg is not."""


def settings_in_environment(environ: Mapping[str, str], names: Collection[str]) -> dict[str, Any]:
    """Return the settings in the environment. Other ``ASYNCAPY_*`` variables may belong to plugins or programs.

    Args:
        environ: the environment.
        names: the names of all settings.
    """
    wanted = {f"{ENVIRONMENT}{name.upper()}": name for name in names}
    for key in environ:
        if key not in wanted and key.upper().startswith(ENVIRONMENT) and not key.upper().startswith(PLUGIN_VARIABLE):
            import difflib  # noqa: PLC0415  # only for a mistake

            close = difflib.get_close_matches(key.upper(), wanted, n=1, cutoff=0.9)
            if close:
                _warn_once(f"the environment variable {key} is not read; did you mean {close[0]}?")
    return {wanted[key]: value for key, value in environ.items() if key in wanted}


def options_in_environment(environ: Mapping[str, str], plugins: InstalledPlugins | None) -> dict[str, SourcedOptions]:
    """Return the options of plugins in the environment.

    In a variable, the names of a plugin and of an option are in capitals, with ``_`` in place of ``-`` and ``.``.

    Args:
        environ: the environment.
        plugins: the plugins of the server. An option of another plugin is an error later, when the server starts.

    Raises:
        ConfigError: a variable has no option, or may belong to two plugins.
    """
    found: dict[str, SourcedOptions] = {}
    names: Collection[str] = ()
    if plugins is not None and any(key.upper().startswith(PLUGIN_VARIABLE) for key in environ):
        names = plugins.names
    for key, value in environ.items():
        if key.upper().startswith(f"{ENVIRONMENT}PLUGINS_") and "__" in key:
            raise ConfigError(f"the environment variable {key} is not read; write {PLUGIN_VARIABLE}NAME__OPTION")
        if not key.upper().startswith(PLUGIN_VARIABLE):
            continue
        rest = key[len(PLUGIN_VARIABLE) :]
        owner = _owner(rest, names)
        if len(owner) > 1:
            raise ConfigError(f"the environment variable {key} may belong to {' or '.join(owner)}; use a file")
        if not owner and plugins is not None and not plugins.discovers:
            continue  # it belongs to an installed plugin, and this server does not use these
        plugin = owner[0] if owner else rest.partition("__")[0].lower()
        option = rest[len(plugin) :].removeprefix("__").lower()
        if not plugin or not option or rest[len(plugin) : len(plugin) + 2] != "__":
            raise ConfigError(f"the environment variable {key} has no option; write {PLUGIN_VARIABLE}NAME__OPTION")
        found.setdefault(plugin, SourcedOptions()).add(option, value, f"the environment variable {key}")
    return found


def _owner(rest: str, names: Collection[str]) -> list[str]:
    """Return the plugins to which ``NAME__OPTION`` may belong: those with the longest name."""
    known = [name for name in names if rest.upper().startswith(f"{re.sub('[-.]', '_', name.upper())}__")]
    longest = max(map(len, known), default=0)
    return [name for name in known if len(name) == longest]


def read_file(path: Path) -> tuple[dict[str, Any], PluginOptions]:
    """Return the settings and the options of plugins in a file: TOML if its name ends in ``.toml``, otherwise INI.

    Raises:
        ConfigError: the file cannot be read, or a section or a key is misspelt.
    """
    try:
        text = _decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    if path.suffix.lower() == ".toml":
        try:
            tables = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also an integer of more than 4,300 digits, and deep nesting
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        return _from_tables(tables, str(path))
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        raise ConfigError(f"{path} is not a valid INI file: {error}") from error
    return read_parser(parser, str(path))


def read_parser(parser: configparser.RawConfigParser, source: str) -> tuple[dict[str, Any], PluginOptions]:
    """Return the settings and the options of plugins in a configparser.

    Args:
        parser: the configparser.
        source: its name in messages.

    Raises:
        ConfigError: a section is misspelt, or a key has no value.
    """
    settings: dict[str, Any] = {}
    options: PluginOptions = {}
    for section in parser.sections():
        if section == SECTION:
            settings = _items(parser, section, source)
        elif section.startswith(PLUGIN_SECTION):
            options[section.removeprefix(PLUGIN_SECTION)] = _items(parser, section, source)
        elif _PLUGIN_NEAR_MISS.match(section):
            raise ConfigError(f"{source}: the options of a plugin go into [{PLUGIN_SECTION}NAME]; got [{section}]")
        else:
            _refuse_near_miss(section, f"{source}: [{section}]", "section")
    if not parser.has_section(SECTION) and not options:
        raise ConfigError(
            f"{source} has no section [{SECTION}]; settings go there, a plugin's into [{PLUGIN_SECTION}NAME]"
        )
    if OBSOLETE in settings:
        _warn_once(
            f"{source}, section [{SECTION}]: {OBSOLETE!r} was a setting of version 0.5 and has no effect: the first "
            "packet of a session fixes its encoding; remove the line"
        )
        del settings[OBSOLETE]
    _name_unused(parser.sections(), source, "section")
    return settings, options


def quote_value(value: object) -> str:
    """Return the repr of a value for a message, shortened, or its type if it has none: an integer may be too long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]}..."


def _items(parser: configparser.RawConfigParser, section: str, source: str) -> dict[str, Any]:
    items: dict[str, str | None] = dict(parser.items(section, raw=True))
    for name, value in items.items():
        if value is None:  # of a parser with allow_no_value
            raise ConfigError(f"{source}, section [{section}]: {name} has no value; write {name} = VALUE")
    return dict(items)


def _from_tables(tables: dict[str, Any], source: str) -> tuple[dict[str, Any], PluginOptions]:
    for name, table in tables.items():
        if name in {SECTION, PLUGIN_TABLE}:
            continue
        if not isinstance(table, dict) and not (isinstance(table, list) and table and isinstance(table[0], dict)):
            raise ConfigError(f"{source}: {name} is in no table; write [{SECTION}] above the settings")
        if _PLUGIN_NEAR_MISS.match(name) or name.casefold() in {"plugin", "plugins"}:
            raise ConfigError(f"{source}: the options of a plugin go into [{PLUGIN_TABLE}.NAME]; got [{name}]")
        _refuse_near_miss(name, f"{source}: [{name}]", "table")
    if not tables.keys() & {SECTION, PLUGIN_TABLE}:
        raise ConfigError(
            f"{source} has no table [{SECTION}]; settings go there, a plugin's into [{PLUGIN_TABLE}.NAME]"
        )
    settings = tables.get(SECTION, {})
    options = tables.get(PLUGIN_TABLE, {})
    if not isinstance(settings, dict):
        raise ConfigError(f"{source}: [{SECTION}] must be a table; got {quote_value(settings)}")
    if not isinstance(options, dict) or not all(isinstance(table, dict) for table in options.values()):
        raise ConfigError(f"{source}: [{PLUGIN_TABLE}] must hold a table for each plugin, [{PLUGIN_TABLE}.NAME]")
    _name_unused([name for name in tables if name != PLUGIN_TABLE], source, "table")
    return settings, options


def _refuse_near_miss(name: str, where: str, kind: str) -> None:
    """Raise ConfigError if a name differs from [AsyncAPY] in its letter case, its punctuation or a letter."""
    import difflib  # noqa: PLC0415  # only for a mistake

    plain = re.sub(r"[\W_]", "", name).casefold()
    if difflib.SequenceMatcher(None, plain, SECTION.casefold()).ratio() >= _SIMILAR:
        raise ConfigError(f"{where} is not read; settings go into the {kind} [{SECTION}], in these letters")


def _name_unused(names: Collection[str], source: str, kind: str) -> None:
    unused = [f"[{name}]" for name in names if name != SECTION and not name.startswith(PLUGIN_SECTION)]
    if unused:
        _warn_once(f"{source}: AsyncAPY does not read the {kind}{'s' * (len(unused) > 1)} {', '.join(unused)}")


@functools.lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    """Log a warning, but not again when the same file is read again, as it is when a setting of a server changes."""
    log.warning("%s", text)


def _decoded(data: bytes) -> str:
    """Decode a file: UTF-8, or UTF-16 with a byte order mark, which some Windows programs write."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf_16 else "utf-8-sig")
