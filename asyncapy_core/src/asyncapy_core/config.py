"""`ServerConfig`, the settings of a server, and `load_config`, which reads them from all sources.

The order of precedence: constructor arguments, ``ASYNCAPY_*`` environment variables, a configparser, a configuration
file (INI with a section ``[AsyncAPY]``, or TOML with a table of that name).
"""

from __future__ import annotations

import configparser
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, ValidationInfo, field_validator

from asyncapy_core import defaults
from asyncapy_core.addresses import is_unix
from asyncapy_core.config_sources import (
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
from asyncapy_core.logs import LineFormatter
from asyncapy_core.setting_kinds import NO_HOST, Addresses, Items, Names, load_pydantic_plugins, setting, valid_network

__all__ = ["PluginOptions", "ServerConfig", "describe_setting", "load_config", "load_pydantic_plugins", "merge_options"]

load_pydantic_plugins()


class ServerConfig(BaseModel, extra="forbid", frozen=True):
    """All settings of a server, with their defaults. Times are in seconds, sizes in bytes."""

    addr: Addresses = setting(
        defaults.ADDR,
        "the addresses on which the server listens; an address other than a local one lets other machines connect",
        "host names, IP addresses and unix:/paths to bind to, separated by commas or lines",
        min_length=1,
    )
    port: int = setting(
        defaults.PORT,
        "the TCP port of all addresses that are not paths",
        "a TCP port, 0 to 65535; 0 picks a free one",
        ge=0,
        le=65535,
    )
    buf: int = setting(
        defaults.BUF,
        "the size of a read from a socket; a packet that is larger is read in larger pieces",
        "the least size of a read, in bytes, 1 to 1048576",
        ge=1,
        le=1048576,
    )
    logging_level: int = setting(
        defaults.LOGGING_LEVEL,
        "the least level of log lines; at 10 (DEBUG), each reply is sent by itself, which is slower",
        "a level of the logging module, as a number or name",
        ge=0,
    )
    console_format: str = setting(
        defaults.CONSOLE_FORMAT, "the format of a log line on standard error", "a %-style logging format"
    )
    datefmt: str = setting(defaults.DATEFMT, "the format of the time in a log line", "a date format of time.strftime")
    log_format: str = setting(
        defaults.LOG_FORMAT,
        "the form of the log: text for people, or JSON for programs that collect logs",
        "text, for lines in console_format; json; or another format of an installed distribution",
        min_length=1,
    )
    timeout: float = setting(
        defaults.TIMEOUT,
        "the time in which a whole packet has to arrive, from the moment at which the server waits for it. Then a "
        "session of version 22 ends with ERR_TIMED_OUT; one of version 23 gets a PING first. The time of a handler "
        "does not count",
        "seconds, more than 0",
        gt=0,
        allow_inf_nan=False,
    )
    header_size: int = setting(
        defaults.HEADER_SIZE,
        "the size of the length in front of each packet; clients have to use the same",
        "bytes of the Content-Length header, 1 to 8",
        ge=1,
        le=8,
    )
    byteorder: Literal["big", "little"] = setting(
        defaults.BYTEORDER, "the byte order of that length; clients have to use the same", "'big' or 'little'"
    )
    session_limit: int = setting(
        defaults.SESSION_LIMIT,
        "the most concurrent sessions of one client address, or of one /64 network of IPv6; a further one is "
        "refused with ERR_SESSION_LIMIT_REACHED",
        "sessions for each address, 0 or more; 0 sets no limit",
        ge=0,
    )
    max_packet: int = setting(
        defaults.MAX_PACKET,
        "the size of the largest packet; a larger one is refused with ERR_PACKET_TOO_LARGE, and the session ends",
        f"the largest Content-Length accepted, in bytes, {defaults.MIN_PACKET} or more",
        ge=defaults.MIN_PACKET,
    )
    max_connections: int = setting(
        10_000,
        "the most open connections; a further one is refused with ERR_SERVER_BUSY. The limit of open files of the "
        "process, minus 64, can make it smaller",
        "connections at a time, 1 or more",
        ge=1,
    )
    max_output: int = setting(
        1024 * 1024,
        "the most output that waits for one client to read it; beyond that, the handler that sends waits",
        "bytes queued for one connection, 1 or more",
        ge=1,
    )
    max_buffered: int = setting(
        256 * 1024 * 1024,
        "the most memory for packets that have arrived in part, of all connections; beyond it, the connection with "
        "the largest one is refused with ERR_SERVER_BUSY",
        "bytes of incomplete packets of all connections, 1 or more",
        ge=1,
    )
    packets_per_turn: int = setting(
        40,
        "the most packets of one client that are handled in a row before the other clients get their turn",
        "pipelined packets until other connections get their turn, 1 or more",
        ge=1,
    )
    max_in_flight: int = setting(
        100,
        "the most requests of one session of version 23 that are handled concurrently; further ones wait",
        "requests of a session of version 23 that are handled at a time, 1 or more",
        ge=1,
    )
    session_age: float | None = setting(
        None,
        "the time after which a session of version 23 ends and its client connects again, without the loss of a "
        "request; behind a load balancer, clients move to new servers within this time",
        "seconds, give or take 10 %, after which a session of version 23 ends; none for no limit",
        gt=0,
        allow_inf_nan=False,
    )
    send_timeout: float = setting(
        10,
        "the time in which a client has to accept each 64 KiB of output; otherwise its connection is aborted",
        "seconds, more than 0",
        gt=0,
        allow_inf_nan=False,
    )
    handler_timeout: float | None = setting(
        None,
        "the time after which a handler is cancelled, and the request is answered with ERR_HANDLER_FAILED",
        "seconds for one handler, more than 0; none for no limit",
        gt=0,
        allow_inf_nan=False,
    )
    cancel_on_disconnect: bool = setting(
        False,  # noqa: FBT003  # a default
        "whether a handler of version 22 is cancelled when its client has left; in version 23 it always is",
        "true or false: whether to cancel the handler of a client that has left",
    )
    measure: bool = setting(
        False,  # noqa: FBT003  # a default
        "whether the duration of each request is measured, for the statistics and metrics; it costs about 0.35 us for "
        "each request",
        "true or false: whether statistics have the durations of requests",
    )
    describe: bool = setting(
        False,  # noqa: FBT003  # a default
        "whether ERR_NO_HANDLER gives a reason, and the operations whose names are close to that of the packet; "
        "clients learn names from it",
        "true or false: whether ERR_NO_HANDLER names the operations whose names are close to that of the packet",
    )
    replies: Literal["any", "one"] = setting(
        "any",
        "whether the server enforces one answer to each packet of version 22; version 23 does not need this",
        "'any', or 'one': a packet without an answer gets ERR_NO_REPLY, and a second one is refused",
    )
    handshake_timeout: float = setting(
        10,
        "the time for the TLS handshake of a new connection; then the connection is closed",
        "seconds for a TLS handshake, more than 0",
        gt=0,
        allow_inf_nan=False,
    )
    drain_timeout: float = setting(
        10,
        "the time that running handlers have after a stop, such as SIGTERM; then they are cancelled",
        "seconds, 0 or more",
        ge=0,
        allow_inf_nan=False,
    )
    tls_cert: str | None = setting(
        None,
        "the certificate with which the server proves its name; with it, all TCP connections use TLS",
        "a PEM file: the server's certificate and its chain",
        min_length=1,
    )
    tls_key: str | None = setting(
        None,
        "the private key of that certificate",
        "a PEM file: the private key, if it is not in tls_cert",
        min_length=1,
    )
    tls_client_ca: str | None = setting(
        None,
        "the certificate authorities of clients; a client without a certificate of one of them is refused",
        "a PEM file: the CAs of clients' certificates",
        min_length=1,
    )
    proxy_protocol_from: Items = setting(
        [],
        "the proxies from which the server accepts a PROXY header with the address of the client; any host in these "
        "networks can claim any address",
        "networks of proxies that send a PROXY header, or unix, separated by commas or lines",
    )
    plugins_allow: Names | None = setting(
        None,
        "the only plugins that are imported; without it, all installed ones are",
        "names of plugins, separated by commas or lines; none for all",
    )
    plugins_deny: Names = setting(
        [],
        "plugins that are not imported, although they are installed; an unknown name is an error",
        "names of plugins, separated by commas or lines",
    )
    plugins_require: Names = setting(
        [],
        "plugins without which the server must not serve; others that fail are left out",
        "names of plugins, separated by commas or lines: the server ends if one is missing or fails",
    )

    @field_validator("addr")
    @classmethod
    def _hosts(cls, value: str) -> str:
        addresses = defaults.split_list(value)
        for address in addresses:
            if not is_unix(address) and NO_HOST.search(address):
                raise ValueError(f"{address!r} is no address: write it without quotes, brackets, blanks and comments")
        if not addresses:
            raise ValueError("it has no address")
        return value

    @field_validator("logging_level", mode="before")
    @classmethod
    def _level_name(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip().isdigit():
            return logging.getLevelNamesMapping().get(value.strip().upper(), value)
        return value

    @field_validator("console_format")
    @classmethod
    def _log_format(cls, value: str) -> str:
        try:
            LineFormatter(value, defaults.DATEFMT).format(logging.makeLogRecord({}))
        except TypeError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _not_a_bool(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name not in {"cancel_on_disconnect", "describe", "measure"}:
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
            raise ValueError("it has no effect without tls_cert")
        return value

    @field_validator("proxy_protocol_from")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        return [network if network == "unix" else valid_network(network) for network in value]

    @property
    def addresses(self) -> list[str]:
        """The addresses to bind to, one by one."""
        return defaults.split_list(self.addr)


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


def describe_setting(name: str) -> str:
    """Return sentences about a setting: its effect, and the allowed values with their unit."""
    meaning = str(ServerConfig.model_fields[name].description)
    return f"{meaning[0].upper()}{meaning[1:]}. Allowed: {_allowed(name)}."


def _allowed(name: str) -> str:
    extra = ServerConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict), name
    return str(extra["allowed"])


def _complaint(fault: Any, origin: dict[str, str]) -> str:
    name = str(fault["loc"][0])
    if name not in ServerConfig.model_fields:
        import difflib  # noqa: PLC0415  # only for a mistake

        close = difflib.get_close_matches(name, ServerConfig.model_fields, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"settings: {', '.join(ServerConfig.model_fields)}"
        return f"{name!r}, from {origin[name]}, is not a setting; {advice}"
    allowed = _allowed(name)
    return f"{name} is {quote_value(fault['input'])}, from {origin[name]}: {fault['msg']} (allowed: {allowed})"
