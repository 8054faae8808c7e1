"""One connection of the server, from its first byte to its last (docs/protocol.md, "A session").

Knows the peer through its transport, the server only through the `ServerState` that all its connections share.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import (
    BrokenCodec,
    ClientDisconnected,
    ConnectionLost,
    ErrorCode,
    ProtocolError,
    StopPropagation,
)
from asyncapy_core.logs import SessionLog, escape_for_log
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import Transport, Woken
from asyncapy_core.protocol.wire import FrameDecoder
from asyncapy_core.routing.dispatch import NoHandler
from asyncapy_core.server.isolation import is_descendant
from asyncapy_core.server.session import Client, Session

if TYPE_CHECKING:
    from asyncapy_core.net.tls import PeerCertificate
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.state import ServerState

LARGEST_READ: Final = 256 * 1024

BY_SERVER: Final = 2
"""A packet was answered by the server; True is for its handlers, False for nobody."""

_serving: ContextVar[Connection] = ContextVar("serving")
"""The connection whose handler a thread works for, and the system tasks in which trio runs its calls."""


class TimedOut(ProtocolError):
    """No whole packet came within ``timeout``."""

    code = ErrorCode.TIMED_OUT


class Connection:
    """A peer, its session, and the loop that serves it."""

    __slots__ = (
        "_answered",
        "_between_turns",
        "_closing",
        "_debug",
        "_decoder",
        "_dispatch",
        "_encoding",
        "_encoding_known",
        "_encodings",
        "_expired",
        "_outbox",
        "_state",
        "_task",
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
        self._decoder = FrameDecoder(state.encodings.wire, state.encodings.by_id)
        self._outbox = Outbox(transport, state.writing, state.config.max_output, self._start)
        self._encodings = state.encodings.by_id
        self._encoding = state.encodings.default
        self._encoding_known = False
        self._expired = False
        self._between_turns = False
        self._closing = False
        self._answered: bool | int = False
        self._task: trio.lowlevel.Task | None = None
        self._debug = state.log.isEnabledFor(logging.DEBUG)
        dispatch = state.dispatcher.dispatch_traced if self._debug else state.dispatcher.dispatch
        limit = state.config.handler_timeout
        self._dispatch = dispatch if limit is None else functools.partial(self._in_time, limit, dispatch)
        self.client = Client(address, state.server, self, encoding=self._encoding.name)
        if certificate is not None:
            self.client.tls_peer = certificate.subject
            self.client.tls_names = certificate.names
        self.session = self.client.session = Session(uuid.uuid4(), self.client, time.time())
        self.log = SessionLog(state.log, self.session.session_id)

    async def run(self) -> None:
        """Serve the peer until it leaves, a deadline passes, something closes the session, or the server drains."""
        self._state.log.info("{Client handler} New session started, UUID is %s", self.session.session_id)
        self._task = trio.lowlevel.current_task()
        _serving.set(self)
        try:
            linger = True
            try:
                linger = await run_with_wait_hook(self._serve(), self._about_to_wait)
            except ProtocolError as error:
                if isinstance(error, BrokenCodec) and self._state.should_log_codec():
                    self.log.error("{API Parser} A packet could not be read: %s", error)
                if not self._closing:  # nothing is answered behind a close
                    self.log.info("{Client handler} %s: %s", error.code.value, escape_for_log(error))
                    await self._reply(error.code)
            await self._part(linger=linger)
        except ConnectionLost as error:
            self.log.info("{Client handler} The client has left: %s", escape_for_log(error))
        else:
            self.log.info("{Client handler} The connection was closed")
        finally:
            self.drop()

    async def refuse(self, code: ErrorCode) -> None:
        """Tell a peer that there is no place for it, and close."""
        self.log.info("{Client handler} Refused %s: %s", self.client.address, code.value)
        try:
            await self._reply(code)
            await self._part(linger=True)
        except ConnectionLost:
            return  # it did not wait for the answer
        finally:
            self.drop()

    async def _serve(self) -> bool:
        """The loop: wait for bytes, answer the whole packets in them, some at a time, send the answers in one piece.

        Returns:
            Whether the peer may have sent what is not read.
        """
        decoder, outbox = self._decoder, self._outbox
        encodings, dispatch, client, state = self._encodings, self._dispatch, self.client, self._state
        limit, dropped = state.config.packets_per_turn, state.peers.dropped.by_task
        while data := await self._receive():
            decoder.feed(data)
            while not state.draining and (frames := decoder.frames(limit)):
                for wire_id, payload in frames:
                    if not outbox.corked:  # this task has waited, or the connection was closed
                        if self._is_over():
                            return True
                        self._packet_arrived(wire_id, payload)
                    packet = encodings[wire_id].unpack(payload, client)
                    self._answered = False
                    try:
                        await dispatch(client, packet)
                    except BaseException as error:  # a handler may raise anything
                        await self._raised(error, packet)
                    if dropped:
                        await self._close_dropped()
                if len(frames) == limit:
                    await self._let_others_go_on()
            if self._is_over():
                return True
            if not outbox.flush_now():
                await outbox.flush()
        return self._closing or state.draining

    async def _in_time(
        self, limit: float, dispatch: Callable[..., Awaitable[None]], client: Client, packet: Packet
    ) -> None:
        """Dispatch, and cut off a handler that takes longer than ``handler_timeout``."""
        with trio.move_on_after(limit) as scope:
            try:
                await dispatch(client, packet)
            finally:
                if self._state.peers.dropped.by_task:  # what was opened inside of this scope is to be closed inside
                    await self._state.peers.close_dropped(self)
        if scope.cancelled_caught:
            raise TimeoutError(f"cut off after {limit:g} s (handler_timeout)")

    def _is_over(self) -> bool:
        """Return True when no further packet is to be handled: closed, broken, or the server drains."""
        return self._closing or self._outbox.poisoned or self._state.draining

    async def _receive(self) -> bytes:
        """Give others their turn, then return what has come; nothing when the peer is done, or nothing more is wanted.

        The deadline runs from the moment a packet is waited for until it is complete.

        Raises:
            TimedOut: the deadline has passed.
            ConnectionLost: the connection broke.
        """
        await trio.lowlevel.checkpoint()
        if self._state.draining:
            return b""
        size = self._state.config.buf
        if self._decoder.buffered:
            size = max(size, min(self._decoder.missing, LARGEST_READ))
        data = self._transport.receive_now(size)
        while data is None and not (self._closing or self._state.draining):
            if self._expired:
                raise TimedOut(f"no whole packet within {self._state.config.timeout:g} s")
            self._state.reading.start(self)
            try:
                data = await self._transport.receive(size)
            except Woken:
                continue
        return data or b""

    async def _let_others_go_on(self) -> None:
        """Give the others their turn, in the middle of this one's packets; the replies wait for the rest of them."""
        self._between_turns = True
        await trio.lowlevel.checkpoint()
        self._between_turns = False

    def _about_to_wait(self) -> None:
        if not self._between_turns:
            self._outbox.uncork()

    def _packet_arrived(self, wire_id: int, payload: bytes) -> None:
        """A whole packet is there, and nothing is held back; the first of all fixes the encoding of the session."""
        self._state.reading.stop(self)
        self._expired = False
        if not self._encoding_known:
            self._encoding_known = True
            self._encoding = self._encodings[wire_id]
            self.client.encoding = self._encoding.name
        if self._debug:  # nothing is held back, so that each line stands where its bytes go, and each packet comes here
            self.log.debug("{Client handler} Expected stream length is %d", len(payload))
            self.log.debug("{API Parser} Protocol-Version is V2, Content-Encoding is %s", self._encodings[wire_id].name)
        else:
            self._outbox.cork()

    async def _not_handled(self, outcome: NoHandler) -> None:
        """Answer a packet that no handler got, unless a guard or a filter has answered it."""
        if not self._answered:
            self._answered = BY_SERVER
            await self._reply(ErrorCode.NO_HANDLER)
        elif outcome.failed:
            await self.close()  # the peer cannot tell what the answer was to

    async def _raised(self, error: BaseException, packet: Packet) -> None:
        """Answer a packet that no handler got; log and answer a handler's failure.

        The end of the propagation, or of the handler's own session, is no failure.

        A packet that was answered gets no second answer: the connection is closed behind the first, as the peer could
        not tell the replies to later packets from it (docs/protocol.md, "never by both").

        Raises:
            BaseException: the part that is the server's own.
        """
        if type(error) is NoHandler:
            return await self._not_handled(error)

        def expected(leaf: BaseException) -> bool:
            own = isinstance(leaf, ClientDisconnected) and leaf.client is self.client
            return own or isinstance(leaf, StopPropagation)

        peers = self._state.peers
        through, failure = peers.split(error)
        if isinstance(failure, BaseExceptionGroup):
            failure = failure.split(expected)[1]
        elif failure is not None and expected(failure):
            failure = None
        if failure is not None:
            name = "A filter" if packet.handler is None else f"Handler '{escape_for_log(packet.handler.name)}'"
            peers.failures.report(self.log, f"{{API Parser}} {name}", failure)
        if through is not None:
            raise through
        if failure is None:
            return None
        if self._answered:
            return await self.close()
        self._answered = BY_SERVER
        return await self._reply(ErrorCode.HANDLER_FAILED)

    async def _close_dropped(self) -> None:
        """Close the async generators that the handler has left open, before the next packet."""
        by_server = self._answered == BY_SERVER
        if by_server:
            self._answered = False
        await self._state.peers.close_dropped(self)
        if by_server and self._answered:
            await self.close()  # a clean-up has answered what the server had answered

    async def _reply(self, code: ErrorCode) -> None:
        """Send a reply of the server's own, unless the connection was closed, or broke, before."""
        if self._closing or self._outbox.poisoned:
            return
        data = self._encoding.pack({"status": "failure", "error": code.value})
        if not self._outbox.hold(data):
            await self._outbox.put(data)

    def post(self, packet: Packet) -> Awaitable[None] | None:
        """Encode a packet, in the session's encoding if a peer sent it, otherwise in its own, and have it sent.

        Returns:
            What to wait for until it is on its way; or None when it goes out together with others.

        Raises:
            ClientDisconnected: the connection was closed before; the peer has left, where there is something to wait.
            EncodeError: the packet cannot be carried; nothing of it was sent.
        """
        if self._closing:
            raise ClientDisconnected("the connection to this client was closed before", self.client)
        encoding = self._encoding if packet.sender is not None else self._state.encodings.named(packet.encoding)
        data = encoding.pack(packet.fields)
        if self._outbox.hold(data):
            self._answered = True
            return None
        return self._put(data)

    async def _put(self, data: bytes) -> None:
        if self._is_handlers(trio.lowlevel.current_task()):
            self._answered = True
        self.log.debug("{Response handler} Sending response to client")
        try:
            await self._outbox.put(data)
        except ConnectionLost as error:
            raise ClientDisconnected("this client has left", self.client) from error
        self.log.debug("{Response handler} Response sent")

    def _is_handlers(self, task: trio.lowlevel.Task) -> bool:
        """Return True for the task of this connection, those below it, and calls from the threads that they wait for.

        Tasks that a handler has started elsewhere outlive it: what they send is a push, and answers no packet.
        """
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task():
            return _serving.get(None) is self  # a system task, which trio makes for a call from a thread
        return is_descendant(task, self._task)

    async def close(self) -> None:
        """Close the connection behind what was sent; packets that came and were not handled yet are dropped."""
        if self._closing:
            return
        try:
            await self._finish()
        except ConnectionLost:
            return  # closed, if not by us
        finally:
            self._transport.wake()  # for the loop to see to the rest

    async def _finish(self) -> None:
        """Take no more, send what was held back or queued, and say that this is all.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        self._closing = True
        self._state.sessions.discard(self.session)
        self._outbox.uncork()  # the loop, and whoever sends, look at what has changed where nothing is held back
        await self._outbox.flush()
        self._transport.send_eof()

    def sessions(self) -> list[Session]:
        """Return all active sessions of this peer's address."""
        return self._state.sessions.of(self.client.address)

    def expire(self) -> None:
        """A deadline has passed."""
        self._expired = True
        self._transport.wake()

    def stop(self) -> None:
        """Begin no further packet: the loop looks whether it is still wanted where nothing is held back."""
        self._outbox.uncork()
        self._transport.wake()

    async def _part(self, *, linger: bool) -> None:
        """Send what is queued, then close; after lingering, as a close with bytes unread resets the connection."""
        self._state.reading.stop(self)
        await self._finish()
        if not linger:
            return
        self._expired = False
        unread = self._state.linger(self)
        while unread > 0 and not self._expired:
            try:
                data = await self._transport.receive(min(unread, LARGEST_READ))
            except Woken:
                continue
            if not data:
                return
            unread -= len(data)

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run something for this peer in a task of its own."""
        self._state.peers.start(self, function, *args)

    def drop(self) -> None:
        """Close at once, without a word; a second time does nothing."""
        self._state.forget(self)
        self._outbox.poison()
