"""`Counters`: the counters of a server, which go on when it serves again."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncapy_core.routing.outcomes import increase


@dataclass(slots=True)
class Counters:
    """The counters of one server, apart from those of its handlers and of its open connections.

    Attributes:
        received, sent: bytes of packets of connections that have ended.
        sessions: sessions since the server was made.
        refusals: packets and connections that reached no handler, by the code of the reply.
    """

    received: int = 0
    sent: int = 0
    sessions: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    def refuse(self, code: str) -> None:
        """Count a packet or a connection that reaches no handler."""
        increase(self.refusals, code)
