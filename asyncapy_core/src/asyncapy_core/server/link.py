"""`Link`: a connection, as the sessions of both versions use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.net.outbox import Outbox
    from asyncapy_core.server.intake import Intake
    from asyncapy_core.server.stage import Stage
    from asyncapy_core.server.state import ConnectionInterface, ServerState
    from asyncapy_core.session import Client, Session


class Link(Protocol):
    """One connection. It is also a `ConnectionInterface`, for the state of the server.

    Attributes:
        state: the state of the server.
        intake: its input.
        outbox: its output.
        client: the client of its session.
        log: the logger of its session.
        stage: its stage.
    """

    state: ServerState
    intake: Intake
    outbox: Outbox
    client: Client
    log: SessionLog
    stage: Stage

    @property
    def interface(self) -> ConnectionInterface:
        """The connection, as the state of the server and its tasks use it."""

    def sessions(self) -> list[Session]:
        """Return the active sessions of the address."""

    def wake(self) -> None:
        """Make the task that reads check the state of the connection."""

    def lose(self) -> None:
        """Note that the connection broke."""

    def stop(self) -> None:
        """Make the session check whether it is to end."""

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function for this peer in a task of its own."""

    def drop(self) -> None:
        """Close at once."""

    async def close(self) -> None:
        """Close the connection after pending output."""

    def hand_over(self, serve: Callable[[], Awaitable[bool | None]]) -> None:
        """Let a new task serve the peer; see `Connection.proceed`."""
