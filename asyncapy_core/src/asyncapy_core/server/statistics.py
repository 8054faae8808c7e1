"""`take_statistics`: a server at one moment, from its counters and the sets of its connections."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncapy_core.statistics import HandlerStatistics, ServerStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncapy_core.routing.handler import Handler
    from asyncapy_core.server.counters import Counters
    from asyncapy_core.server.state import ServerState


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
