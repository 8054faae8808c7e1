"""`NumberedRequest`: one request of version 23, from its packet to its last answer. Its client sends through it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncapy_core.errors import AlreadyAnswered, ClientDisconnected
from asyncapy_core.logs import escape_for_log
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.server.handling import as_answer

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import SharedPacket
    from asyncapy_core.server.worker import Worker
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


class Exchange(Protocol):
    """The session, as its requests use it."""

    @property
    def log(self) -> SessionLog: ...

    @property
    def is_open(self) -> bool: ...

    def keep(self, request: NumberedRequest, part: bytes) -> bool:
        """Keep a PART until it is known whether it is the last answer; return False if it must be sent at once."""

    def flush(self) -> None:
        """Send the PART that is kept, if there is one."""

    def send_last(self, request: NumberedRequest) -> Awaitable[None] | None:
        """Send the PART that is kept for a request as its REPLY, or an END."""

    def send(self, data: bytes) -> Awaitable[None] | None:
        """Send a packet; return an awaitable, or None if it is held back."""

    def send_now(self, data: bytes) -> None:
        """Send a packet without waiting."""

    def post(self, packet: Packet | SharedPacket) -> Awaitable[None] | None:
        """Send an EVENT."""

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an EVENT without waiting."""

    def leave(self) -> None:
        """End the session after the answers to the requests in flight."""

    def sessions(self) -> list[Session]:
        """Return the active sessions of the address."""


class NumberedRequest:
    """A request.

    Args:
        exchange: its session.
        number: its number.
        encoding: its encoding, and that of its answers.
        size: bytes of its payload.

    Attributes:
        progress: how far it has come.
        answered: whether an answer was sent or is kept.
        client: the client that its handler gets.
        packet: its packet, once it is decoded.
        worker: the task of its handler, while that runs.
    """

    __slots__ = ("_exchange", "answered", "client", "encoding", "number", "packet", "progress", "size", "worker")

    client: Client
    packet: Packet

    def __init__(self, exchange: Exchange, number: int, encoding: Encoding, size: int) -> None:
        self._exchange = exchange
        self.number: int = number
        self.encoding: Encoding = encoding
        self.size: int = size
        self.progress: Progress = _OPEN
        self.answered: bool = False
        self.worker: Worker | None = None

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._exchange.log

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
        exchange = self._exchange
        if self.progress is not _OPEN:
            return exchange.post(packet) if self._is_event() else None
        if not exchange.is_open:
            raise self._disconnected()
        part = self.encoding.pack_numbered(Kind.PART, self.number, packet.fields)
        exchange.flush()
        self.answered = True
        return None if exchange.keep(self, part) else exchange.send(part)

    async def post_last(self, packet: Packet | SharedPacket) -> None:
        """Send the last answer; see `post`."""
        if self.progress is not _OPEN:
            raise AlreadyAnswered("this request has ended, or its last answer was sent")
        under_way = self.post(packet)
        if under_way is not None:
            await under_way
        await self.close_with(Progress.ANSWERED)

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an answer without waiting; see `post`.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            AlreadyAnswered, ClientDisconnected, EncodeError: as for `post`.
        """
        exchange = self._exchange
        if self.progress is not _OPEN:
            if self._is_event():
                exchange.post_now(packet)
            return
        if not exchange.is_open:
            raise self._disconnected()
        part = self.encoding.pack_numbered(Kind.PART, self.number, packet.fields)
        exchange.flush()
        exchange.send_now(part)
        self.answered = True

    async def post_shared(self, packet: SharedPacket) -> None:
        """Send an answer; see `post`."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    async def answer(self, result: object, packet: Packet) -> None:
        """Send the return value of a handler; it is the last answer if it is that of the last group."""
        answer = as_answer(result, packet)
        under_way = self.post(answer if isinstance(answer, Packet) else Packet(answer))
        if under_way is not None:
            await under_way

    async def close_with(self, progress: Progress) -> None:
        """Send the last packet of this request: its kept answer as the REPLY, or an END; do nothing if it was sent.

        Args:
            progress: the progress from now on.
        """
        if self.progress is not _OPEN:
            return
        self.progress = progress
        under_way = self._exchange.send_last(self)
        if under_way is not None:
            await under_way

    async def fail_with(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send a FAILURE as the last packet of this request; do nothing if its last packet was sent.

        Raises:
            EncodeError: the further fields cannot be encoded; nothing was sent.
        """
        if self.progress is not _OPEN:
            return
        failure = {"status": "failure", "error": str(code), **(fields or {})}
        data = self.encoding.pack_numbered(Kind.FAILURE, self.number, failure)
        self.progress = Progress.ENDED
        self._exchange.flush()
        under_way = self._exchange.send(data)
        if under_way is not None:
            await under_way

    async def close(self) -> None:
        """End this request, then the session after the answers to the other requests in flight."""
        await self.close_with(Progress.CLOSED)
        self._exchange.leave()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self._exchange.sessions()

    def _is_event(self) -> bool:
        """Return True if a packet that is sent now is an EVENT, False if it is dropped.

        Raises:
            AlreadyAnswered, ClientDisconnected: it cannot be sent.
        """
        if self.progress is Progress.CANCELLED:
            return False
        if self.progress is Progress.ANSWERED:
            raise AlreadyAnswered("this request has ended: its last answer was sent, with last=True or a return")
        if self.progress is Progress.CLOSED:
            raise self._disconnected()
        handler = self.packet.handler
        if handler is not None and handler.notes("late"):
            self.log.warning(
                "{API Parser} A client of handler '%s' was sent a packet after its request has ended: the peer gets it "
                "as an event; see Client.answering",
                escape_for_log(handler.name),
            )
        return True

    def _disconnected(self) -> ClientDisconnected:
        return ClientDisconnected("the connection to this client was closed before", self.client)
