"""`Request`: the packet that a connection handles, from dispatch to its answer (docs/protocol.md, "Replies").

A packet of version 22 is answered by its handlers or by the server, never by both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from asyncapy_core.errors import (
    AlreadyAnswered,
    EncodeError,
    ErrorCode,
    Failure,
)
from asyncapy_core.logs import escape_for_log
from asyncapy_core.routing.dispatch import NoHandler
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.handling import Handling, as_answer
from asyncapy_core.server.isolation import Peer, is_descendant

if TYPE_CHECKING:
    from asyncapy_core.config import ServerConfig
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.routing.error_handlers import ErrorHandlers
    from asyncapy_core.server.counters import Counters
    from asyncapy_core.server.isolation import PeerTasks
    from asyncapy_core.session import Client

T = TypeVar("T")

_current: ContextVar[Request] = ContextVar("current")
"""The request that a thread works for; trio copies the context into the system tasks that run calls from threads."""


class Answered(Enum):
    """The side that has answered a packet; `NO_PACKET` while none is handled."""

    NO_PACKET = 0
    NOT = 1
    BY_HANDLER = 2
    BY_SERVER = 3
    TWICE = 4


class Replier(Peer, Protocol):
    """A connection, as a request uses it."""

    @property
    def client(self) -> Client: ...

    async def reply(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send an error reply; raises EncodeError if the further fields cannot be encoded."""

    async def close(self) -> None:
        """Close the connection after pending output."""


class Request(Handling):
    """The packets of one connection, one after the other.

    Args:
        connection: sends the replies.
        peers: splits exceptions, and closes dropped generators.
        errors: the functions for exceptions of the application.
        counters: counts the packets that no handler gets.
        config: the settings of the server. ``handler_timeout`` holds for the functions of ``errors``, too.

    Attributes:
        started: the time at which the current packet was dispatched, by `time.perf_counter_ns`, if ``measure`` is set.
        answered: the side that has answered the current packet; the connection sets it before and after packets.
    """

    __slots__ = (
        "_connection",
        "_counters",
        "_measured",
        "_one_reply",
        "_task",
        "answered",
        "started",
    )

    def __init__(
        self, connection: Replier, peers: PeerTasks, errors: ErrorHandlers, counters: Counters, config: ServerConfig
    ) -> None:
        super().__init__(peers, errors, config.handler_timeout)
        self._connection = connection
        self._counters = counters
        self._measured = config.measure
        self._one_reply = config.replies == "one"
        self._task: trio.lowlevel.Task | None = None
        self.answered: Answered = Answered.NO_PACKET
        self.started: int = 0

    def enter_task(self) -> None:
        """Note that the current task runs the handlers."""
        self._task = trio.lowlevel.current_task()
        _current.set(self)

    def end(self) -> None:
        """Drop the references to the connection and its task, as no further packet is handled."""
        del self._connection
        self._task = None

    def is_answered_by(self, task: trio.lowlevel.Task) -> bool:
        """Return True if a packet sent by this task is an answer.

        It is if the task runs the handlers, is below that task in the tree of tasks, or runs a call from a thread of
        these. A task that a handler has started elsewhere outlives the request: its packets are pushes.
        """
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task():
            return _current.get(None) is self  # a system task, in which trio runs calls from threads
        return is_descendant(task, self._task)

    def note_answer(self) -> None:
        """Note that the current packet is answered, if the current task sends for its handlers."""
        if self.answered is Answered.NOT and self.is_answered_by(trio.lowlevel.current_task()):
            self.answered = Answered.BY_HANDLER

    def repeat(self) -> None:
        """Note that the handlers send another answer, if they do, before it is sent.

        Raises:
            AlreadyAnswered: ``replies`` is ``"one"``.
        """
        if self.answered is not Answered.BY_HANDLER or not self.is_answered_by(trio.lowlevel.current_task()):
            return
        if self._one_reply:
            raise AlreadyAnswered("the packet was answered before, and this server has replies = 'one'")
        self.answered = Answered.TWICE

    def check_answers(self, packet: Packet) -> None:
        """Log once for each handler that a packet has no answer, or two: its client cannot match later answers.

        Raises:
            Failure: there is none, and ``replies`` is ``"one"``.
        """
        if self.answered is Answered.TWICE:
            self._note_once(
                packet,
                "has answered a packet that was answered before: a client takes the second answer for that of its next "
                "request",
            )
        elif self.answered is Answered.NOT and (failure := self._missing_answer(packet)) is not None:
            raise failure

    def _missing_answer(self, packet: Packet) -> Failure | None:
        """Log once for each handler that a packet has no answer; return the failure to send if it must have one."""
        if self.answered is not Answered.NOT:
            return None
        self._note_once(packet, "has not answered a packet: a client takes the answer to its next request for it")
        return Failure(ErrorCode.NO_REPLY) if self._one_reply else None

    def _note_once(self, packet: Packet, text: str) -> None:
        handler = packet.handler
        if handler is not None and handler.notes(text):
            line, name = "{API Parser} Handler '%s' %s (docs/answers.md)", escape_for_log(handler.name)
            self._connection.log.warning(line, name, text, extra={"handler": name})

    def measure(self, packet: Packet, outcome: str) -> None:
        """Note the duration of the current packet; not part of its answer."""
        if packet.handler is not None:
            packet.handler.outcomes.measure(outcome, time.perf_counter_ns() - self.started)

    async def fail(self, error: BaseException, packet: Packet) -> None:
        """End a request whose dispatch raised: log a failure of the handler, and send an error reply.

        `StopPropagation` and the disconnection of the client are no failures. If the packet was answered already, the
        connection is closed instead: the client could not tell a second reply from the reply to its next request.

        Raises:
            BaseException: the part of ``error`` that belongs to the server; see `PeerTasks.is_servers`.
        """
        outcome = await (self._no_handler(error) if type(error) is NoHandler else self._fail(error, packet))
        if packet.handler is None:
            self._counters.refuse(outcome)
            return
        packet.handler.outcomes.count(outcome)
        if self._measured:
            self.measure(packet, outcome)

    async def _fail(self, error: BaseException, packet: Packet) -> str:
        """Do the same, and return the outcome of the request: see `HandlerStatistics`."""
        through, outcome, failure = self.split(error, self._connection.client)
        if outcome == SUCCEEDED and failure is None and through is None:
            failure = self._missing_answer(packet)
        if failure is not None:
            outcome = ErrorCode.HANDLER_FAILED
            if through is None and self.answered is Answered.NOT:
                outcome, failure = await self._answer_with(failure, packet)
        if failure is not None:
            self.report(self._connection.log, packet, failure, self.started)
        if through is not None:
            raise through
        if failure is not None and self.answered is Answered.NOT:
            await self._reply(ErrorCode.HANDLER_FAILED)
        elif failure is not None and not (self._one_reply and self.answered is Answered.BY_HANDLER):
            await self._connection.close()
        return outcome

    def checked_answer(self, result: object, packet: Packet) -> Packet | Mapping[str, Any] | None:
        """Return the return value of a handler to be sent, or None for a wrong one of a handler that has answered.

        Raises:
            TypeError: it is neither a mapping nor a packet, and the handler has sent no answer.
        """
        try:
            return as_answer(result, packet)
        except TypeError as error:
            if self.answered is Answered.NOT:
                raise
            self.report(self._connection.log, packet, error, self.started)
            return None

    async def _answer_with(self, error: BaseException, packet: Packet) -> tuple[str, BaseException | None]:
        """Send the failure for an exception; return the outcome, and the exception to log, or None."""
        answer, outcome, failure = await self.translate(self._connection.client, packet, error)
        if answer is None:
            return outcome, failure
        try:
            if self.answered is Answered.NOT:  # the function may have sent an answer
                await self._reply(answer.code, answer.fields)
        except EncodeError as fault:
            self.answered = Answered.NOT
            return ErrorCode.HANDLER_FAILED, fault
        return outcome, None

    async def close_dropped(self) -> None:
        """Close the async generators that the handlers have left open, before the next packet."""
        by_server = self.answered is Answered.BY_SERVER
        if by_server:
            self.answered = Answered.NOT
        await self._peers.close_dropped(self._connection)
        if by_server and self.answered is not Answered.NOT:
            await self._connection.close()  # the clean-up of a generator has sent a second answer

    async def _no_handler(self, outcome: NoHandler) -> str:
        """Answer a packet that no handler got, unless a guard or a filter has answered it."""
        if self.answered is Answered.NOT:
            await self._reply(ErrorCode.NO_HANDLER, outcome.fields)
        elif outcome.failed:
            await self._connection.close()  # the answer may be half of one
        return ErrorCode.NO_HANDLER

    async def _reply(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        self.answered = Answered.BY_SERVER
        await self._connection.reply(code, fields)
