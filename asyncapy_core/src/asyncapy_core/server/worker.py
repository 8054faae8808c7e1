"""`Worker`: a task that runs handlers of a session of version 23, and may be the one that reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from asyncapy_core.server.handling import Handling

if TYPE_CHECKING:
    from asyncapy_core.routing.error_handlers import ErrorHandlers
    from asyncapy_core.server.isolation import PeerTasks
    from asyncapy_core.server.numbered_request import NumberedRequest


class Crew(Protocol):
    """The session of the workers."""

    def before_wait(self, worker: Worker) -> None:
        """Prepare a wait of the task of this worker; raises nothing."""


class Worker(Handling):
    """A task of a session.

    Args:
        crew: the session.
        peers, errors, limit: as for `Handling`.
        leads: whether it reads and dispatches packets.

    Attributes:
        leads: whether it reads and dispatches packets. It ends when its handler waits: then another task does so.
        request: the request whose handler runs in this task.
        scope: cancelled to cancel this request.
    """

    __slots__ = ("_crew", "leads", "request", "scope", "task")

    def __init__(
        self, crew: Crew, peers: PeerTasks, errors: ErrorHandlers, limit: float | None, *, leads: bool
    ) -> None:
        super().__init__(peers, errors, limit)
        self._crew = crew
        self.leads: bool = leads
        self.request: NumberedRequest | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()

    def before_wait(self) -> None:
        """Prepare a wait of the task; `run_with_wait_hook` calls this."""
        self._crew.before_wait(self)
