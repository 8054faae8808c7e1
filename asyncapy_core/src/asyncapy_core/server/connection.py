"""`Connection`: one connection of the server, from its first byte to its last (docs/protocol.md, "A session").

Uses the peer through its transport, and the server through the `ServerState` that all connections share.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import BrokenCodec, ClientDisconnected, ConnectionLost, ErrorCode, ProtocolError
from asyncapy_core.logs import SessionLog, escape_for_log
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import Transport
from asyncapy_core.protocol.packet import SharedPacket
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.intake import Intake
from asyncapy_core.server.request import Answered, Request
from asyncapy_core.server.threads import begin_session
from asyncapy_core.session import Client, Session

if TYPE_CHECKING:
    from asyncapy_core.net.tls import PeerCertificate
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.state import ServerState

_NO_PACKET: Final = Answered.NO_PACKET
_NOT: Final = Answered.NOT
_BY_HANDLER: Final = Answered.BY_HANDLER


class Connection:
    """A peer, its session, and the loop that serves it.

    Args:
        state: the state of the server.
        transport: the connection, after a TLS handshake if there is one.
        address: the IP address of the peer, or ``unix:`` with a path.
        certificate: the verified certificate of the peer.
    """

    __slots__ = (
        "_between_turns",
        "_closing",
        "_debug",
        "_dispatch",
        "_encoding",
        "_encoding_known",
        "_encodings",
        "_intake",
        "_outbox",
        "_request",
        "_state",
        "_transport",
        "client",
        "log",
        "session",
    )

    def __init__(
        self, state: ServerState, transport: Transport, address: str, certificate: PeerCertificate | None = None
    ) -> None:
        self._state = state
        self._transport = transport
        self._intake = Intake(state, transport)
        self._outbox = Outbox(transport, state.writing, state.config.max_output, self._start)
        self._encodings = state.encodings.by_id
        self._encoding = state.encodings.default
        self._encoding_known = False
        self._between_turns = False
        self._closing = False
        self._debug = state.log.isEnabledFor(logging.DEBUG)
        self._request = Request(self, state.peers, state.dispatcher.errors, state.counters, state.config)
        dispatch = state.dispatcher.dispatch_traced if self._debug else state.dispatcher.dispatch
        self._dispatch: Callable[[Client, Packet], Awaitable[object]] = (
            functools.partial(self._request.dispatch_in_scope, dispatch)
            if state.config.handler_timeout is not None or state.config.cancel_on_disconnect
            else dispatch
        )
        self.client: Client = Client(address, state.server, self, encoding=self._encoding.name)
        if certificate is not None:
            self.client.tls_peer = certificate.subject
            self.client.tls_names = certificate.names
        self.session: Session = Session(uuid.uuid4(), self.client, time.time())
        self.client.session = self.session
        self.log: SessionLog = SessionLog(state.log, self.session.session_id, address)

    async def run(self) -> None:
        """Serve the peer until it leaves, a deadline passes, the session is closed, or the server drains."""
        started = "{Client handler} New session started, UUID is %s, address is %s"
        self._state.log.info(started, self.session.session_id, self.client.address)
        begin_session()
        self._request.enter_task()
        try:
            linger = True
            try:
                linger = await run_with_wait_hook(self._serve(), self._before_wait)
            except ProtocolError as error:
                if isinstance(error, BrokenCodec) and self._state.should_log_codec():
                    self.log.error("{API Parser} A packet could not be decoded: %s", error)
                self._state.counters.refuse(error.code)
                if not self._closing:  # no reply after a close
                    address, reason = self.client.address, escape_for_log(error)
                    self.log.info("{Client handler} %s for %s: %s", error.code.value, address, reason)
                    await self.reply(error.code)
            await self._shut_down(linger=linger)
        except ConnectionLost as error:
            self.log.info("{Client handler} The client has left: %s", escape_for_log(error))
        else:
            self.log.info("{Client handler} The connection was closed")
        finally:
            self._end()

    def send_refusal(self, code: ErrorCode) -> None:
        """Send an error reply without waiting, to a peer that gets no session; `refuse` does the rest."""
        self._outbox.cork()
        self._outbox.hold(self._encoding.pack({"status": "failure", "error": code.value}))
        self._outbox.uncork()

    async def refuse(self, code: ErrorCode) -> None:
        """Close the connection of a peer that has been sent a refusal."""
        self.log.info("{Client handler} Refused %s: %s", self.client.address, code.value)
        try:
            await self._shut_down(linger=True)
        except ConnectionLost:
            return  # the peer has left before the reply
        finally:
            self._end()

    async def _serve(self) -> bool:  # noqa: C901, PLR0912  # a coroutine for each turn would cost 0.5 us
        """Read, dispatch the whole packets, a limited number in a turn, and send the replies in one piece.

        Returns:
            Whether the peer may have sent bytes that are not read.
        """
        intake, outbox, request = self._intake, self._outbox, self._request
        encodings, dispatch, client, state = self._encodings, self._dispatch, self.client, self._state
        limit, measured, dropped = state.config.packets_per_turn, state.config.measure, state.peers.dropped.by_task
        decoder, context, now = intake.decoder, copy_context(), time.perf_counter_ns
        while data := await intake.receive(self):
            decoder.feed(data)
            del data  # a connection that waits keeps no data, payload or packet
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
        return self._closing or state.draining

    def _is_over(self) -> bool:
        """Return True if no further packet is to be handled: closed, broken, or the server drains."""
        return self._closing or self._outbox.poisoned or self._state.draining

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
        if not self._between_turns:
            self._outbox.uncork()
            if self._state.disconnects.asleep:
                self._state.disconnects.wake()

    def _packet_arrived(self, wire_id: int, payload: bytes) -> None:
        """Handle the arrival of a packet while nothing is held back; the first one fixes the session's encoding."""
        self._intake.complete(self)
        if not self._encoding_known:
            self._encoding_known = True
            self._encoding = self._encodings[wire_id]
            self.client.encoding = self._encoding.name
        if self._debug:  # never corked, so that each line is logged when its bytes are sent
            self.log.debug("{Client handler} Expected stream length is %d", len(payload))
            name = self._encodings[wire_id].name
            self.log.debug("{API Parser} Protocol-Version is V2, Content-Encoding is %s", name)
        else:
            self._outbox.cork()

    async def answer(self, result: object, packet: Packet) -> None:
        """Send the return value of a handler.

        Raises:
            ClientDisconnected, EncodeError: as for `Client.send`.
            TypeError: the value is neither a mapping nor a packet, and the handler has sent no answer.
        """
        answer = self._request.checked_answer(result, packet)
        if answer is not None:
            await self.client.send(answer)

    async def reply(self, code: str, fields: Mapping[str, Any] | None = None) -> None:
        """Send an error reply, unless the connection is closed or broken.

        Raises:
            EncodeError: the further fields cannot be encoded; nothing was sent.
        """
        if self._closing or self._outbox.poisoned:
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
        if self._closing:
            raise ClientDisconnected("the connection to this client was closed before", self.client)
        encoding = self._encoding if packet.sender is not None else self._state.encodings.by_name(packet.encoding)
        data = encoding.pack(packet.fields)
        request = self._request
        if request.answered is not _NOT:
            request.repeat()
        if self._outbox.hold(data):
            if request.answered is _NOT:
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
            raise ClientDisconnected("this client has left", self.client) from error
        if request.answered is _NOT:
            request.note_answer()

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
        if self._closing:
            raise ClientDisconnected("the connection to this client was closed before", self.client)
        if isinstance(packet, SharedPacket):
            return packet.packed(self._encoding.pack)
        encoding = self._encoding if packet.sender is not None else self._state.encodings.by_name(packet.encoding)
        return encoding.pack(packet.fields)

    async def _put(self, data: bytes) -> None:
        self._request.note_answer()
        self.log.debug("{Response handler} Sending response to client")
        try:
            await self._outbox.put(data)
        except ConnectionLost as error:
            raise ClientDisconnected("this client has left", self.client) from error
        self.log.debug("{Response handler} Response sent")

    async def close(self) -> None:
        """Close the connection after pending output; received packets that were not handled are dropped."""
        if self._closing:
            return
        try:
            await self._finish()
        except ConnectionLost:
            return  # closed by the peer
        finally:
            self._transport.wake()  # the loop does the rest

    async def _finish(self) -> None:
        """Accept no more output, send the pending output, and half-close the connection.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        self._closing = self._intake.closed = True
        self._state.end_session(self)
        self._outbox.uncork()  # the loop and senders notice a change where nothing is held back
        await self._outbox.flush()
        self._transport.send_eof()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self._state.sessions.of(self.client.address)

    @property
    def traffic(self) -> tuple[int, int, int]:
        """The numbers of bytes that were received, that were sent, and that wait for the peer to read them."""
        return self._intake.received, self._outbox.sent, self._outbox.queued

    def expire(self) -> None:
        """End the current wait: its deadline has passed."""
        self._intake.expire()

    def fileno(self) -> int:
        """Return the file descriptor of the socket, or -1 if it is closed."""
        return self._transport.fileno()

    def lose(self) -> None:
        """Note that the peer has reset the connection while a handler runs: give its place back, and tell the handler.

        With ``cancel_on_disconnect``, the handler is cancelled.
        """
        self._state.abandon(self)
        self._outbox.poison()
        self.client.gone.set()
        if self._state.config.cancel_on_disconnect:
            self._request.cancel()

    def overflow(self) -> None:
        """Refuse the incomplete packet: all connections together have too many bytes of such packets."""
        self._intake.overflow()

    def stop(self) -> None:
        """Begin no further packet; the loop notices, as nothing is held back any more."""
        self._outbox.uncork()
        self._transport.wake()

    async def _shut_down(self, *, linger: bool) -> None:
        """Send the pending output, then half-close; with ``linger``, read on until the peer has closed as well.

        A close with unread bytes would reset the connection, and the peer might lose the last reply.
        """
        self._intake.end(self)
        await self._finish()
        if linger:
            await self._intake.skip(self._state.linger(self))

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function for this peer in a task of its own."""
        self._state.peers.start(self, function, *args)

    def _end(self) -> None:
        """Drop the connection, and leave no reference cycle: its memory is freed without the garbage collector."""
        self.drop()
        self.session.end(functools.partial(self._state.sessions.of, self.client.address))
        self._request.end()

    def drop(self) -> None:
        """Close at once, without pending output; dropping twice does nothing."""
        counters, intake, outbox = self._state.counters, self._intake, self._outbox
        counters.received, intake.received = counters.received + intake.received, 0
        counters.sent, outbox.sent = counters.sent + outbox.sent, 0
        self._state.forget(self)
        self._outbox.poison()
