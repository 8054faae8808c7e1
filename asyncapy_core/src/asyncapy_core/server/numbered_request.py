"""`NumberedRequest`: one request of version 23, from its packet to its last answer, as the client of its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import trio

from asyncapy_core.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.logs import escape_for_log
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.protocol.wire import NUMBERED_VERSION
from asyncapy_core.server.answering import Answering
from asyncapy_core.server.handling import as_answer
from asyncapy_core.server.progress import Progress
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.interfaces import HandlerInterface
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import SharedPacket
    from asyncapy_core.server.numbered_output import NumberedOutput
    from asyncapy_core.session import Session


_IN_PLACE: Final = Progress.IN_PLACE
_OPEN: Final = Progress.OPEN
_PARTLY: Final = Progress.PARTLY
_KEPT: Final = Progress.KEPT
_PART: Final = int(Kind.PART)
_REPLY: Final = int(Kind.REPLY)
_FAILURE: Final = int(Kind.FAILURE)
_ANSWERED: Final = "the last answer to this request was sent, with last=True or a return; no other can follow"
_CLOSED: Final = "the connection to this client was closed before"


class Requests(Protocol):
    """The requests of the session."""

    @property
    def output(self) -> NumberedOutput: ...

    @property
    def client(self) -> Client:
        """The client of the session."""

    def is_in_flight(self, request: NumberedRequest) -> bool:
        """Return True if packets behind this request have been read before its end."""

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and whose handler has ended."""


class Runner(Protocol):
    """The task of a handler; see `Worker`."""

    scope: trio.CancelScope
    task: trio.lowlevel.Task


class NumberedRequest(Client):
    """A request, as the client of its handlers: the packets sent to it answer the request.

    Args:
        requests: the requests of its session.
        number: its number.
        encoding: its encoding, and that of its answers.
        size: bytes of its payload.

    Attributes:
        requests: as given.
        progress: how far it has come.
        codec: its encoding.
        holds: the number of `Client.answering` that keep it open.
        handler: its handler, or None if it has none; not set until that has ended.
        started: the time at which its packet was dispatched, by `time.perf_counter_ns`; set if ``measure`` is set.
        worker: the task of its handler, once that has waited and until it ends.
    """

    __slots__ = ("codec", "handler", "holds", "number", "progress", "requests", "size", "started", "worker")

    version: ClassVar[int] = NUMBERED_VERSION
    handler: HandlerInterface | None
    started: int

    def __init__(self, requests: Requests, number: int, encoding: Encoding, size: int) -> None:
        self.requests: Requests = requests
        self.number: int = number
        self.codec: Encoding = encoding
        self.size: int = size
        self.holds: int = 0
        self.progress: Progress = _IN_PLACE
        self.worker: Runner | None = None

    @property
    def stream(self) -> NumberedRequest:  # type: ignore[override]  # a reference to itself would be a cycle
        """The request itself: packets that are sent to it are its answers."""
        return self

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self.requests.output.log

    @property
    def is_open(self) -> bool:
        """Whether its last answer has not been sent, and its client waits."""
        return self.progress <= _KEPT

    @property
    def answered(self) -> bool:
        """Whether an answer was sent, or is kept."""
        return _PARTLY <= self.progress <= Progress.ANSWERED

    async def send(
        self,
        packet: Packet | Mapping[str, Any] | str | bytes,
        close: bool = False,  # noqa: FBT001, FBT002  # the documented signature
        *,
        last: bool = False,
    ) -> None:
        ready = packet if isinstance(packet, Packet) else Packet(packet, self.encoding, self)
        under_way = self.post_last(ready) if last else self.post(ready)
        if under_way is not None:
            await under_way
        if close:
            await self.close()

    def post(self, packet: Packet | SharedPacket) -> Awaitable[None] | None:
        """Send an answer: the REPLY if nothing follows before the handler waits or ends, otherwise a PART.

        After the end of the request it is an EVENT.

        Returns:
            An awaitable that sends it, or None if it is held back.

        Raises:
            AlreadyAnswered: the handler has sent the last answer.
            ClientDisconnected: the connection has ended.
            EncodeError: the packet cannot be encoded; nothing was sent.
        """
        output = self.requests.output
        if self.progress is _IN_PLACE:
            reply = self.codec.pack_numbered(_REPLY, self.number, packet.fields)
            if output.outbox.hold(reply):
                self.progress = _KEPT
                output.kept = self
                return None
        elif self.progress > _KEPT:
            return output.post(packet) if self._is_event() else None
        else:
            reply = self.codec.pack_numbered(_REPLY, self.number, packet.fields)
        return self._post(reply)

    def _post(self, reply: bytes) -> Awaitable[None] | None:
        """Send an answer, or keep it until it is known whether it is the last.

        It is kept until the next answer, the next wait of its task, or the end of its handler. No other task runs
        before one of these, so one is kept at most.
        """
        output = self.requests.output
        self._check_open()
        if output.kept is not None:
            output.flush()
        if not self.holds and self._is_in_task() and output.outbox.keep(reply):
            self.progress = _KEPT
            output.kept = self
            return None
        self.progress = _PARTLY
        return output.send(output.part(reply))

    def _is_in_task(self) -> bool:
        """Return True if the current task is that of the handler, which has begun and has not ended.

        While the handler runs in place, no other task runs. A request in flight without a task waits for that task.
        """
        if self.worker is None:
            return not self.requests.is_in_flight(self)
        return trio.lowlevel.current_task() is self.worker.task

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an answer without waiting; see `post`.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            AlreadyAnswered, ClientDisconnected, EncodeError: as for `post`.
        """
        if self.is_open:
            self._check_open()
            self.requests.output.send_now(self.codec.pack_numbered(_PART, self.number, packet.fields))
            self.progress = _PARTLY
        elif self._is_event():
            self.requests.output.post_now(packet)

    async def post_shared(self, packet: SharedPacket) -> None:
        """Send an answer; see `post`."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    def post_last(self, packet: Packet) -> Awaitable[None] | None:
        """Send the last answer; see `post`.

        Raises:
            AlreadyAnswered: the last answer was sent before.
        """
        if self.is_open and self.requests.output.is_open:
            reply = self.codec.pack_numbered(_REPLY, self.number, packet.fields)
            if self.progress is _IN_PLACE and self.requests.output.outbox.hold(reply):
                self.progress = Progress.ANSWERED
                return None
            return self._send_last(reply)
        self._refuse_last()
        return None

    async def _send_last(self, reply: bytes) -> None:
        output = self.requests.output
        await output.make_room(len(reply))  # if this is cancelled, the request goes on
        if not (self.is_open and output.is_open):
            self._refuse_last()
            return
        output.flush()
        self.progress = Progress.ANSWERED
        output.queue(reply)

    def _refuse_last(self) -> None:
        """Drop a last answer to a request that was cancelled, or raise the reason why it cannot be sent."""
        if self.progress in {Progress.ANSWERED, Progress.ENDED}:
            raise AlreadyAnswered(_ANSWERED)
        self._is_event()

    async def answer(self, result: object, packet: Packet) -> None:
        """Send the return value of a handler; it is the last answer if no other group answers."""
        answer = as_answer(result, packet)
        under_way = self.post(answer if isinstance(answer, Packet) else Packet(answer))
        if under_way is not None:
            await under_way

    def finish(self, result: object, packet: Packet) -> Awaitable[None] | None:
        """Send the last packet, as the handlers have returned, unless `Client.answering` keeps the request open.

        Returns:
            An awaitable that sends it, or None if it is sent or held back.
        """
        if result is None:
            if not self.holds:
                self.end(Progress.ENDED)
            return None
        if self.holds:
            return self.answer(result, packet)
        answer = as_answer(result, packet)
        return self.post_last(answer if isinstance(answer, Packet) else Packet(answer))

    def end(self, progress: Progress) -> None:
        """Send the last packet of this request, without waiting: the answer that is kept, as the REPLY, or an END.

        Does nothing if the last packet was sent. An END is short: so no cancellation leaves a request without its last
        packet.

        Args:
            progress: the progress from now on.
        """
        output = self.requests.output
        if self.progress is _KEPT:
            self.progress = progress
            output.kept = None
            output.outbox.release()
        elif self.is_open:
            self.progress = progress
            output.queue(output.bare(Kind.END, self.number, self.codec.wire_id))

    async def fail(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send a FAILURE as the last packet of this request, unless its last packet was sent.

        Raises:
            EncodeError: the further fields cannot be encoded; nothing was sent.
        """
        if self.is_open:
            failure = {"status": "failure", "error": str(code), **(fields or {})}
            data = self.codec.pack_numbered(_FAILURE, self.number, failure)
            self.requests.output.flush()
            self.progress = Progress.ENDED
            under_way = self.requests.output.send(data)
            if under_way is not None:
                await under_way

    @property
    def has_returned(self) -> bool:
        """Whether its handler has returned or failed. The generators that it has dropped may still be open."""
        return hasattr(self, "handler")

    @property
    def has_ended(self) -> bool:
        """Whether its handler has returned or failed, and its generators are closed."""
        return self.worker is None and self.has_returned

    def begin_waiting(self, worker: Runner | None) -> None:
        """Note that the handler waits for the first time, or for its task: other tasks run from now on.

        Args:
            worker: the task of the handler; None if that begins later.
        """
        self.worker = worker
        if self.progress is _IN_PLACE:
            self.progress = _OPEN

    def go_on(self, *, sent: bool) -> None:
        """Note that an answer is kept no longer.

        Args:
            sent: whether it was sent, as the REPLY; otherwise it is a PART.
        """
        self.progress = Progress.ANSWERED if sent else _PARTLY

    def answering(self) -> Answering:
        """Return a context manager that keeps this request open after its handler has returned."""
        return Answering(self)

    def hold(self) -> None:
        """Keep the request open until `release`: no answer is known to be the last before that."""
        if self.progress is _KEPT:
            self.requests.output.flush()
            self.requests.output.outbox.release()  # its task may end without a wait, and without another packet
        if self.progress is _IN_PLACE:
            self.progress = _OPEN
        self.holds += 1

    def release(self) -> None:
        """End the request if its handler has ended, and nothing else keeps it open."""
        self.holds -= 1
        if self.has_returned and not self.holds:
            self.end(Progress.ENDED)
            if self.worker is None:
                self.requests.forget(self)

    async def close(self) -> None:
        """End this request, then the session after the answers to the other requests in flight."""
        self.end(Progress.CLOSED)
        self.requests.output.leave()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self.requests.output.sessions()

    def _check_open(self) -> None:
        if not self.requests.output.is_open:
            raise ClientDisconnected(_CLOSED, self)

    def _is_event(self) -> bool:
        """Return True if a packet that is sent after the end of the request is an EVENT, False if it is dropped.

        Raises:
            AlreadyAnswered, ClientDisconnected: it cannot be sent.
        """
        if self.progress is Progress.CLOSED or not self.requests.output.is_open:
            raise ClientDisconnected(_CLOSED, self)
        if self.progress is Progress.CANCELLED:
            return False
        if self.progress is Progress.ANSWERED:
            raise AlreadyAnswered(_ANSWERED)
        handler = self.handler if self.has_returned else None
        if handler is not None and handler.notes("late"):
            self.log.warning(
                "{API Parser} Handler '%s' has ended its request, and its client was sent a further packet: the peer "
                "gets it as an event; see Client.answering",
                escape_for_log(handler.name),
            )
        return True


_DELEGATED: Final = {
    "encoding": "codec.name",
    **{
        name: f"requests.client.{name}" for name in ("address", "network", "server", "session", "tls_names", "tls_peer")
    },
}
for _name, _place in _DELEGATED.items():  # to set them for each request would cost more than all other attributes
    setattr(NumberedRequest, _name, property(attrgetter(_place)))
