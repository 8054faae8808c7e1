"""`ServerConfig`, the settings of a server, and `load_config`, which reads them from all sources.

The order of precedence: constructor arguments, ``ASYNCAPY_*`` environment variables, a configparser, a configuration
file (INI with a section ``[AsyncAPY]``, or TOML with a table of that name).
"""

from __future__ import annotations

import configparser
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

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
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import LineFormatter, safe_str

__all__ = ["PluginOptions", "ServerConfig", "load_config", "load_pydantic_plugins", "merge_options"]

log: logging.Logger = logging.getLogger("asyncapy.config")


_NO_HOST = re.compile(r"""[\s"'#;\[\](){}]""")
"""A character of no host name and of no IP address."""


def _listed(value: object) -> object:
    return defaults.split_list(value) if isinstance(value, str) else value


def _joined(value: object) -> object:
    return ", ".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


def _name(value: str) -> str:
    if defaults.PLUGIN_NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no name of a plugin: write names without quotes, brackets, blanks and comments")
    return value


def _network(text: str) -> str:
    """Return an address or a network; IPv4 mapped into IPv6 becomes IPv4, as in the addresses of peers.

    Raises:
        ValueError: it is neither, or has a zone, which the addresses of peers do not have.
    """
    network = ipaddress.ip_network(text)
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; write it without {text[text.index('%') :].partition('/')[0]}")
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return text
    return str(ipaddress.IPv4Network((mapped, network.prefixlen - 96)))


Items = Annotated[list[str], BeforeValidator(_listed)]
Names = Annotated[list[Annotated[str, AfterValidator(_name)]], BeforeValidator(_listed)]


def load_pydantic_plugins() -> None:
    """Make pydantic load its own plugins.

    It does so for the first model, and raises if the metadata of any installed distribution is broken. After that it
    makes models without plugins.
    """
    try:
        create_model("First")
    except BaseException as error:  # a plugin of pydantic, or a finder of distributions, may raise anything
        if is_from_signal(error):
            raise
        log.warning("pydantic cannot load its plugins: %s: %s", type(error).__name__, safe_str(error))


load_pydantic_plugins()


class ServerConfig(BaseModel, extra="forbid", frozen=True):
    """All settings of a server, with their defaults. Times are in seconds, sizes in bytes."""

    addr: Annotated[str, BeforeValidator(_joined)] = Field(
        default=defaults.ADDR,
        description="host names, IP addresses and unix:/paths to bind to, separated by commas or lines",
        min_length=1,
    )
    port: int = Field(default=defaults.PORT, description="a TCP port, 0 to 65535; 0 picks a free one", ge=0, le=65535)
    buf: int = Field(
        default=defaults.BUF, description="the least size of a read, in bytes, 1 to 1048576", ge=1, le=1048576
    )
    logging_level: int = Field(
        default=defaults.LOGGING_LEVEL, description="a level of the logging module, as a number or name", ge=0
    )
    console_format: str = Field(default=defaults.CONSOLE_FORMAT, description="a %-style logging format")
    datefmt: str = Field(default=defaults.DATEFMT, description="a date format of time.strftime")
    log_format: str = Field(
        default=defaults.LOG_FORMAT,
        description="text, for lines in console_format; json; or another format of an installed distribution",
        min_length=1,
    )
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
    max_buffered: int = Field(
        default=256 * 1024 * 1024, description="bytes of incomplete packets of all connections, 1 or more", ge=1
    )
    packets_per_turn: int = Field(
        default=40, description="pipelined packets until other connections get their turn, 1 or more", ge=1
    )
    max_in_flight: int = Field(
        default=100, description="requests of a session of version 23 that are handled at a time, 1 or more", ge=1
    )
    session_age: float | None = Field(
        default=None,
        description="seconds, give or take 10 %, after which a session of version 23 ends; none for no limit",
        gt=0,
        allow_inf_nan=False,
    )
    send_timeout: float = Field(default=10, description="seconds, more than 0", gt=0, allow_inf_nan=False)
    handler_timeout: float | None = Field(
        default=None,
        description="seconds for one handler, more than 0; none for no limit",
        gt=0,
        allow_inf_nan=False,
    )
    cancel_on_disconnect: bool = Field(
        default=False, description="true or false: whether to cancel the handler of a client that has left"
    )
    measure: bool = Field(default=False, description="true or false: whether statistics have the durations of requests")
    describe: bool = Field(
        default=False,
        description="true or false: whether ERR_NO_HANDLER names the operations whose names are close to that of the "
        "packet",
    )
    replies: Literal["any", "one"] = Field(
        default="any",
        description="'any', or 'one': a packet without an answer gets ERR_NO_REPLY, and a second one is refused",
    )
    handshake_timeout: float = Field(
        default=10, description="seconds for a TLS handshake, more than 0", gt=0, allow_inf_nan=False
    )
    drain_timeout: float = Field(default=10, description="seconds, 0 or more", ge=0, allow_inf_nan=False)
    tls_cert: str | None = Field(
        default=None, description="a PEM file: the server's certificate and its chain", min_length=1
    )
    tls_key: str | None = Field(
        default=None, description="a PEM file: the private key, if it is not in tls_cert", min_length=1
    )
    tls_client_ca: str | None = Field(
        default=None, description="a PEM file: the CAs of clients' certificates", min_length=1
    )
    proxy_protocol_from: Items = Field(
        default=[], description="networks of proxies that send a PROXY header, or unix, separated by commas or lines"
    )
    plugins_allow: Names | None = Field(
        default=None, description="names of plugins, separated by commas or lines; none for all"
    )
    plugins_deny: Names = Field(default=[], description="names of plugins, separated by commas or lines")
    plugins_require: Names = Field(
        default=[],
        description="names of plugins, separated by commas or lines: the server ends if one is missing or fails",
    )

    @field_validator("addr")
    @classmethod
    def _hosts(cls, value: str) -> str:
        addresses = defaults.split_list(value)
        for address in addresses:
            if not is_unix(address) and _NO_HOST.search(address):
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
        return [network if network == "unix" else _network(network) for network in value]

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


def _complaint(fault: Any, origin: dict[str, str]) -> str:
    name = str(fault["loc"][0])
    if name not in ServerConfig.model_fields:
        import difflib  # noqa: PLC0415  # only for a mistake

        close = difflib.get_close_matches(name, ServerConfig.model_fields, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"settings: {', '.join(ServerConfig.model_fields)}"
        return f"{name!r}, from {origin[name]}, is not a setting; {advice}"
    allowed = ServerConfig.model_fields[name].description
    return f"{name} is {quote_value(fault['input'])}, from {origin[name]}: {fault['msg']} (allowed: {allowed})"
