"""`Configured`: the settings of a server, as arguments, as attributes and through `configure`.

`asyncapy_core.config.ServerConfig` validates them. It is imported late: pydantic takes longer to import than the rest
of core. A test compares the names and types here with its fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

from asyncapy_core.plugins.restriction import Restriction
from asyncapy_core.protocol.wire import ByteOrder

if TYPE_CHECKING:
    import configparser

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.config.sources import PluginOptions
    from asyncapy_core.plugins.manager import PluginManager

Path = str | os.PathLike[str]
Get = TypeVar("Get")
Set = TypeVar("Set")


class FurtherSettings(TypedDict, total=False):
    """The settings that `Server` accepts in addition to its documented parameters."""

    log_format: str
    max_packet: int
    max_connections: int
    max_output: int
    max_buffered: int
    packets_per_turn: int
    max_in_flight: int
    session_age: float | None
    send_timeout: float
    handler_timeout: float | None
    cancel_on_disconnect: bool
    measure: bool
    describe: bool
    replies: Literal["any", "one"]
    handshake_timeout: float
    drain_timeout: float
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    proxy_protocol_from: str | Sequence[str]
    plugins_allow: str | Sequence[str] | None
    plugins_deny: str | Sequence[str]
    plugins_require: str | Sequence[str]


class ServerSettings(FurtherSettings, total=False):
    """All settings of a server, as `Server.configure` accepts them."""

    addr: str | Sequence[str]
    port: int
    buf: int
    logging_level: int | str
    console_format: str
    datefmt: str
    timeout: float
    header_size: int
    byteorder: ByteOrder
    session_limit: int


class Setting(Generic[Get, Set]):
    """A setting as an attribute: reading returns the valid setting, assigning calls `Configured.configure`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, server: None, owner: type) -> Self: ...
    @overload
    def __get__(self, server: Configured, owner: type) -> Get: ...
    def __get__(self, server: Configured | None, owner: type) -> Self | Get:
        if server is None:
            return self
        value: Get = getattr(server.config, self._name)
        return value

    def __set__(self, server: Configured, value: Set) -> None:
        settings: Any = {self._name: value}
        server.configure(**settings)


class Configured:
    """The settings of a server.

    Args:
        passed: the settings passed to the constructor, by name.
        path: a configuration file.
        cfg_parser: a configparser that was filled elsewhere.
        plugins: the plugins, which ``plugins_allow`` and ``plugins_deny`` restrict.
        plugin_options: options of plugins by plugin, which precede all other sources.

    Raises:
        ConfigError: a setting is wrong; the message names the setting, its source and the allowed values.
    """

    addr: Setting[str, str | Sequence[str]] = Setting()
    buf: Setting[int, int] = Setting()
    logging_level: Setting[int, int | str] = Setting()
    console_format: Setting[str, str] = Setting()
    datefmt: Setting[str, str] = Setting()
    log_format: Setting[str, str] = Setting()
    timeout: Setting[float, float] = Setting()
    header_size: Setting[int, int] = Setting()
    byteorder: Setting[ByteOrder, ByteOrder] = Setting()
    session_limit: Setting[int, int] = Setting()
    max_packet: Setting[int, int] = Setting()
    max_connections: Setting[int, int] = Setting()
    max_output: Setting[int, int] = Setting()
    max_buffered: Setting[int, int] = Setting()
    packets_per_turn: Setting[int, int] = Setting()
    max_in_flight: Setting[int, int] = Setting()
    session_age: Setting[float | None, float | None] = Setting()
    send_timeout: Setting[float, float] = Setting()
    handler_timeout: Setting[float | None, float | None] = Setting()
    cancel_on_disconnect: Setting[bool, bool] = Setting()
    measure: Setting[bool, bool] = Setting()
    describe: Setting[bool, bool] = Setting()
    replies: Setting[Literal["any", "one"], Literal["any", "one"]] = Setting()
    handshake_timeout: Setting[float, float] = Setting()
    drain_timeout: Setting[float, float] = Setting()
    tls_cert: Setting[str | None, Path | None] = Setting()
    tls_key: Setting[str | None, Path | None] = Setting()
    tls_client_ca: Setting[str | None, Path | None] = Setting()
    proxy_protocol_from: Setting[list[str], str | Sequence[str]] = Setting()
    plugins_allow: Setting[list[str] | None, str | Sequence[str] | None] = Setting()
    plugins_deny: Setting[list[str], str | Sequence[str]] = Setting()
    plugins_require: Setting[list[str], str | Sequence[str]] = Setting()

    def __init__(
        self,
        passed: Mapping[str, Any],
        path: Path | None,
        cfg_parser: configparser.RawConfigParser | None,
        plugins: PluginManager,
        plugin_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.plugins = plugins
        self._restriction: Restriction | None = None
        self._config, self._options = self._load(dict(passed), path, cfg_parser, plugin_options)

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Raise TypeError for a class attribute with the name of a setting, which would have no effect."""
        super().__init_subclass__(**arguments)
        for name in ServerSettings.__annotations__:
            if name in vars(cls) and not isinstance(vars(cls)[name], (Setting, property)):
                raise TypeError(
                    f"{cls.__name__}.{name} is a class attribute, but a setting belongs to an instance: pass "
                    f"{name}=... to super().__init__(), or set server.{name} = ..."
                )

    @property
    def config(self) -> ServerConfig:
        """The validated settings; change them through `configure`."""
        return self._config

    @property
    def cfg_parser(self) -> configparser.RawConfigParser | None:
        """The configparser that was passed to the server."""
        return self._cfg_parser

    def configure(
        self,
        *,
        path: Path | None = None,
        plugin_options: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Unpack[ServerSettings],
    ) -> None:
        """Change settings before the server serves: ``server.configure(timeout=30)``.

        Assigning an attribute does the same: ``server.timeout = 30``.

        Args:
            path: a configuration file to read instead of the one passed to the constructor.
            plugin_options: options of plugins by plugin, which precede those passed to the constructor.
            settings: fields of `ServerConfig`; they precede all other sources.

        Raises:
            ConfigError: a setting is wrong; the message names the setting, its source and the allowed values.
            RuntimeError: the server is serving.
        """
        if "_config" not in vars(self):
            names = ", ".join(settings) or "path"
            raise RuntimeError(f"{names} is set before super().__init__(); set it later, or pass it as an argument")
        passed = {**self._passed, **settings}
        file = self._path if path is None else path
        self._config, self._options = self._load(passed, file, self._cfg_parser, plugin_options, self._plugin_options)

    def _load(
        self,
        passed: dict[str, Any],
        path: Path | None,
        cfg_parser: configparser.RawConfigParser | None,
        *plugin_options: Mapping[str, Mapping[str, Any]] | None,
    ) -> tuple[ServerConfig, PluginOptions]:
        """Read the settings from all sources, restrict the plugins, and remember the sources."""
        from asyncapy_core.config.loading import load_config, merge_options  # noqa: PLC0415  # see above

        merged = merge_options(*plugin_options)
        config, options = load_config(passed, path=path, parser=cfg_parser, plugin_options=merged, plugins=self.plugins)
        restriction = Restriction(config.plugins_allow, config.plugins_deny)
        self.plugins.restrict(restriction, replaced=self._restriction)
        self._restriction = restriction
        self._passed, self._path, self._cfg_parser, self._plugin_options = passed, path, cfg_parser, merged
        return config, options
