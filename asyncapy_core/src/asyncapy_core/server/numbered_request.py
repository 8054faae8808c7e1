"""`NumberedRequest`: one request of version 23, from its packet to its last answer, as the client of its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import trio

from asyncapy_core.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.logs import escape_for_log
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.server.handling import as_answer
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.interfaces import HandlerInterface
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.net.outbox import Outbox
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import SharedPacket
    from asyncapy_core.session import Session


class Progress(IntEnum):
    """The progress of a request, in order."""

    IN_PLACE = 0
    """Its handler runs in the task that reads, and has not waited; no answer is kept."""
    OPEN = 1
    """Its last answer has not been sent."""
    KEPT = 2
    """Its latest answer is the last item of the output queue, and is the last answer if no other follows."""
    ANSWERED = 3
    """Its handler has sent the last answer, and may send no other."""
    CLOSED = 4
    """Its handler has closed the connection."""
    CANCELLED = 5
    """Its client no longer waits: answers are dropped."""
    ENDED = 6
    """It has ended with its handler."""


_IN_PLACE: Final = Progress.IN_PLACE
_OPEN: Final = Progress.OPEN
_KEPT: Final = Progress.KEPT
_PART: Final = int(Kind.PART)
_REPLY: Final = int(Kind.REPLY)
_FAILURE: Final = int(Kind.FAILURE)
_ANSWERED: Final = "the last answer to this request was sent, with last=True or a return; no other can follow"
_CLOSED: Final = "the connection to this client was closed before"


class Output(Protocol):
    """The output of the session, as its requests use it; see `NumberedOutput`."""

    kept: NumberedRequest | None
    outbox: Outbox

    @property
    def log(self) -> SessionLog: ...

    @property
    def is_open(self) -> bool: ...

    def flush(self) -> None: ...

    def part(self, reply: bytes) -> bytes: ...

    async def make_room(self, size: int) -> None: ...

    def send(self, data: bytes) -> Awaitable[None] | None: ...

    def send_now(self, data: bytes) -> None: ...

    def queue(self, data: bytes) -> None: ...

    def bare(self, kind: Kind, number: int, wire_id: int = 0) -> bytes: ...

    def post(self, packet: Packet | SharedPacket) -> Awaitable[None] | None: ...

    def post_now(self, packet: Packet | SharedPacket) -> None: ...

    def leave(self) -> None: ...

    def sessions(self) -> list[Session]: ...


class Requests(Protocol):
    """The requests of the session."""

    @property
    def output(self) -> Output: ...

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
        of_session: the client of the session.
        number: its number.
        encoding: its encoding, and that of its answers.
        size: bytes of its payload.

    Attributes:
        progress: how far it has come.
        codec: its encoding.
        holds: the number of `Client.answering` that keep it open.
        returned: whether its handler has ended, if that has waited or the request is kept open.
        handler: its handler, once that has ended.
        worker: the task of its handler, once that has waited and until it ends.
    """

    __slots__ = (
        "_has_parts",
        "_output",
        "_requests",
        "codec",
        "handler",
        "holds",
        "number",
        "progress",
        "returned",
        "size",
        "worker",
    )

    def __init__(self, requests: Requests, of_session: Client, number: int, encoding: Encoding, size: int) -> None:
        self.address = of_session.address
        self.server = of_session.server
        self.session = of_session.session
        self.tls_peer = of_session.tls_peer
        self.tls_names = of_session.tls_names
        self.encoding = encoding.name
        self._requests = requests
        self._output: Output = requests.output
        self._has_parts = False
        self.number: int = number
        self.codec: Encoding = encoding
        self.size: int = size
        self.holds: int = 0
        self.progress: Progress = _IN_PLACE
        self.returned: bool = False
        self.worker: Runner | None = None
        self.handler: HandlerInterface | None = None

    @property
    def stream(self) -> NumberedRequest:  # type: ignore[override]  # a reference to itself would be a cycle
        """The request itself: it answers what is sent to it."""
        return self

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._output.log

    @property
    def is_open(self) -> bool:
        """Whether its last answer has not been sent, and its client waits."""
        return self.progress <= _KEPT

    @property
    def answered(self) -> bool:
        """Whether an answer was sent, or is kept."""
        return self._has_parts or self.progress is _KEPT or self.progress is Progress.ANSWERED

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
        output = self._output
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
        output = self._output
        self._check_open()
        if output.kept is not None:
            output.flush()
        if not self.holds and self._is_in_task() and output.outbox.keep(reply):
            self.progress = _KEPT
            output.kept = self
            return None
        self._has_parts = True
        return output.send(output.part(reply))

    def _is_in_task(self) -> bool:
        """Return True if the current task is that of the handler."""
        if self.progress is _IN_PLACE:
            return True
        return self.worker is not None and trio.lowlevel.current_task() is self.worker.task

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an answer without waiting; see `post`.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            AlreadyAnswered, ClientDisconnected, EncodeError: as for `post`.
        """
        if self.is_open:
            self._check_open()
            self._output.send_now(self.codec.pack_numbered(_PART, self.number, packet.fields))
            self._has_parts = True
        elif self._is_event():
            self._output.post_now(packet)

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
        if self.is_open and self._output.is_open:
            reply = self.codec.pack_numbered(_REPLY, self.number, packet.fields)
            if self.progress is _IN_PLACE and self._output.outbox.hold(reply):
                self.progress = Progress.ANSWERED
                return None
            return self._send_last(reply)
        self._refuse_last()
        return None

    async def _send_last(self, reply: bytes) -> None:
        output = self._output
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
        output = self._output
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
            self._output.flush()
            self.progress = Progress.ENDED
            under_way = self._output.send(data)
            if under_way is not None:
                await under_way

    @property
    def is_over(self) -> bool:
        """Whether its handler has ended, and `Client.answering` does not keep it open."""
        return self.returned and not self.holds

    def begin_waiting(self, worker: Runner) -> None:
        """Note that the handler waits for the first time: other tasks run from now on."""
        self.worker = worker
        if self.progress is _IN_PLACE:
            self.progress = _OPEN

    def go_on(self, *, sent: bool) -> None:
        """Note that an answer is kept no longer.

        Args:
            sent: whether it was sent, as the REPLY; otherwise it is a PART.
        """
        self._has_parts = True
        if sent:
            self.progress = Progress.ANSWERED
        else:
            self.progress = _IN_PLACE if self.worker is None and not self.holds else _OPEN

    def answering(self) -> Answering:
        """Return a context manager that keeps this request open after its handler has returned."""
        return Answering(self)

    def hold(self) -> None:
        """Keep the request open until `release`: no answer is known to be the last before that."""
        if self.progress is _KEPT:
            self._output.flush()
        if self.progress is _IN_PLACE:
            self.progress = _OPEN
        self.holds += 1

    def release(self) -> None:
        """End the request if its handler has ended, and nothing else keeps it open."""
        self.holds -= 1
        if self.is_over:
            self.end(Progress.ENDED)
            self._requests.forget(self)

    async def close(self) -> None:
        """End this request, then the session after the answers to the other requests in flight."""
        self.end(Progress.CLOSED)
        self._output.leave()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self._output.sessions()

    def _check_open(self) -> None:
        if not self._output.is_open:
            raise ClientDisconnected(_CLOSED, self)

    def _is_event(self) -> bool:
        """Return True if a packet that is sent after the end of the request is an EVENT, False if it is dropped.

        Raises:
            AlreadyAnswered, ClientDisconnected: it cannot be sent.
        """
        if self.progress is Progress.CLOSED or not self._output.is_open:
            raise ClientDisconnected(_CLOSED, self)
        if self.progress is Progress.CANCELLED:
            return False
        if self.progress is Progress.ANSWERED:
            raise AlreadyAnswered(_ANSWERED)
        if self.handler is not None and self.handler.notes("late"):
            self.log.warning(
                "{API Parser} Handler '%s' has ended its request, and its client was sent a further packet: the peer "
                "gets it as an event; see Client.answering",
                escape_for_log(self.handler.name),
            )
        return True


class Answering:
    """Keeps a request open for the length of an ``async with`` block, also after its handler has returned.

    It counts from its creation in the handler, so that it can be passed to another task.
    """

    __slots__ = ("_held", "_request")

    def __init__(self, request: NumberedRequest) -> None:
        self._request = request
        self._held = True
        request.hold()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._held = False
            self._request.release()
