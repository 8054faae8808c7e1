"""`Worker`: a task that runs handlers of a session of version 23, and may be the one that reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from asyncapy_core.errors import BrokenCodec, ConnectionLost, EncodeError, ErrorCode, MalformedPacket
from asyncapy_core.routing.dispatch import NoHandler
from asyncapy_core.routing.outcomes import CANCELLED, DISCONNECTED
from asyncapy_core.server.handling import Handling
from asyncapy_core.server.numbered_request import NumberedRequest
from asyncapy_core.server.progress import Progress

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.net.outbox import Outbox
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.state import ServerState


class Crew(Protocol):
    """The session of the workers."""

    @property
    def log(self) -> SessionLog: ...

    @property
    def between_turns(self) -> bool:
        """Whether the task that reads yields between two packets."""

    def before_wait(self, worker: Worker, request: NumberedRequest) -> None:
        """Prepare a wait of the handler of a request; raises nothing."""


class Worker(Handling):
    """A task of a session; created in it.

    Args:
        crew: the session.
        state: the state of the server.
        outbox: the output queue of the connection.
        leads: whether it reads and dispatches packets.

    Attributes:
        leads: whether it reads and dispatches packets. It ends when its handler waits: then another task does so.
        request: the request whose handler runs in this task.
        packet: its packet, once it is decoded.
        scope: cancelled to cancel this request.
        task: the task.
    """

    __slots__ = ("_crew", "_disconnects", "_outbox", "_state", "leads", "packet", "request", "scope", "task")

    def __init__(self, crew: Crew, state: ServerState, outbox: Outbox, *, leads: bool) -> None:
        super().__init__(state.peers, state.dispatcher.errors, state.config.handler_timeout)
        self._crew = crew
        self._state = state
        self._disconnects = state.disconnects
        self._outbox = outbox
        self.leads: bool = leads
        self.request: NumberedRequest | None = None
        self.packet: Packet | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()

    @property
    def is_cancelled(self) -> bool:
        """Whether the current request was cancelled by CANCEL, or as the connection broke."""
        return self.scope.cancel_called

    def before_wait(self) -> None:
        """Send the held-back answers, unless the task yields between two packets; called before each of its waits."""
        if self.request is not None:
            self._crew.before_wait(self, self.request)
        elif self._outbox.corked and not self._crew.between_turns:
            self._outbox.rest()
        if self._disconnects.asleep:
            self._disconnects.wake()

    async def fail(self, request: NumberedRequest, packet: Packet | None, error: BaseException) -> str:
        """Answer a request whose payload or dispatch raised; return its outcome.

        Args:
            request: the request.
            packet: its packet, or None if the payload could not be decoded.
            error: the exception.

        Raises:
            BaseException: the part of the exception that belongs to the server.
        """
        try:
            if packet is None:
                return await self._refuse_payload(request, error)
            if type(error) is NoHandler:
                if not request.answered:
                    await request.fail(ErrorCode.NO_HANDLER, error.fields)
                elif not request.holds:
                    request.end(Progress.ENDED)
                return ErrorCode.NO_HANDLER
            return await self._answer(request, packet, error)
        except ConnectionLost:
            return DISCONNECTED

    async def _refuse_payload(self, request: NumberedRequest, error: BaseException) -> str:
        if not isinstance(error, MalformedPacket):
            raise error
        if isinstance(error, BrokenCodec) and self._state.should_log_codec():
            self._crew.log.error("{API Parser} A packet could not be decoded: %s", error)
        await request.fail(error.code)
        return error.code

    async def _answer(self, request: NumberedRequest, packet: Packet, error: BaseException) -> str:
        through, outcome, failure = self.split(error, request)
        if failure is not None and through is None and not self.is_cancelled:
            answer, outcome, failure = await self.translate(request, packet, failure)
            if answer is not None:
                try:
                    await request.fail(answer.code, answer.fields)
                except EncodeError as fault:
                    outcome, failure = ErrorCode.HANDLER_FAILED, fault
        if self.is_cancelled:
            outcome = CANCELLED
        if failure is not None:
            self.report(self._crew.log, packet, failure, getattr(request, "started", 0))
        if through is not None:
            raise through
        if failure is not None:
            await request.fail(ErrorCode.HANDLER_FAILED)
        elif not request.holds:
            request.end(Progress.ENDED)
        return outcome
