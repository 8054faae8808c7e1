"""The settings of a server as keyword arguments, for type checkers.

Checks no value: that is done by `asyncapy_core.config.ServerConfig`, whose import takes longer than that of all other
modules. A test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypedDict

from asyncapy_core.protocol.wire import ByteOrder


class FurtherSettings(TypedDict, total=False):
    """The settings that `Server` accepts in addition to its documented parameters."""

    max_packet: int
    max_connections: int
    max_output: int
    packets_per_turn: int
    send_timeout: float
    handler_timeout: float | None
    handshake_timeout: float
    drain_timeout: float
    tls_cert: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    tls_client_ca: str | os.PathLike[str] | None
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
