"""`ServerConfig`: the settings of a server, with their meanings, defaults and allowed values."""

from __future__ import annotations

import logging
import os
from typing import Literal

from pydantic import BaseModel, ValidationInfo, field_validator

from asyncapy_core import defaults
from asyncapy_core.addresses import is_unix
from asyncapy_core.config.kinds import NO_HOST, Addresses, Items, Names, load_pydantic_plugins, setting, valid_network
from asyncapy_core.logs import LineFormatter

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


def describe_setting(name: str) -> str:
    """Return sentences about a setting: its effect, and the allowed values with their unit."""
    meaning = str(ServerConfig.model_fields[name].description)
    return f"{meaning[0].upper()}{meaning[1:]}. Allowed: {allowed_values(name)}."


def allowed_values(name: str) -> str:
    """Return the values that a setting may have, with their unit, as text."""
    extra = ServerConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict), name
    return str(extra["allowed"])
