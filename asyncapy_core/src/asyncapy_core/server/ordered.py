"""`OrderedSession`: version 22 on one connection: one packet after the other, replies in the order of the packets."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import ClientDisconnected, ConnectionLost, ProtocolError
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.packet import SharedPacket
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.request import Answered, Request
from asyncapy_core.server.stage import Stage

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.frames import FrameDecoder
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link
    from asyncapy_core.session import Client, Session

_NO_PACKET: Final = Answered.NO_PACKET
_NOT: Final = Answered.NOT
_BY_HANDLER: Final = Answered.BY_HANDLER
_OPEN: Final = Stage.OPEN


class OrderedSession:
    """The packets of one connection in version 22. A client sends through it.

    Args:
        link: the connection.
        decoder: the decoder of its bytes.
    """

    __slots__ = (
        "_between_turns",
        "_connection",
        "_debug",
        "_decoder",
        "_dispatch",
        "_encoding",
        "_encoding_known",
        "_encodings",
        "_intake",
        "_link",
        "_outbox",
        "_request",
        "_state",
    )

    def __init__(self, link: Link, decoder: FrameDecoder) -> None:
        state = link.state
        self._link = link
        self._connection = link.interface
        self._state = state
        self._intake = link.intake
        self._encodings = state.encodings.by_id
        self._decoder = decoder
        self._outbox = link.outbox
        self._encoding = state.encodings.default
        self._encoding_known = False
        self._between_turns = False
        self._debug = state.log.isEnabledFor(logging.DEBUG)
        self._request = Request(self, state.peers, state.dispatcher.errors, state.counters, state.config)
        dispatch = state.dispatcher.dispatch_traced if self._debug else state.dispatcher.dispatch
        self._dispatch: Callable[[Client, Packet], Awaitable[object]] = (
            functools.partial(self._request.dispatch_in_scope, dispatch, self)
            if state.config.handler_timeout is not None or state.config.cancel_on_disconnect
            else dispatch
        )

    @property
    def client(self) -> Client:
        """The client of the session."""
        return self._link.client

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._link.log

    def lead(self) -> Awaitable[bool]:
        """Serve the peer in the current task.

        Returns:
            An awaitable of whether the peer may have sent bytes that are not read. It raises `ConnectionLost`, and
            `ProtocolError` if a packet breaks a rule of the protocol.
        """
        return run_with_wait_hook(self._serve(), self._before_wait)

    async def _serve(self) -> bool:  # noqa: C901, PLR0912  # a coroutine for each turn would cost 0.5 us
        """Read, dispatch the whole packets, a limited number in a turn, and send the replies in one piece.

        Returns:
            Whether the peer may have sent bytes that are not read.
        """
        intake, outbox, request = self._intake, self._outbox, self._request
        dispatch, client, state = self._dispatch, self._link.client, self._state
        limit, measured, dropped = state.config.packets_per_turn, state.config.measure, state.peers.dropped.by_task
        decoder, encodings, context = self._decoder, state.encodings.by_id, copy_context()
        request.enter_task()
        now = time.perf_counter_ns
        while True:
            while not state.draining and (frames := decoder.frames(limit)):
                for wire_id, payload in frames:
                    if not outbox.corked:  # this task has waited, or the connection was closed
                        if self._is_over():
                            return True
                        self._packet_arrived(wire_id, payload)
                    packet = encodings[wire_id].unpack(payload, client)
                    request.answered = _NOT
                    if measured:
                        request.started = now()
                    try:
                        result = await dispatch(client, packet)
                        if result is not None:
                            await self.answer(result, packet)
                        if request.answered is not _BY_HANDLER:
                            request.check_answers(packet)
                    except BaseException as error:  # a handler may raise anything
                        await request.fail(error, packet)
                    else:
                        outcomes = packet.handler.outcomes  # type: ignore[union-attr]  # there is a handler
                        outcomes.succeeded += 1
                        if measured:
                            outcomes.measure(SUCCEEDED, now() - request.started)
                    if dropped or copy_context() != context:
                        await self._clean_up(context)
                del packet, payload
                result = None
                request.answered = _NO_PACKET  # packets that tasks send from now on are no answers
                if len(frames) == limit:
                    await self._yield_turn()
            if self._is_over():
                return True
            if not outbox.flush_now():
                await outbox.flush()
            received = await intake.receive(self._connection)
            if received is False:
                return self._link.stage is not _OPEN or state.draining
            if received is None and not self._is_over():
                intake.check_deadline()

    def _is_over(self) -> bool:
        """Return True if no further packet is to be handled: closed, broken, or the server drains."""
        return self._link.stage is not _OPEN or self._outbox.poisoned or self._state.draining

    async def _yield_turn(self) -> None:
        """Yield to other connections between two packets, without sending the replies yet."""
        self._between_turns = True
        await trio.lowlevel.checkpoint()
        self._between_turns = False

    async def _clean_up(self, context: Context) -> None:
        """Close dropped generators, and undo the context variables of a handler: the next packet must not see them."""
        if self._state.peers.dropped.by_task:
            await self._request.close_dropped()
        if copy_context() != context:
            trio.lowlevel.current_task().context = context.copy()
            await self._yield_turn()  # trio uses the context when it resumes the task

    def _before_wait(self) -> None:
        """Send the held-back replies; called before each wait of the task."""
        if not self._between_turns:
            self._outbox.uncork()
            if self._state.disconnects.asleep:
                self._state.disconnects.wake()

    def _packet_arrived(self, wire_id: int, payload: bytes) -> None:
        """Handle the arrival of a packet while nothing is held back; the first one fixes the session's encoding."""
        encoding = self._encodings[wire_id]
        self._intake.complete(self._connection)
        if not self._encoding_known:
            self._encoding_known = True
            self._encoding = encoding
            self._link.client.encoding = encoding.name
        if self._debug:  # never corked, so that each line is logged when its bytes are sent
            self._link.log.debug("{Client handler} Expected stream length is %d", len(payload))
            self._link.log.debug("{API Parser} Protocol-Version is V2, Content-Encoding is %s", encoding.name)
        else:
            self._outbox.cork()

    def drop(self) -> None:
        """Close the connection at once."""
        self._link.drop()

    async def close(self) -> None:
        """Close the connection after pending output."""
        await self._link.close()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self._link.sessions()

    def cancel(self) -> None:
        """Cancel the handlers of the current packet, as their client has left, if ``cancel_on_disconnect`` is set."""
        if self._state.config.cancel_on_disconnect:
            self._request.cancel()

    def end(self) -> None:
        """Drop the references to the connection, which has ended."""
        self._request.end()
        del self._dispatch

    def stop(self) -> None:
        """Do nothing: the loop checks before each packet whether the server drains."""

    def retire(self) -> None:
        """Do nothing: a peer of version 22 cannot be told to use another connection."""

    async def abandon(self) -> None:
        """Do nothing: the handlers have ended with the task."""

    async def refuse(self, error: ProtocolError) -> None:
        """Send the reply for a packet that breaks a rule of the protocol; then the connection is closed."""
        await self.reply(error.code)

    async def answer(self, result: object, packet: Packet) -> None:
        """Send the return value of a handler.

        Raises:
            ClientDisconnected, EncodeError: as for `Client.send`.
            TypeError: the value is neither a mapping nor a packet, and the handler has sent no answer.
        """
        answer = self._request.checked_answer(result, packet)
        if answer is not None:
            await self._link.client.send(answer)

    async def reply(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send an error reply, unless the connection is closed or broken.

        Raises:
            EncodeError: the further fields cannot be encoded; nothing was sent.
        """
        if self._link.stage is not _OPEN or self._outbox.poisoned:
            return
        data = self._encoding.pack({"status": "failure", "error": str(code), **(fields or {})})
        if not self._outbox.hold(data):
            await self._outbox.put(data)

    def post(self, packet: Packet) -> Awaitable[None] | None:
        """Encode and send a packet: in the session's encoding if it has a sender, otherwise in its own.

        Returns:
            An awaitable that sends it; or None if it is held back, to be sent together with others.

        Raises:
            ClientDisconnected: the connection was closed before; from the awaitable, also if the peer has left.
            EncodeError: the packet cannot be encoded; nothing was sent.
            AlreadyAnswered: ``replies`` is ``"one"``, and the handlers have answered their packet.
        """
        outbox, request = self._outbox, self._request
        if not outbox.corked and self._link.stage is not _OPEN:  # an end of the session uncorks it
            raise ClientDisconnected("the connection to this client was closed before", self._link.client)
        encoding = self._encoding if packet.sender is not None else self._state.encodings.by_name(packet.encoding)
        data = encoding.pack(packet.fields)
        answered = request.answered
        if answered is not _NOT:
            request.repeat()
        if outbox.hold(data):
            if answered is _NOT:
                request.answered = _BY_HANDLER
            return None
        return self._put(data)

    def post_now(self, packet: Packet | SharedPacket) -> None:
        """Encode and send a packet without waiting; see `post`.

        Raises:
            trio.WouldBlock: the queue of the connection is full; nothing was sent.
            ClientDisconnected, EncodeError: as for `post`.
        """
        data = self._encoded(packet)
        request = self._request
        if request.answered is not _NO_PACKET:
            request.repeat()
        try:
            if not self._outbox.put_now(data):
                raise trio.WouldBlock
        except ConnectionLost as error:
            raise ClientDisconnected("this client has left", self._link.client) from error
        if request.answered is _NOT:
            request.note_answer()

    async def post_last(self, packet: Packet) -> None:
        """Send a packet; version 22 does not tell which answer is the last."""
        under_way = self.post(packet)
        if under_way is not None:
            await under_way

    def answering(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager that does nothing: a packet that is sent later is a push."""
        return nullcontext()

    async def post_shared(self, packet: SharedPacket) -> None:
        """Send a packet that is encoded once for all sessions.

        Raises:
            ClientDisconnected, EncodeError: as for `post`.
        """
        data = self._encoded(packet)
        self._request.repeat()
        if self._outbox.hold(data):
            self._request.note_answer()
        else:
            await self._put(data)

    def _encoded(self, packet: Packet | SharedPacket) -> bytes:
        if self._link.stage is not _OPEN:
            raise ClientDisconnected("the connection to this client was closed before", self._link.client)
        if isinstance(packet, SharedPacket):
            return packet.packed(self._encoding.pack)
        encoding = self._encoding if packet.sender is not None else self._state.encodings.by_name(packet.encoding)
        return encoding.pack(packet.fields)

    async def _put(self, data: bytes) -> None:
        self._request.note_answer()
        self._link.log.debug("{Response handler} Sending response to client")
        try:
            await self._outbox.put(data)
        except ConnectionLost as error:
            raise ClientDisconnected("this client has left", self._link.client) from error
        self._link.log.debug("{Response handler} Response sent")
