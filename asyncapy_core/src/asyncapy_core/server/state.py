"""`ServerState`: everything that the connections of one running server share, and the sets of those connections.

The sets are changed by its methods only. It uses connections through `ConnectionInterface`, and never their packets.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from asyncapy_core.addresses import is_unix
from asyncapy_core.errors import ErrorCode
from asyncapy_core.logs import RateLimited
from asyncapy_core.net.deadlines import Deadlines
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import SocketTransport
from asyncapy_core.protocol.proxy_header import Proxies
from asyncapy_core.server.by_network import ByNetwork
from asyncapy_core.server.disconnects import DisconnectWatch
from asyncapy_core.server.handshakes import HandshakeTable
from asyncapy_core.server.heap import Heap
from asyncapy_core.server.isolation import PeerTasks
from asyncapy_core.server.session_contexts import Hosted

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Awaitable

    from asyncapy_core.config import ServerConfig
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.protocol.encoding import EncodingRegistry
    from asyncapy_core.routing.dispatch import Dispatcher
    from asyncapy_core.server.counters import Counters
    from asyncapy_core.server.session_contexts import SessionContexts
    from asyncapy_core.server.session_table import SessionTable
    from asyncapy_core.server.stage import Stage
    from asyncapy_core.session import Session

MAX_REFUSED: Final = 24
"""Connections without a place that wait for one, or are read until their peer closes; further ones are closed as soon
as their refusal is sent."""

MAX_REFUSED_PER_NETWORK: Final = 8
"""The same for one network; beyond it, its oldest is closed."""

MIN_HANDSHAKES: Final = 24
"""Connections that may be in a handshake at least, however full the server is."""

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 64 * 1024
"""A closing connection is read for so long, and so many bytes: a close with unread bytes would reset the connection,
and the peer might lose the last reply."""

DRAIN_LINGER_SECONDS: Final = 0.5
"""The same while the server drains, without a limit in bytes: busy peers have sent more than `LINGER_BYTES` already."""

DRAIN_GREETING_SECONDS: Final = 0.5
"""The time for a PROXY header, a TLS handshake and the first header of a packet while the server drains, at most half
of ``drain_timeout``. A client of version 23 is then informed that its requests were not handled."""

DRAIN_SEND_SECONDS: Final = 0.5
"""The deadline for one chunk of output while the server drains, if ``send_timeout`` is not shorter."""

AGES: Final = (0.9, 0.95, 1, 1.05, 1.1)
"""Sessions end after one of these multiples of ``session_age``, so that not all clients connect again at once."""

PROXY_SECONDS: Final = 3.0
"""The deadline for a PROXY header."""


class ConnectionInterface(Hosted, Protocol):
    """A connection, as the state uses it."""

    stage: Stage

    @property
    def session(self) -> Session: ...

    @property
    def of_proxy(self) -> bool:
        """Whether the peer is a proxy that checks the server, and no client."""

    def wait_for_place(self) -> Awaitable[None]:
        """Wait for the first byte, then serve the peer, or refuse it if there is still no place."""

    def dismiss(self, code: ErrorCode) -> None:
        """Refuse the peer, unless this is done, and close at once."""

    def expire(self) -> None:
        """End the current wait: its deadline has passed."""

    def stop(self) -> None:
        """Begin no further packet."""

    def retire(self) -> None:
        """End the session in order, as its ``session_age`` has passed."""

    def fileno(self) -> int:
        """Return the file descriptor of its socket, or -1 if it is closed."""

    @property
    def broken(self) -> bool:
        """Whether a write has failed."""

    @property
    def traffic(self) -> tuple[int, int, int]:
        """The numbers of bytes that were received, that were sent, and that wait for the peer to read them."""

    def overflow(self) -> None:
        """Refuse the incomplete packet: all connections together have too many bytes of such packets."""


@dataclass(slots=True)
class ServerState:
    """The state of one running server.

    Attributes:
        server: the server, for `Client.server`.
        tls: the TLS context, or None without TLS; `Server.reload_certificates` replaces it.
        proxies: the peers that begin with a PROXY header.
        counters: the counters of the server.
        contexts: the context managers around sessions, or None if there are none.
        draining: whether the server is stopping.
        greeting_ends: the time until which the server waits for the first header on a connection, while it drains.
        connections: connections with a session.
        refused: connections that wait for a place, or were sent a refusal, and are read until the peer closes.
        closing: those of ``connections`` whose session has ended, and that are read until the peer closes them as well.
        abandoned: connections whose peer has left while a handler runs; they have no place among ``connections``.
        handshakes: connections that wait for a PROXY header or a TLS handshake.
        partial: the bytes of incomplete packets, by connection.
        buffered: the sum of these bytes.
        heap: returns memory to the operating system after large packets.
        idle: set when the server drains and has no connection left.
        reading, writing, lingering, leaving, proxying, handshaking: the deadlines of packets, of output, of closing
            connections, of these while the server drains, of PROXY headers and of TLS handshakes.
        ageing: the deadlines of sessions, each for a part of them.
    """

    server: ServerInterface
    config: ServerConfig
    encodings: EncodingRegistry
    dispatcher: Dispatcher
    sessions: SessionTable
    log: logging.Logger
    peers: PeerTasks
    max_connections: int
    counters: Counters
    contexts: SessionContexts | None = None
    tls: ssl.SSLContext | None = None
    proxies: Proxies = field(default_factory=lambda: Proxies([]))
    draining: bool = False
    greeting_ends: float = math.inf
    connections: set[ConnectionInterface] = field(default_factory=set)
    refused: ByNetwork[ConnectionInterface] = field(default_factory=ByNetwork)
    closing: ByNetwork[ConnectionInterface] = field(default_factory=ByNetwork)
    abandoned: set[ConnectionInterface] = field(default_factory=set)
    handshakes: HandshakeTable = field(default_factory=HandshakeTable)
    partial: dict[ConnectionInterface, int] = field(default_factory=dict)
    buffered: int = 0
    heap: Heap = field(default_factory=Heap)
    idle: trio.Event = field(default_factory=trio.Event)
    should_log_codec: RateLimited = field(default_factory=RateLimited)
    reading: Deadlines[ConnectionInterface] = field(init=False)
    writing: Deadlines[Outbox] = field(init=False)
    ageing: tuple[Deadlines[ConnectionInterface], ...] = field(init=False)
    lingering: Deadlines[ConnectionInterface] = field(init=False)
    leaving: Deadlines[ConnectionInterface] = field(init=False)
    proxying: Deadlines[SocketTransport] = field(init=False)
    handshaking: Deadlines[SocketTransport] = field(init=False)
    disconnects: DisconnectWatch[ConnectionInterface] = field(init=False)

    def __post_init__(self) -> None:
        call = self.peers.call

        def expire(connection: ConnectionInterface) -> None:
            call(connection.expire, peer=connection)

        self.reading = Deadlines(self.config.timeout, expire)
        self.writing = Deadlines(self.config.send_timeout, lambda outbox: call(outbox.poison))
        self.ageing = ()
        if (age := self.config.session_age) is not None:

            def retire(connection: ConnectionInterface) -> None:
                call(connection.retire, peer=connection)

            self.ageing = tuple(Deadlines(age * part, retire) for part in AGES)
        self.lingering = Deadlines(LINGER_SECONDS, expire)
        self.leaving = Deadlines(DRAIN_LINGER_SECONDS, expire)
        self.proxying = Deadlines(PROXY_SECONDS, lambda transport: call(transport.abort))
        self.handshaking = Deadlines(self.config.handshake_timeout, lambda transport: call(transport.abort))
        self.disconnects = DisconnectWatch(self._busy, lambda connection: call(connection.lose, peer=connection))

    @property
    def waits(self) -> int:
        """The number of waits for a peer that have a deadline."""
        of_connections = len(self.reading) + len(self.writing) + len(self.lingering) + len(self.leaving)
        return of_connections + len(self.proxying) + len(self.handshaking)

    @property
    def deadlines(self) -> tuple[Deadlines[Any], ...]:
        """The deadlines to watch while the server serves; ``leaving`` is watched while it drains."""
        of_all = (self.reading, self.writing, self.lingering, self.proxying, self.handshaking, self.heap.deadlines)
        return (*of_all, *self.ageing)

    def begin_handshake(self, transport: SocketTransport, address: str, *, proxied: bool) -> None:
        """Add a connection that waits for a PROXY header or a TLS handshake; see `HandshakeTable.add`."""
        limit = max(MIN_HANDSHAKES, self.max_connections - len(self.connections))
        self.handshakes.add(transport, address, limit=limit, proxied=proxied)

    def end_handshake(self, transport: SocketTransport) -> None:
        """Remove a connection whose handshake has ended, successful or not."""
        self.handshakes.discard(transport)
        self._check_idle()

    def admit(self, connection: ConnectionInterface) -> None:
        """Serve a connection. If there is no place for it, it waits for one until its first byte."""
        if self.idle.is_set():
            connection.drop()
        elif (code := self.take_place(connection)) is None:
            self.begin(connection)
        else:
            self._let_wait(connection, code)

    def begin(self, connection: ConnectionInterface) -> None:
        """Serve a connection that has a place."""
        if self.contexts is None or connection.of_proxy:
            self.peers.start(connection, connection.run)
        else:
            self.peers.start(connection, self.contexts.run, connection)

    def take_place(self, connection: ConnectionInterface) -> ErrorCode | None:
        """Make a connection one with a session, or return the code of its refusal.

        While the server drains, each connection has a place, as no packet is handled: clients of version 23 learn that.
        """
        if not self.draining:
            if len(self.connections) >= self.max_connections:
                self._drop_closing(self.closing.oldest())
            if max(len(self.connections), len(self.abandoned)) >= self.max_connections:
                return ErrorCode.SERVER_BUSY
            if not connection.of_proxy and not self.sessions.add(connection.session):
                return ErrorCode.SESSION_LIMIT_REACHED
        self.refused.discard(connection)
        self.connections.add(connection)
        self._limit_closing(connection)
        return None

    def end_session(self, connection: ConnectionInterface) -> None:
        """Remove the session of a closing connection, so that another of its address may begin."""
        self.sessions.discard(connection.session)

    def limit_age(self, connection: ConnectionInterface) -> None:
        """Start the deadline of a session of version 23, if ``session_age`` is set."""
        if self.ageing:
            self._age(connection).start(connection)

    def abandon(self, connection: ConnectionInterface) -> None:
        """Give back the place of a connection whose peer has left; its handler still runs."""
        if connection in self.connections:
            self.forget(connection)
            self.abandoned.add(connection)

    def hold_partial(self, connection: ConnectionInterface, size: int) -> None:
        """Note the bytes of an incomplete packet, and refuse the largest one if there are more than ``max_buffered``.

        Args:
            connection: the connection that waits for the rest of the packet.
            size: the bytes received so far; 0 when the packet is complete.
        """
        before = self.partial.pop(connection, 0)
        self.buffered += size - before
        if size:
            self.partial[connection] = size
        else:
            self.heap.count(before)
        if self.buffered > self.config.max_buffered:
            largest = max(self.partial, key=self.partial.__getitem__)
            self.buffered -= self.partial.pop(largest)
            self.peers.call(largest.overflow, peer=largest)

    def forget(self, connection: ConnectionInterface) -> None:
        """Remove a connection that has ended."""
        self.end_session(connection)
        self.hold_partial(connection, 0)
        self.reading.stop(connection)
        self.lingering.stop(connection)
        self.leaving.stop(connection)
        if self.ageing:
            self._age(connection).stop(connection)
        self.connections.discard(connection)
        self.abandoned.discard(connection)
        self.closing.discard(connection)
        self.refused.discard(connection)
        self._check_idle()

    def linger(self, connection: ConnectionInterface) -> int:
        """Start the deadline of a closing connection, and return how many bytes it may still read."""
        if self.draining:
            self.leaving.start(connection)
            return sys.maxsize
        self.lingering.start(connection)
        if connection in self.connections:
            self.closing.add(connection, connection.session.client.address)
            self._limit_closing(connection)
        return LINGER_BYTES

    def drain(self) -> None:
        """End every connection after the handler that it runs; ``idle`` is set after the last one."""
        if self.draining:
            return
        self.draining = True
        for connection in tuple(self.connections):
            self.peers.call(connection.stop, peer=connection)
        greeting = min(DRAIN_GREETING_SECONDS, self.config.drain_timeout / 2)
        self.greeting_ends = trio.current_time() + greeting
        self.proxying.shorten(greeting)
        self.handshaking.shorten(greeting)
        if self.contexts is not None:
            self.peers.call(self.contexts.stop)
        self.writing.shorten(DRAIN_SEND_SECONDS)
        for connection in self.lingering.stop_all():
            self.leaving.start(connection)
        self._check_idle()

    def drop_all(self) -> None:
        """Close every connection at once. A cancellation alone does not reach a task that a handler has shielded."""
        for connection in (*self.connections, *self.abandoned, *self.refused):
            self.peers.call(connection.drop)

    def _age(self, connection: ConnectionInterface) -> Deadlines[ConnectionInterface]:
        return self.ageing[connection.session.session_id.int % len(self.ageing)]

    def _busy(self) -> list[ConnectionInterface]:
        """Return the connections from which no task reads, as a handler runs."""
        return [each for each in self.connections if each not in self.reading and each not in self.closing]

    def _let_wait(self, connection: ConnectionInterface, code: ErrorCode) -> None:
        """Let a connection wait for a place; if too many do, or are being refused, dismiss one of them."""
        address = connection.session.client.address
        if not is_unix(address) and self.refused.count(address) >= MAX_REFUSED_PER_NETWORK:
            oldest = self.refused.oldest_of(address)
            assert oldest is not None
            self.peers.call(oldest.dismiss, code, peer=oldest)
        if len(self.refused) >= MAX_REFUSED:
            self.peers.call(connection.dismiss, code, peer=connection)
            return
        self.refused.add(connection, address)
        self.peers.start(connection, connection.wait_for_place)

    def _limit_closing(self, connection: ConnectionInterface) -> None:
        """Count closing connections as sessions of their network: beyond its limit, its oldest one is dropped."""
        address = connection.session.client.address
        room = self.sessions.room(address)
        while room is not None and self.closing.count(address) > room:
            self._drop_closing(self.closing.oldest_of(address))

    def _drop_closing(self, connection: ConnectionInterface | None) -> None:
        if connection is not None:
            self.closing.discard(connection)
            self.peers.call(connection.drop)

    def _check_idle(self) -> None:
        if self.draining and not (self.connections or self.abandoned or self.refused or self.handshakes):
            self.idle.set()
