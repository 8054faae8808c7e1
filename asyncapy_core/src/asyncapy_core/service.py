"""What all connections of one running server share, and the record of those connections.

Knows nothing of what happens on a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.deadlines import Deadlines
from asyncapy_core.outbox import Outbox
from asyncapy_core.pending import Pending
from asyncapy_core.proxy import Proxies
from asyncapy_core.transport import SocketTransport

if TYPE_CHECKING:
    import logging
    import ssl

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.connection import Connection
    from asyncapy_core.dispatch import Dispatcher
    from asyncapy_core.packing import PackerRegistry
    from asyncapy_core.server import Server
    from asyncapy_core.sessions import SessionTable

LINGER_SECONDS: Final = 2.0
"""How long a connection that is being closed is read from, so that its last reply is not lost to a reset."""

PROXY_SECONDS: Final = 3.0
"""How long a trusted proxy may take to say who its client is."""


@dataclass(slots=True)
class Service:
    """What all connections of a running server share."""

    server: Server
    config: ServerConfig
    packers: PackerRegistry
    dispatcher: Dispatcher
    sessions: SessionTable
    log: logging.Logger
    spawn: Callable[..., None]
    max_connections: int
    tls: ssl.SSLContext | None = None
    proxies: Proxies = field(default_factory=lambda: Proxies([]))
    draining: bool = False
    connections: set[Connection] = field(default_factory=set)
    refused: set[Connection] = field(default_factory=set)
    pending: Pending = field(default_factory=Pending)
    idle: trio.Event = field(default_factory=trio.Event)
    reading: Deadlines[Connection] = field(init=False)
    writing: Deadlines[Outbox] = field(init=False)
    lingering: Deadlines[Connection] = field(init=False)
    introducing: Deadlines[SocketTransport] = field(init=False)
    handshaking: Deadlines[SocketTransport] = field(init=False)

    def __post_init__(self) -> None:
        self.reading = Deadlines(self.config.timeout, _expire)
        self.writing = Deadlines(self.config.send_timeout, Outbox.poison)
        self.lingering = Deadlines(LINGER_SECONDS, _expire)
        self.introducing = Deadlines(PROXY_SECONDS, SocketTransport.abort)
        self.handshaking = Deadlines(self.config.handshake_timeout, SocketTransport.abort)

    @property
    def deadlines(self) -> tuple[Deadlines[Any], ...]:
        """All that is to be watched over."""
        return self.reading, self.writing, self.lingering, self.introducing, self.handshaking

    def drain(self) -> None:
        """Have every connection end when it has answered what was sent to it; ``idle`` is set when the last one has."""
        self.draining = True
        for connection in self.connections:
            connection.wake()
        self.pending.abort_all()
        self.lingering.expire_all()
        self._note_idle()

    def arrived(self, transport: SocketTransport) -> None:
        """A peer has introduced itself, or given up."""
        self.pending.discard(transport)
        self._note_idle()

    def forget(self, connection: Connection) -> None:
        """Drop what is kept of a connection; it has ended."""
        self.sessions.discard(connection.session)
        self.reading.stop(connection)
        self.lingering.stop(connection)
        self.connections.discard(connection)
        self.refused.discard(connection)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.draining and not (self.connections or self.refused or self.pending):
            self.idle.set()


def _expire(connection: Connection) -> None:
    connection.expire()
