"""`ServerStatistics`: a server at one moment, as records that do not change and refer to no part of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations of requests, counted in buckets.

    Attributes:
        count: the number of requests.
        total: the sum of their durations, in seconds.
        buckets: the number of requests by the upper bound of their duration, in seconds. The bounds are nanoseconds
            times a power of two; a request is in one bucket, and buckets without a request are left out.
    """

    count: int
    total: float
    buckets: Mapping[float, int]

    def quantile(self, fraction: float) -> float:
        """Return a duration in seconds that is not exceeded by this fraction of the requests; 0 without requests.

        Args:
            fraction: 0 to 1; 0.5 for the median. The result is the bound of a bucket, up to twice the exact value.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is 0 to 1, such as 0.99; got {fraction!r}")
        left = self.count * fraction
        for bound, number in self.buckets.items():
            left -= number
            if left <= 0:
                return bound
        return 0.0


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """The requests of one handler.

    Attributes:
        name: the name of its function.
        group: its group.
        outcomes: the number of its requests by outcome: ``"ok"``, the code of a failure, ``"disconnected"`` for a
            client that left before it could be answered, ``"cancelled"`` for a request that its client has cancelled,
            and ``"other"`` for further ones, as a handler has at most 64 of them. A packet for handlers of several
            groups counts for the last one.
        durations: the durations of these requests by outcome, if ``measure`` is set, from the search for a handler to
            its end.
    """

    name: str
    group: int
    outcomes: Mapping[str, int]
    durations: Mapping[str, Durations]

    @property
    def requests(self) -> int:
        """The number of requests."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A server at one moment, with plain numbers: of sessions, of connections, of bytes, of requests.

    ``sessions_opened``, ``bytes_received``, ``bytes_sent``, ``handlers`` and ``refusals`` are counters: they begin when
    the server is made, and go on when it serves again. All other numbers are those of this moment.

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
