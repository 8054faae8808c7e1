"""`NumberedRequest`: one request of version 23, from its packet to its last answer. Its client sends through it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from asyncapy_core.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.logs import escape_for_log
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.server.handling import as_answer

if TYPE_CHECKING:
    import trio

    from asyncapy_core.interfaces import HandlerInterface
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.net.outbox import Outbox
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import SharedPacket
    from asyncapy_core.session import Client, Session


class Progress(Enum):
    """The progress of a request."""

    OPEN = 0
    """Its last answer has not been sent."""
    ANSWERED = 1
    """Its handler has sent the last answer, and may send no other."""
    CLOSED = 2
    """Its handler has closed the connection."""
    CANCELLED = 3
    """Its client no longer waits: answers are dropped."""
    ENDED = 4
    """It has ended with its handler."""


_OPEN: Final = Progress.OPEN
_PART: Final = int(Kind.PART)
_REPLY: Final = int(Kind.REPLY)
_FAILURE: Final = int(Kind.FAILURE)
_ANSWERED: Final = "the last answer to this request was sent, with last=True or a return; no other can follow"
_CLOSED: Final = "the connection to this client was closed before"


class Output(Protocol):
    """The output of the session, as its requests use it; see `NumberedOutput`."""

    kept: bytes | None
    outbox: Outbox

    @property
    def log(self) -> SessionLog: ...

    @property
    def client(self) -> Client: ...

    @property
    def is_open(self) -> bool: ...

    def keep(self, request: NumberedRequest, reply: bytes) -> bool: ...

    def part(self, reply: bytes) -> bytes: ...

    def flush(self) -> None: ...

    def last(self, request: NumberedRequest) -> bytes: ...

    def send(self, data: bytes) -> Awaitable[None] | None: ...

    def send_now(self, data: bytes) -> None: ...

    def queue(self, data: bytes) -> None: ...

    def post(self, packet: Packet | SharedPacket) -> Awaitable[None] | None: ...

    def post_now(self, packet: Packet | SharedPacket) -> None: ...

    def leave(self) -> None: ...

    def sessions(self) -> list[Session]: ...


class Requests(Protocol):
    """The requests of the session."""

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and whose handler has ended."""


class Runner(Protocol):
    """The task of a handler; see `Worker`."""

    leads: bool
    scope: trio.CancelScope
    task: trio.lowlevel.Task


class NumberedRequest:
    """A request.

    Args:
        output: the output of its session.
        requests: the requests of its session.
        number: its number.
        encoding: its encoding, and that of its answers.
        size: bytes of its payload.

    Attributes:
        progress: how far it has come.
        answered: whether an answer was sent or is kept.
        holds: the number of `Client.answering` that keep it open.
        returned: whether its handler has ended.
        handler: its handler, once one was found.
        worker: the task of its handler, while that runs.
    """

    __slots__ = (
        "_output",
        "_requests",
        "answered",
        "encoding",
        "handler",
        "holds",
        "number",
        "progress",
        "returned",
        "size",
        "worker",
    )

    def __init__(self, output: Output, requests: Requests, number: int, encoding: Encoding, size: int) -> None:
        self._output = output
        self._requests = requests
        self.holds: int = 0
        self.number: int = number
        self.encoding: Encoding = encoding
        self.size: int = size
        self.worker: Runner | None = None
        self.progress: Progress = _OPEN
        self.answered: bool = False
        self.returned: bool = False
        self.handler: HandlerInterface | None = None

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._output.log

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
        output, worker = self._output, self.worker
        if self.progress is not _OPEN:
            return output.post(packet) if self._is_event() else None
        in_place = output.outbox.corked and worker is not None and worker.leads  # no other task runs then
        if not in_place and not output.is_open:
            raise ClientDisconnected(_CLOSED, output.client)
        reply = self.encoding.pack_numbered(_REPLY, self.number, packet.fields)
        if output.kept is not None:
            output.flush()
        self.answered = True
        if in_place:
            output.kept = reply
            return None
        return None if output.keep(self, reply) else output.send(output.part(reply))

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an answer without waiting; see `post`.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            AlreadyAnswered, ClientDisconnected, EncodeError: as for `post`.
        """
        if self.progress is _OPEN:
            if not self._output.is_open:
                raise ClientDisconnected(_CLOSED, self._output.client)
            self._output.send_now(self.encoding.pack_numbered(_PART, self.number, packet.fields))
            self.answered = True
        elif self._is_event():
            self._output.post_now(packet)

    async def post_shared(self, packet: SharedPacket) -> None:
        """Send an answer; see `post`."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    async def post_last(self, packet: Packet) -> None:
        """Send the last answer; see `post`.

        Raises:
            AlreadyAnswered: the last answer was sent before.
        """
        output, reply = self._output, b""
        if self.progress is _OPEN and output.is_open:
            reply = self.encoding.pack_numbered(_REPLY, self.number, packet.fields)
            if not output.outbox.has_room(len(reply)):
                await output.outbox.make_room(len(reply))  # if this is cancelled, the request goes on
        if self.progress in {Progress.ANSWERED, Progress.ENDED}:
            raise AlreadyAnswered(_ANSWERED)
        if self.progress is not _OPEN or not output.is_open:
            self._is_event()
            return
        output.flush()
        self.answered, self.progress = True, Progress.ANSWERED
        output.queue(reply)

    async def answer(self, result: object, packet: Packet) -> None:
        """Send the return value of a handler; it is the last answer if no other group answers."""
        answer = as_answer(result, packet)
        under_way = self.post(answer if isinstance(answer, Packet) else Packet(answer))
        if under_way is not None:
            await under_way

    def end(self, progress: Progress) -> None:
        """Send the last packet of this request, without waiting: the answer that is kept, as the REPLY, or an END.

        Does nothing if the last packet was sent. There is room for an answer that is kept, and an END is short: so no
        cancellation leaves a request without its last packet.

        Args:
            progress: the progress from now on.
        """
        if self.progress is _OPEN:
            self.progress = progress
            self._output.queue(self._output.last(self))

    def end_now(self) -> bool:
        """Do as `end`, while the output is corked; return False, without effect, if that is not possible."""
        output = self._output
        outbox, kept = output.outbox, output.kept
        if self.progress is not _OPEN or self.holds or not outbox.corked:
            return False
        if kept is None:
            kept = output.last(self)
        else:
            output.kept = None
        self.progress = Progress.ENDED
        if not outbox.hold(kept):
            outbox.queue(kept)
        return True

    async def fail(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send a FAILURE as the last packet of this request, unless its last packet was sent.

        Raises:
            EncodeError: the further fields cannot be encoded; nothing was sent.
        """
        if self.progress is _OPEN:
            failure = {"status": "failure", "error": str(code), **(fields or {})}
            data = self.encoding.pack_numbered(_FAILURE, self.number, failure)
            self.progress = Progress.ENDED
            under_way = self._output.send(data)
            if under_way is not None:
                await under_way

    async def finish(self, result: object, packet: Packet) -> None:
        """Send the last packet, as the handlers have returned, unless `Client.answering` keeps the request open."""
        if result is not None and not self.holds:
            answer = as_answer(result, packet)
            await self.post_last(answer if isinstance(answer, Packet) else Packet(answer))
            return
        if result is not None:
            await self.answer(result, packet)
        if not self.holds:
            self.end(Progress.ENDED)
        elif self._output.kept is not None:
            self._output.flush()  # it must not become an answer to the next request

    @property
    def is_over(self) -> bool:
        """Whether its handler has ended, and `Client.answering` does not keep it open."""
        return self.returned and not self.holds

    def answering(self) -> Answering:
        """Return a context manager that keeps this request open after its handler has returned."""
        return Answering(self)

    def hold(self) -> None:
        """Keep the request open until `release`."""
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

    def _is_event(self) -> bool:
        """Return True if a packet that is sent after the end of the request is an EVENT, False if it is dropped.

        Raises:
            AlreadyAnswered, ClientDisconnected: it cannot be sent.
        """
        if self.progress is Progress.CLOSED or not self._output.is_open:
            raise ClientDisconnected(_CLOSED, self._output.client)
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
