"""`NumberedSession`: version 23 on one connection: concurrent requests (docs/protocol.md, "Version 23").

One task leads: it reads packets, and runs each handler in place. When a handler waits for the first time, another task
becomes the leader; the task of the handler ends with its request. So a handler that never waits costs no task.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import (
    ClientDisconnected,
    ConnectionLost,
    EncodeError,
    ErrorCode,
    MalformedPacket,
    ProtocolError,
)
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import SharedPacket
from asyncapy_core.routing.dispatch import NoHandler
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.intake import TimedOut
from asyncapy_core.server.numbered_request import NumberedRequest, Progress
from asyncapy_core.server.stage import Stage
from asyncapy_core.server.worker import Worker
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link
    from asyncapy_core.session import Session

CANCELLED: Final = "cancelled"
"""The outcome of a request that its client has cancelled."""

Waiting = tuple[int, int, bytes]
"""A request that waits for its turn: its number, the wire id of its encoding, and its payload."""


class NumberedSession:
    """The packets of one connection in version 23. The client of the session sends events through it.

    Args:
        link: the connection.
        decoder: the decoder, with the bytes received so far.
    """

    __slots__ = (
        "_base",
        "_between_turns",
        "_bytes_in_flight",
        "_decoder",
        "_dispatch",
        "_encoding",
        "_frames",
        "_highest",
        "_idle",
        "_kept",
        "_leaving",
        "_link",
        "_outbox",
        "_pinged",
        "_requests",
        "_room",
        "_waiting",
    )

    def __init__(self, link: Link, decoder: NumberedDecoder) -> None:
        state = link.state
        link.intake.decoder = decoder
        self._link = link
        self._decoder = decoder
        self._outbox = link.outbox
        self._encoding = state.encodings.default  # of events: JSON until the first request
        self._frames: deque[NumberedFrame] = deque()
        self._requests: dict[int, NumberedRequest] = {}
        self._waiting: deque[Waiting] = deque()
        self._bytes_in_flight = 0
        self._highest = 0  # the highest number that was handed to a handler or refused
        self._kept: tuple[NumberedRequest, bytes] | None = None
        self._leaving = False
        self._pinged = False
        self._between_turns = False
        self._base: Context = copy_context()
        self._idle: trio.Event | None = None
        self._room: trio.Event | None = None
        debug = state.log.isEnabledFor(logging.DEBUG)
        self._dispatch = state.dispatcher.dispatch_traced if debug else state.dispatcher.dispatch

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._link.log

    @property
    def is_open(self) -> bool:
        """Whether packets can be sent."""
        return self._link.stage is Stage.OPEN and not self._outbox.poisoned
