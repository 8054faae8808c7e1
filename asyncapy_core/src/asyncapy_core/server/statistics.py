"""`ServerStatistics`: a server at one moment, from its counters and the sets of its connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncapy_core.routing.outcomes import HandlerStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncapy_core.routing.handler import Handler
    from asyncapy_core.server.counters import Counters
    from asyncapy_core.server.state import ServerState


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A server at one moment. Counters go on when a server serves again.

    Attributes:
        sessions: open sessions.
        sessions_opened: all sessions since the server was made that have sent a byte, without those of a proxy itself.
        connections: open connections with a session, and those of ``closing``.
        closing: connections whose session has ended, and that are read until the peer closes them as well.
        refused: connections without a session: they wait for a place until their first byte, or were sent a refusal,
            and are read until the peer closes them.
        abandoned: connections whose peer has left while a handler runs.
        handshakes: connections that wait for a PROXY header or a TLS handshake.
        bytes_received: bytes of packets received, after TLS.
        bytes_sent: bytes of packets sent, before TLS.
        bytes_incomplete: bytes of packets that are not complete, of all connections.
        bytes_queued: bytes that wait for peers to read them, of all connections.
        deadlines: peers that are waited for: for a packet, for room for output, or for a close.
        handlers: the requests of each handler that is registered, the lowest group first.
        refusals: packets and connections that reached no handler, by the code of the reply.
    """

    sessions: int
    sessions_opened: int
    connections: int
    closing: int
    refused: int
    abandoned: int
    handshakes: int
    bytes_received: int
    bytes_sent: int
    bytes_incomplete: int
    bytes_queued: int
    deadlines: int
    handlers: tuple[HandlerStatistics, ...]
    refusals: Mapping[str, int]


def take_statistics(
    counters: Counters, handlers: Mapping[int, Sequence[Handler]], state: ServerState | None
) -> ServerStatistics:
    """Return the statistics of a server at this moment.

    Args:
        counters: its counters.
        handlers: its handlers by group.
        state: its state while it serves, otherwise None.
    """
    each_handler = tuple(
        HandlerStatistics(handler.name, group, handler.outcomes.counts(), handler.outcomes.durations())
        for group, members in handlers.items()
        for handler in members
    )
    open_connections = () if state is None else (*state.connections, *state.abandoned, *state.refused)
    traffic = [connection.traffic for connection in open_connections]
    received, sent, queued = zip(*traffic, strict=True) if traffic else ((), (), ())
    return ServerStatistics(
        sessions=0 if state is None else len(state.sessions),
        sessions_opened=counters.sessions,
        connections=0 if state is None else len(state.connections),
        closing=0 if state is None else len(state.closing),
        refused=0 if state is None else len(state.refused),
        abandoned=0 if state is None else len(state.abandoned),
        handshakes=0 if state is None else len(state.handshakes),
        bytes_received=counters.received + sum(received),
        bytes_sent=counters.sent + sum(sent),
        bytes_incomplete=0 if state is None else state.buffered,
        bytes_queued=sum(queued),
        deadlines=0 if state is None else state.waits,
        handlers=each_handler,
        refusals=MappingProxyType(dict(counters.refusals)),
    )
