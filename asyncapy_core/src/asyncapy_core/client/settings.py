"""The arguments of `AsyncClient` as keyword arguments of others, for type checkers; a test compares them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Literal, TypedDict

import trio

from asyncapy_core.plugins.manager import PluginManager
from asyncapy_core.protocol.wire import ByteOrder


class SessionSettings(TypedDict, total=False):
    """The keyword arguments of `AsyncClient`, without ``open_stream``."""

    byteorder: ByteOrder
    header_size: int
    tls: bool
    encoding: str
    timeout: float | None
    ssl_context: ssl.SSLContext | None
    ca_file: str | os.PathLike[str] | None
    max_packet: int | None
    raise_failures: bool
    plugins: PluginManager | None
    version: Literal[22, 23] | None


class ClientSettings(SessionSettings, total=False):
    """All keyword arguments of `AsyncClient`."""

    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None
