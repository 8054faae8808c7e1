"""`Connection`: one connection of the server, from its first byte to its last (docs/protocol.md, "A session").

Uses the peer through its transport, and the server through the `ServerState` that all connections share.
"""

from __future__ import annotations

import functools
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import BrokenCodec, ConnectionLost, ErrorCode, ProtocolError
from asyncapy_core.logs import SessionLog, begin_log, escape_for_log
from asyncapy_core.net.outbox import Outbox
from asyncapy_core.net.transport import Transport
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.wire import NUMBERED_VERSION
from asyncapy_core.server.intake import Intake
from asyncapy_core.server.numbered import NumberedSession
from asyncapy_core.server.ordered import OrderedSession
from asyncapy_core.server.stage import Stage
from asyncapy_core.server.threads import begin_session
from asyncapy_core.session import Client, Session

if TYPE_CHECKING:
    from asyncapy_core.net.tls import PeerCertificate
    from asyncapy_core.server.state import ServerState

SILENT_SECONDS: Final = 0.05
"""The time after which a connection without a place is refused even if it has sent nothing: a health check has ended by
then, and is no refusal."""

VERSION_SECONDS: Final = 0.1
"""The time from the first Content-Length to the byte of the version, if it is too large for version 22 alone."""


class Connection:
    """A peer and its session.

    Args:
        state: the state of the server.
        transport: the connection, after a TLS handshake if there is one.
        address: the IP address of the peer, or ``unix:`` with a path.
        certificate: the verified certificate of the peer.
        of_proxy: whether the peer is a proxy that checks the server, and no client.

    Attributes:
        of_proxy: as given.
        stage: the part of its life that the connection is in.
        ended: set when the connection has ended, if it is not None.
    """

    __slots__ = (
        "_detector",
        "_leader",
        "_talk",
        "_transport",
        "client",
        "ended",
        "intake",
        "log",
        "of_proxy",
        "outbox",
        "session",
        "stage",
        "state",
    )

    def __init__(
        self,
        state: ServerState,
        transport: Transport,
        address: str,
        certificate: PeerCertificate | None = None,
        *,
        of_proxy: bool = False,
    ) -> None:
        self.state: ServerState = state
        self._transport = transport
        self.stage: Stage = Stage.OPEN
        self.of_proxy: bool = of_proxy
        self.ended: trio.Event | None = None
        self._leader: trio.lowlevel.Task | None = None
        self._detector = detector = DetectingDecoder(state.encodings.wire, state.encodings.by_id)
        self.intake: Intake = Intake(state, transport, detector)
        self.outbox: Outbox = Outbox(transport, state.writing, state.config.max_output, self.start)
        self._talk: OrderedSession | NumberedSession = OrderedSession(self, detector)
        self.client: Client = Client(address, state.server, self._talk, encoding=state.encodings.default.name)
        if certificate is not None:
            self.client.tls_peer = certificate.subject
            self.client.tls_names = certificate.names
        self.session: Session = Session(uuid.uuid4(), self.client, time.time())
        self.client.session = self.session
        self.log: SessionLog = SessionLog(state.log, self.session.session_id, address)

    @property
    def interface(self) -> Connection:
        """The connection itself, for `Link`."""
        return self

    @property
    def traffic(self) -> tuple[int, int, int]:
        """The numbers of bytes that were received, that were sent, and that wait for the peer to read them."""
        return self.intake.received, self.outbox.sent, self.outbox.queued

    async def run(self, *, begun: bool = False) -> None:
        """Serve the peer until it leaves, a deadline passes, the session is closed, or the server drains.

        Args:
            begun: whether another task has begun to do so; see `hand_over`.
        """
        if not begun:
            begin_session()
            begin_log(self.log)
        task = self._leader = trio.lowlevel.current_task()
        linger: bool | None = None
        try:
            try:
                if begun or await self._find_version():
                    linger = await self._talk.lead()
                else:
                    linger = self.stage is not Stage.OPEN or (self.state.draining and self.intake.received > 0)
            except ProtocolError as error:
                self._note_start()
                await self._refuse(error)
                linger = True
            if linger is not None:
                await self._shut_down(linger=linger)
        except ConnectionLost as error:
            if self.stage is Stage.OPEN and not isinstance(error.__cause__, ConnectionError):
                self._note_start()  # a fault of TLS is no health check
            self.log.end("{Client handler} The client has left: %s", escape_for_log(error))
            await self._talk.abandon()
        else:
            if linger is not None:
                self.log.end("{Client handler} The connection was closed")
        finally:
            if self._leader is task:
                self.end()

    def hand_over(self) -> None:
        """Let a new task go on with the connection, and end it; the current one only handles a request."""
        self._leader = None
        self.start(functools.partial(self.run, begun=True))

    def _note_start(self) -> None:
        """Count and log the session, once: with its first byte, or with an error.

        A connection that ends before is a health check. The connections of a proxy itself, and those after a stop of
        the server, are no sessions of clients either.
        """
        if not self.log.begun:
            is_client = not (self.of_proxy or self.state.draining)
            self.state.counters.sessions += is_client
            self.log.begin(logging.INFO if is_client else logging.DEBUG)

    @property
    def _level_of_errors(self) -> int:
        return logging.DEBUG if self.of_proxy else logging.INFO

    async def _find_version(self) -> bool:
        """Read until the version of the session is known; return False if it is not before its end."""
        detector, intake, state = self._detector, self.intake, self.state
        if intake.received:
            self._note_start()
            detector.frames(0)
        while detector.version is None:
            received: bool | None = None
            patience = VERSION_SECONDS if detector.lacks_version else math.inf
            with trio.move_on_at(min(trio.current_time() + patience, state.greeting_ends)) as scope:
                received = await intake.receive(self)
            if scope.cancelled_caught and intake.take():  # the process may have stood still until after the deadline
                received = True
            if received:
                self._note_start()
                detector.frames(0)
            elif received is False or self.stage is not Stage.OPEN or trio.current_time() >= state.greeting_ends:
                return False
            elif scope.cancelled_caught:
                detector.assume_ordered()
            else:
                intake.check_deadline()
        self.log.version = detector.version
        if detector.version == NUMBERED_VERSION:
            self._talk.end()
            self._talk = talk = NumberedSession(self, detector.numbered())
            self.client.stream = talk.output
            self.state.limit_age(self)
        del self._detector
        return True

    async def _refuse(self, error: ProtocolError) -> None:
        """Answer a packet that breaks a rule of the protocol, unless the connection is closed."""
        if isinstance(error, BrokenCodec) and self.state.should_log_codec():
            self.log.error("{API Parser} A packet could not be decoded: %s", error)
        self.state.counters.refuse(error.code)
        if self.stage is Stage.OPEN:
            address, reason = self.client.address, escape_for_log(error)
            level, code = self._level_of_errors, error.code.value
            self.log.log(level, "{Client handler} %s for %s: %s", code, address, reason, extra={"code": code})
            await self._talk.refuse(error)

    async def wait_for_place(self) -> None:
        """Wait for the first byte, then serve the peer, or refuse it if there is still no place."""
        received: bool | None = None
        has_place = False
        try:
            with trio.move_on_after(SILENT_SECONDS):
                received = await self.intake.receive(self)
            if received is not False and self.stage is Stage.OPEN:
                code = self.state.take_place(self)
                has_place = code is None
                if code is not None:
                    self._send_refusal(code)
                    await self._shut_down(linger=True)
        except ConnectionLost as error:
            self.log.debug("{Client handler} The client has left: %s", escape_for_log(error))
        finally:
            if has_place:
                self.state.begin(self)
            else:
                self.end()

    def dismiss(self, code: ErrorCode) -> None:
        """Refuse the peer, unless this is done, and close at once."""
        if self.stage is Stage.OPEN:
            self._send_refusal(code)
        self.drop()

    def _send_refusal(self, code: ErrorCode) -> None:
        """Send an error reply without waiting, to a peer that gets no session."""
        self.state.counters.refuse(code)
        level, name = self._level_of_errors, code.value
        self.log.log(level, "{Client handler} Refused %s: %s", self.client.address, name, extra={"code": name})
        self.outbox.cork()
        self.outbox.hold(self.state.encodings.default.pack({"status": "failure", "error": code.value}))
        self.outbox.uncork()

    async def close(self) -> None:
        """Close the connection after pending output; received packets that were not handled are dropped."""
        if self.stage is not Stage.OPEN:
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
        self.stage = max(self.stage, Stage.CLOSING)
        self.state.end_session(self)
        self.outbox.uncork()  # the loop and senders notice a change where nothing is held back
        await self.outbox.flush()
        self._transport.send_eof()

    def sessions(self) -> list[Session]:
        """Return the active sessions of this peer's address."""
        return self.state.sessions.of(self.client.address)

    def wake(self) -> None:
        """Make the task that reads check the state of the connection."""
        self.intake.wake()

    def expire(self) -> None:
        """End the current wait: its deadline has passed."""
        self.intake.expire()

    def fileno(self) -> int:
        """Return the file descriptor of the socket, or -1 if it is closed."""
        return self._transport.fileno()

    @property
    def broken(self) -> bool:
        """Whether a write has failed, or the connection was dropped."""
        return self.outbox.poisoned

    def lose(self) -> None:
        """Note that the connection broke while a handler runs: give its place back, and tell the handler.

        With ``cancel_on_disconnect``, the handler is cancelled.
        """
        self.state.abandon(self)
        self.outbox.poison()
        self.client.gone.set()
        self._talk.cancel()

    def overflow(self) -> None:
        """Refuse the incomplete packet: all connections together have too many bytes of such packets."""
        self.intake.overflow()

    def retire(self) -> None:
        """Ask the peer to use another connection: its ``session_age`` has passed."""
        self._talk.retire()

    def stop(self) -> None:
        """Begin no further packet; the loop notices, as nothing is held back any more."""
        self._talk.stop()
        self.outbox.uncork()
        self.intake.wake()

    async def _shut_down(self, *, linger: bool) -> None:
        """Send the pending output, then half-close; with ``linger``, read on until the peer has closed as well.

        A close with unread bytes would reset the connection, and the peer might lose the last reply.
        """
        self.intake.end(self)
        await self._finish()
        if linger:
            self.stage = Stage.LINGERING
            await self.intake.skip(self.state.linger(self))

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function for this peer in a task of its own."""
        self.state.peers.start(self, function, *args)

    def end(self) -> None:
        """Drop the connection, and leave no reference cycle: its memory is freed without the garbage collector."""
        self.drop()
        self.session.end(functools.partial(self.state.sessions.of, self.client.address))
        self._talk.end()
        del self._talk
        if self.ended is not None:
            self.ended.set()

    def drop(self) -> None:
        """Close at once, without pending output; dropping twice does nothing."""
        counters, intake, outbox = self.state.counters, self.intake, self.outbox
        counters.received, intake.received = counters.received + intake.received, 0
        counters.sent, outbox.sent = counters.sent + outbox.sent, 0
        self.stage = Stage.CLOSED
        self.state.forget(self)
        outbox.poison()
