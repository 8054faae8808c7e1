"""The server's settings: one pydantic model, whatever source a value is from.

Precedence, first wins: constructor arguments, ``ASYNCAPY_*`` environment variables, then a configuration file (INI with
a section ``[AsyncAPY]``, or TOML with a table of that name) or a configparser.
"""

from __future__ import annotations

import configparser
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from asyncapy_core import defaults
from asyncapy_core.errors import ConfigError

SECTION = "AsyncAPY"
PLUGIN_SECTION = "plugin:"
ENVIRONMENT = "ASYNCAPY_"
_NEAR_MISS = re.compile(r"\s*plugins?\s*[.:]", re.IGNORECASE)
"""What was meant for a plugin, in the form of another kind of file, and would reach none."""


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _joined(value: object) -> object:
    return ", ".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


Names = Annotated[list[str], BeforeValidator(_listed)]


class ServerConfig(BaseModel, extra="forbid", frozen=True):
    """All settings of a server, with their defaults. Times are in seconds, sizes in bytes."""

    addr: Annotated[str, BeforeValidator(_joined)] = Field(
        default=defaults.ADDR,
        description="host names, IP addresses and unix:/paths to bind to, separated by commas",
        min_length=1,
    )
    port: int = Field(default=defaults.PORT, description="a TCP port, 0 to 65535; 0 picks a free one", ge=0, le=65535)
    buf: int = Field(
        default=defaults.BUF, description="bytes to ask of a socket at least, 1 to 1048576", ge=1, le=1048576
    )
    logging_level: int = Field(
        default=defaults.LOGGING_LEVEL, description="a level of the logging module, as a number or name", ge=0
    )
    console_format: str = Field(default=defaults.CONSOLE_FORMAT, description="a %-style logging format")
    datefmt: str = Field(default=defaults.DATEFMT, description="a date format of time.strftime")
    timeout: float = Field(default=defaults.TIMEOUT, description="seconds, more than 0", gt=0, allow_inf_nan=False)
    header_size: int = Field(
        default=defaults.HEADER_SIZE, description="bytes of the Content-Length header, 1 to 8", ge=1, le=8
    )
    byteorder: Literal["big", "little"] = Field(default=defaults.BYTEORDER, description="'big' or 'little'")
    session_limit: int = Field(
        default=defaults.SESSION_LIMIT, description="sessions for each address, 0 or more; 0 sets no limit", ge=0
    )
    max_packet: int = Field(
        default=defaults.MAX_PACKET, description="the largest Content-Length accepted", ge=defaults.MIN_PACKET
    )
    max_connections: int = Field(default=10_000, description="connections at a time, 1 or more", ge=1)
    max_output: int = Field(default=1024 * 1024, description="bytes queued for one connection, 1 or more", ge=1)
    packets_per_turn: int = Field(
        default=20, description="pipelined packets before other connections get their turn, 1 or more", ge=1
    )
    send_timeout: float = Field(default=10, description="seconds, more than 0", gt=0, allow_inf_nan=False)
    handler_timeout: float | None = Field(
        default=None,
        description="seconds that a handler may take, more than 0; without it, any time",
        gt=0,
        allow_inf_nan=False,
    )
    handshake_timeout: float = Field(
        default=10, description="seconds that a TLS handshake may take, more than 0", gt=0, allow_inf_nan=False
    )
    drain_timeout: float = Field(default=10, description="seconds, 0 or more", ge=0, allow_inf_nan=False)
    tls_cert: str | None = Field(
        default=None, description="a PEM file: the server's certificate and its chain", min_length=1
    )
    tls_key: str | None = Field(
        default=None, description="a PEM file: the key, where it is not in tls_cert", min_length=1
    )
    tls_client_ca: str | None = Field(
        default=None, description="a PEM file: the CAs that clients' certificates have to be from", min_length=1
    )
    proxy_protocol_from: Names = Field(
        default=[], description="networks of proxies that begin with a PROXY header, or unix, separated by commas"
    )
    plugins_allow: Names | None = Field(
        default=None, description="names of plugins, separated by commas; without it, all"
    )
    plugins_deny: Names = Field(default=[], description="names of plugins, separated by commas")
    plugins_require: Names = Field(default=[], description="names of plugins, separated by commas")

    @field_validator("logging_level", mode="before")
    @classmethod
    def _level_name(cls, value: object) -> object:
        import logging  # noqa: PLC0415  # only a level that is given by name needs the table of names

        if isinstance(value, str) and not value.strip().isdigit():
            return logging.getLevelNamesMapping().get(value.strip().upper(), value)
        return value

    @field_validator("console_format")
    @classmethod
    def _log_format(cls, value: str) -> str:
        import logging  # noqa: PLC0415  # as above

        try:
            logging.Formatter(value).format(logging.makeLogRecord({}))
        except TypeError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _not_a_bool(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("Input should not be a boolean")
        return value

    @field_validator("tls_cert", "tls_key", "tls_client_ca", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("tls_key", "tls_client_ca")
    @classmethod
    def _with_certificate(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("tls_cert") is None:
            raise ValueError("it is of no use without tls_cert")
        return value

    @field_validator("proxy_protocol_from")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            if network != "unix":
                ipaddress.ip_network(network)
        return value

    @property
    def addresses(self) -> list[str]:
        """What to bind to, each by itself."""
        return [part.strip() for part in self.addr.split(",") if part.strip()]


PluginOptions = dict[str, dict[str, Any]]
_Source = tuple[Callable[[str], str], dict[str, Any]]
"""How to name the place that a setting is from, and the settings from there."""


def load_config(
    arguments: Mapping[str, Any],
    *,
    path: str | os.PathLike[str] | None = None,
    parser: configparser.RawConfigParser | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[ServerConfig, PluginOptions]:
    """Put the settings together from all sources.

    Args:
        arguments: what was given to the constructor, by name; only what was given.
        path: a configuration file; one that ends in ``.toml`` is TOML, any other INI.
        parser: a configparser that has been filled already; it comes before the file.
        environ: the environment, `os.environ` unless given.

    Returns:
        The settings, and the options of plugins by the plugin's name.

    Raises:
        ConfigError: a file cannot be read, a name is unknown or a value wrong.
    """
    sources: list[_Source] = [
        (lambda name: f"the argument {name}", dict(arguments)),
        (
            lambda name: f"the environment variable {ENVIRONMENT}{name.upper()}",
            _from_environment(os.environ if environ is None else environ),
        ),
    ]
    options: PluginOptions = {}
    if parser is not None:
        settings, parsed = _from_parser(parser, "cfg_parser")
        sources.append((lambda _: f"cfg_parser, section [{SECTION}]", settings))
        options = parsed
    if path is not None:
        settings, parsed = _from_file(Path(path))
        sources.append((lambda _: f"{path}, section [{SECTION}]", settings))
        options = {**parsed, **options}
    return _validated(sources), options


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Pick out the settings; what else is called ``ASYNCAPY_*`` may belong to a plugin or a program."""
    wanted = {f"{ENVIRONMENT}{name.upper()}": name for name in ServerConfig.model_fields}
    return {wanted[key]: value for key, value in environ.items() if key in wanted}


def _from_file(path: Path) -> tuple[dict[str, Any], PluginOptions]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    if path.suffix.lower() == ".toml":
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        return _from_tables(tables, str(path))
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        raise ConfigError(f"{path} is not a valid INI file: {error}") from error
    return _from_parser(parser, str(path))


def _from_tables(tables: dict[str, Any], source: str) -> tuple[dict[str, Any], PluginOptions]:
    for name, table in tables.items():
        if (name == "plugin" and isinstance(table, dict)) or _NEAR_MISS.match(name):
            raise ConfigError(f"{source}: the options of a plugin go into [plugins.NAME]; got [{name}]")
    if not tables.keys() & {SECTION, "plugins"}:
        raise ConfigError(f"{source} has no table [{SECTION}]; settings go there, a plugin's into [plugins.NAME]")
    settings = tables.get(SECTION, {})
    options = tables.get("plugins", {})
    if not isinstance(settings, dict):
        raise ConfigError(f"{source}: [{SECTION}] must be a table; got {settings!r}")
    if not isinstance(options, dict) or not all(isinstance(table, dict) for table in options.values()):
        raise ConfigError(f"{source}: [plugins] must hold a table for each plugin, [plugins.NAME]")
    return settings, options


def _from_parser(parser: configparser.RawConfigParser, source: str) -> tuple[dict[str, Any], PluginOptions]:
    for section in parser.sections():
        if _NEAR_MISS.match(section) and not section.startswith(PLUGIN_SECTION):
            raise ConfigError(f"{source}: the options of a plugin go into [{PLUGIN_SECTION}NAME]; got [{section}]")
    options = {
        section.removeprefix(PLUGIN_SECTION): dict(parser.items(section, raw=True))
        for section in parser.sections()
        if section.startswith(PLUGIN_SECTION)
    }
    if parser.has_section(SECTION):
        return dict(parser.items(SECTION, raw=True)), options
    if not options:
        raise ConfigError(
            f"{source} has no section [{SECTION}]; settings go there, a plugin's into [{PLUGIN_SECTION}NAME]"
        )
    return {}, options


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
    allowed = ServerConfig.model_fields[name].description
    return f"{name} is {fault['input']!r}, from {origin[name]}: {fault['msg']} (allowed: {allowed})"
