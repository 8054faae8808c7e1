"""`NumberedOutput`: the packets that a session of version 23 sends; its client sends events through it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import ClientDisconnected, ConnectionLost
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import SharedPacket
from asyncapy_core.server.stage import Stage

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.net.outbox import Outbox
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link
    from asyncapy_core.server.numbered_request import NumberedRequest
    from asyncapy_core.session import Client, Session

_PART: Final = bytes((Kind.PART,))


class NumberedOutput:
    """The output of one session.

    Args:
        link: the connection.

    Attributes:
        outbox: the output queue of the connection.
        encoding: the encoding of events: that of the first request, JSON before it.
        kept: the request whose latest answer is the last item of the queue, as a REPLY, until its task waits or ends.
        leaving: whether the session ends after the answers to the requests in flight.
        sending: whether the current task may be about to wait for the output queue.
    """

    __slots__ = ("_kind_at", "_wire", "encoding", "kept", "leaving", "link", "outbox", "sending")

    def __init__(self, link: Link) -> None:
        self.link: Link = link
        self.outbox: Outbox = link.outbox
        self._wire = link.state.encodings.wire
        self.kept: NumberedRequest | None = None
        self._kind_at = self._wire.header_size + 2
        self.encoding: Encoding = link.state.encodings.default
        self.leaving: bool = False
        self.sending: bool = False

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self.link.log

    @property
    def client(self) -> Client:
        """The client of the session."""
        return self.link.client

    @property
    def is_open(self) -> bool:
        """Whether packets can be sent."""
        return self.link.stage is Stage.OPEN and not self.outbox.poisoned

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self.link.sessions()

    def leave(self) -> None:
        """End the session after the answers to the requests in flight; do nothing if it has ended."""
        if self.is_open:
            self.leaving = True
            self.link.stop()

    async def close(self) -> None:
        """Do as `leave`."""
        self.leave()

    def post(self, packet: Packet | SharedPacket) -> Awaitable[None] | None:
        """Send an EVENT.

        Raises:
            ClientDisconnected: the connection has ended.
            EncodeError: the packet cannot be encoded; nothing was sent.
        """
        return self.send(self._event(packet))

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Send an EVENT without waiting; raises `trio.WouldBlock` as well."""
        self.send_now(self._event(packet))

    async def post_shared(self, packet: SharedPacket) -> None:
        """Send an EVENT that is encoded once for all sessions."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    async def post_last(self, packet: Packet) -> None:
        """Send an EVENT: it answers no request."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager that does nothing: the client of a session answers no request."""
        return nullcontext()

    async def answer(self, result: object, packet: Packet) -> None:
        """Raise an error: the clients of requests answer them."""
        raise AssertionError("the client of a session answers no request")  # pragma: no cover

    def flush(self) -> None:
        """Note that the answer that is kept, if there is one, is not the last: it becomes a PART; raises nothing."""
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.go_on(sent=not self.outbox.replace_last(self.part))

    def part(self, reply: bytes) -> bytes:
        """Return a REPLY as a PART."""
        return reply[: self._kind_at] + _PART + reply[self._kind_at + 1 :]

    def bare(self, kind: Kind, number: int, wire_id: int = 0) -> bytes:
        """Return a packet without a payload."""
        return self._wire.encode_numbered(kind, number, wire_id)

    def send(self, data: bytes) -> Awaitable[None] | None:
        """Send a packet; return an awaitable, or None if it is held back. An answer that is kept is not the last."""
        if self.kept is not None:
            self.flush()
        return None if self.outbox.hold(data) else self._put(data)

    async def send_and_wait(self, data: bytes) -> None:
        """Send a packet; wait if the queue is full."""
        under_way = self.send(data)
        if under_way is not None:
            await under_way

    async def send_failure(self, number: int, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send a FAILURE that is no answer of a handler."""
        failure = {"status": "failure", "error": str(code), **(fields or {})}
        await self.send_and_wait(self.encoding.pack_numbered(Kind.FAILURE, number, failure))

    def send_now(self, data: bytes) -> None:
        """Send a packet without waiting.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            ClientDisconnected: the peer has left.
        """
        if self.kept is not None:
            self.flush()
        if not self.outbox.hold(data):
            try:
                if not self.outbox.put_now(data):
                    raise trio.WouldBlock
            except ConnectionLost as error:
                raise ClientDisconnected("this client has left", self.link.client) from error

    def queue(self, data: bytes) -> None:
        """Send a packet for which there is room, or a short one; raises nothing."""
        if self.kept is not None:
            self.flush()
        if not self.outbox.hold(data):
            self.outbox.queue(data)

    async def make_room(self, size: int) -> None:
        """Wait until the output queue has room for this number of bytes."""
        self.sending = True
        try:
            await self.outbox.make_room(size)
        finally:
            self.sending = False

    async def _put(self, data: bytes) -> None:
        self.sending = True
        try:
            await self.outbox.enqueue(data)
        except ConnectionLost as error:
            raise ClientDisconnected("this client has left", self.link.client) from error
        finally:
            self.sending = False

    def _event(self, packet: Packet | SharedPacket) -> bytes:
        if not self.is_open:
            raise ClientDisconnected("the connection to this client was closed before", self.link.client)
        if isinstance(packet, SharedPacket):
            return packet.packed(self.encoding.pack_event)
        return self.encoding.pack_event(packet.fields)
