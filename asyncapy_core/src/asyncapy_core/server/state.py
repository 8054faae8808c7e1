"""What all connections of one running server share, and the record of those connections.

Knows nothing of what happens on a connection.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.logs import RateLimited
from asyncapy_core.net.deadlines import Deadlines
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.protocol.proxy_header import Proxies
from asyncapy_core.server.handshakes import HandshakeTable
from asyncapy_core.server.isolation import PeerTasks

if TYPE_CHECKING:
    import logging
    import ssl

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.protocol.encoding import EncodingRegistry
    from asyncapy_core.routing.dispatch import Dispatcher
    from asyncapy_core.server.connection import Connection
    from asyncapy_core.server.server import Server
    from asyncapy_core.server.session_table import SessionTable

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 64 * 1024
"""How long, and how much, a connection that is being closed is read from: a close with bytes unread resets it, and its
last reply may be lost."""

DRAIN_LINGER_SECONDS: Final = 0.5
"""The same while the server drains, when busy peers have sent more than `LINGER_BYTES` already."""

DRAIN_SEND_SECONDS: Final = 0.5
"""How long a peer may take to accept a chunk of output while the server drains, if ``send_timeout`` is not shorter."""

PROXY_SECONDS: Final = 3.0
"""How long a trusted proxy may take to say who its client is."""


@dataclass(slots=True)
class ServerState:
    """What all connections of a running server share."""

    server: Server
    config: ServerConfig
    encodings: EncodingRegistry
    dispatcher: Dispatcher
    sessions: SessionTable
    log: logging.Logger
    peers: PeerTasks
    max_connections: int
    tls: ssl.SSLContext | None = None
    proxies: Proxies = field(default_factory=lambda: Proxies([]))
    draining: bool = False
    connections: set[Connection] = field(default_factory=set)
    refused: set[Connection] = field(default_factory=set)
    handshakes: HandshakeTable = field(default_factory=HandshakeTable)
    idle: trio.Event = field(default_factory=trio.Event)
    should_log_codec: RateLimited = field(default_factory=RateLimited)
    reading: Deadlines[Connection] = field(init=False)
    writing: Deadlines[Outbox] = field(init=False)
    lingering: Deadlines[Connection] = field(init=False)
    leaving: Deadlines[Connection] = field(init=False)
    proxying: Deadlines[SocketTransport] = field(init=False)
    handshaking: Deadlines[SocketTransport] = field(init=False)

    def __post_init__(self) -> None:
        call = self.peers.call

        def expire(connection: Connection) -> None:
            call(connection.expire, peer=connection)

        self.reading = Deadlines(self.config.timeout, expire)
        self.writing = Deadlines(self.config.send_timeout, lambda outbox: call(outbox.poison))
        self.lingering = Deadlines(LINGER_SECONDS, expire)
        self.leaving = Deadlines(DRAIN_LINGER_SECONDS, expire)
        self.proxying = Deadlines(PROXY_SECONDS, lambda transport: call(transport.abort))
        self.handshaking = Deadlines(self.config.handshake_timeout, lambda transport: call(transport.abort))

    @property
    def deadlines(self) -> tuple[Deadlines[Any], ...]:
        """All that is to be watched over while the server serves; ``leaving`` is while it drains."""
        return self.reading, self.writing, self.lingering, self.proxying, self.handshaking

    def drain(self) -> None:
        """Have every connection end with the handler at work; ``idle`` is set when the last one has."""
        if self.draining:
            return
        self.draining = True
        for connection in tuple(self.connections):
            self.peers.call(connection.stop, peer=connection)
        self.writing.shorten(DRAIN_SEND_SECONDS)
        for connection in self.lingering.stop_all():
            self.leaving.start(connection)
        self.peers.call(self.handshakes.abort_all)
        self._note_idle()

    def drop_all(self) -> None:
        """Close every connection at once; a task in which a handler left a shield open does not notice otherwise."""
        for connection in (*self.connections, *self.refused):
            self.peers.call(connection.drop)

    def linger(self, connection: Connection) -> int:
        """Start the deadline of a connection that reads what its peer still sends; return how much it may read."""
        if self.draining:
            self.leaving.start(connection)
            return sys.maxsize
        self.lingering.start(connection)
        return LINGER_BYTES

    def end_handshake(self, transport: SocketTransport) -> None:
        """A peer has introduced itself, or given up."""
        self.handshakes.discard(transport)
        self._note_idle()

    def forget(self, connection: Connection) -> None:
        """Drop what is kept of a connection; it has ended."""
        self.sessions.discard(connection.session)
        self.reading.stop(connection)
        self.lingering.stop(connection)
        self.leaving.stop(connection)
        self.connections.discard(connection)
        self.refused.discard(connection)
        self._note_idle()

    def _note_idle(self) -> None:
        if self.draining and not (self.connections or self.refused or self.handshakes):
            self.idle.set()
