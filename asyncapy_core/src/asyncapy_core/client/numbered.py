"""`NumberedRequests`: the requests of `AsyncClient` in version 23, which are answered in any order.

Does the I/O; `Exchange` matches answers to requests. A connection that the server leaves gets its last answers while
another one takes new requests.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.client.calls import Call, PartsCall, Unsent
from asyncapy_core.client.connecting import within
from asyncapy_core.client.events import EventStream, Listeners
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.ordered import FIRST_PAUSE, LONGEST_PAUSE, NOT_CONNECTED_YET, READ
from asyncapy_core.client.streaming import ReplyStream, Signal
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected, VersionTooOld
from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncapy_core.client.streams import Connector
    from asyncapy_core.client.versions import ServerVersion
    from asyncapy_core.protocol.encoding import EncodingRegistry

SILENCE: Final = 30.0
"""The seconds within which the server has to send anything after a PING; if not, the connection is given up."""

NOT_ANSWERED: Final = "the server has not answered the PING that asks for its version"

PATIENCE: Final = 5.0
"""The seconds for which nothing is read while a stream is full. Servers end connections that take no output for longer
(``send_timeout``, 10 seconds by default)."""

CLOSING: Final = 1.0
"""The most seconds to cancel the requests in flight when the client is closed."""

KEEP_ALIVE: Final = 60.0
"""The seconds without a packet after which the server gets a PING, if answers or events are expected."""


class NumberedRequests:
    """The requests of one client, to whose server it connects again when the connection is lost.

    Args:
        connector: opens the connections.
        encodings: the encodings of the client.
        version: the version of the server; if it is not known, each connection begins with a PING.
    """

    def __init__(self, connector: Connector, encodings: EncodingRegistry, version: ServerVersion) -> None:
        self._connector = connector
        self._encodings = encodings
        self._version = version
        self._unsent = Unsent(self._wake)
        self._listeners = Listeners()
        self._wanted = Signal()
        self._connections: dict[NumberedConnection, None] = {}
        self._not_ready = NOT_CONNECTED_YET

    def __len__(self) -> int:
        """Return the number of requests without a last answer."""
        return len(self._unsent) + sum(len(connection.exchange) for connection in self._connections)

    async def request(self, packet: bytes, wire_id: int, seconds: float | None) -> dict[str, Any] | None:
        """Send a packet and return the fields of its last answer; see `AsyncClient.request`.

        Args:
            packet: a REQUEST of version 23, with any number.
            wire_id: the wire id of its codec.
            seconds: the most seconds until the last answer; None for no limit.

        Raises:
            VersionTooOld: the server has version 22; the request was not sent.
        """
        done = trio.Event()
        call = Call(packet, wire_id, done.set)
        self._unsent.add(call)
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await done.wait()
            if not call.ended:
                self.give_up(call, seconds)
        finally:
            if not call.ended:
                self.forget(call)
        if call.error is not None:
            raise copy.copy(call.error) from call.error.__cause__  # other tasks may raise the same exception
        return call.answer

    def stream(self, packet: bytes, wire_id: int, seconds: float | None) -> ReplyStream:
        """Return the answers to a packet; see `AsyncClient.stream`."""
        changed = Signal()
        call = PartsCall(packet, wire_id, changed.set, self._encodings.wire.max_packet)
        return ReplyStream(
            call,
            changed,
            send=self._unsent.add,
            forget=self.forget,
            give_up=self.give_up,
            seconds=seconds,
        )

    def events(self) -> EventStream:
        """Return the events of the server from now on; see `AsyncClient.events`."""
        stream = EventStream(self._encodings.wire.max_packet)
        self.listen(stream)
        return stream

    def listen(self, stream: EventStream) -> None:
        """Add the events of the server from now on to an event stream."""
        self._listeners.add(stream)
        self._wake()

    def give_up(self, call: Call, seconds: float | None) -> None:
        """Fail a call that has waited for too long, and cancel it.

        Args:
            call: the call.
            seconds: the time that it has waited.
        """
        error: RemoteError = ReplyTimeout(f"no whole answer {within(seconds)}")
        if call in self._unsent:
            error = NotConnected(f"never sent {within(seconds)}: {self._not_ready}")
        call.fail(error)
        self.forget(call, late=True)

    def forget(self, call: Call, *, late: bool = False) -> None:
        """Cancel a call whose caller no longer waits.

        Args:
            call: the call.
            late: whether its answer did not come in time, so that the connection may be dead.
        """
        self._unsent.discard(call)
        for connection in tuple(self._connections):
            if connection.exchange.cancel(call):
                if late:
                    connection.ping()
                connection.wake()

    async def run(self) -> None:
        """Connect when a request is to be sent or events are expected, and again when the connection is left."""
        pause = FIRST_PAUSE
        async with trio.open_nursery() as nursery:
            while True:
                while not (self._unsent or self._listeners):
                    await self._wanted.wait()
                try:
                    stream = await self._connector.connect()
                except NotConnected as error:
                    if not self._connector.patient:
                        self._unsent.fail(error)
                    self._not_ready = str(error)
                    pause = await self._pause(pause, hurry=not self._connector.patient)
                    continue
                except RemoteError as error:  # another attempt would fail as well
                    self._unsent.fail(error)
                    self._listeners.fail(error)
                    continue
                exchange = self._exchange()
                connection = NumberedConnection(stream, exchange, self._connector.where, self._listeners)
                self._connections[connection] = None
                self._not_ready = NOT_ANSWERED if exchange.silent else "the server accepts no more data"
                nursery.start_soon(self._serve, connection)
                await connection.left.wait()
                self._separate_listeners(connection)
                if exchange.answered:
                    pause = FIRST_PAUSE
                pause = await self._pause(pause, hurry=exchange.answered or not self._connector.patient)

    def close(self) -> None:
        """Fail the requests that have no last answer."""
        for connection in self._connections:
            connection.exchange.abandon(ServerDisconnected("the client was closed before the reply came"))
        self._unsent.fail(NotConnected("the client was closed before the request was sent"))
        for listeners in (self._listeners, *(connection.listeners for connection in self._connections)):
            listeners.fail(NotConnected("the client was closed"))

    def _exchange(self) -> Exchange:
        """Return the exchange of a new connection; it asks for the version, if that is not known or nothing is sent."""
        asks = self._version.known is None or not self._unsent
        return Exchange(self._unsent, self._encodings, self._listeners.receive, asks=asks)

    async def _serve(self, connection: NumberedConnection) -> None:
        """Run a connection, and note its end."""
        reason = await connection.run(self._learn)
        del self._connections[connection]
        if isinstance(reason, VersionTooOld):
            self._version.learn(PROTOCOL_VERSION)
            self._unsent.fail(reason)
            connection.listeners.fail(reason)
        elif not connection.exchange.useful:
            self._version.forget()
            self._not_ready = str(reason)
            if not self._connector.patient:
                self._unsent.fail(NotConnected(str(reason)))
        self._separate_listeners(connection)
        connection.listeners.end_session(reason)
        connection.left.set()

    def _separate_listeners(self, connection: NumberedConnection) -> None:
        """Let later event streams belong to the next connection, and not hear of the end of this one."""
        if self._listeners is connection.listeners:
            self._listeners = connection.listeners.successors()

    def _learn(self) -> None:
        self._version.learn(NUMBERED_VERSION)

    async def _pause(self, seconds: float, *, hurry: bool) -> float:
        """Wait for half of a time or more, so that clients do not reconnect all at once; return the next time.

        Args:
            seconds: the time.
            hurry: wait only until there is a request.
        """
        with trio.move_on_after(seconds * random.uniform(0.5, 1)):  # noqa: S311  # no secret
            while not (hurry and self._unsent):
                await self._wanted.wait()
        return min(2 * seconds, LONGEST_PAUSE)

    def _wake(self) -> None:
        self._wanted.set()
        for connection in self._connections:
            connection.wake()


class NumberedConnection:
    """One connection, until it is lost or of no more use.

    Args:
        stream: the stream.
        exchange: the requests on it.
        where: the server, for messages.
        listeners: the event streams for its events.

    Attributes:
        exchange, listeners: as given.
        left: set when the connection takes no more requests.
    """

    def __init__(self, stream: trio.abc.Stream, exchange: Exchange, where: str, listeners: Listeners) -> None:
        self._stream = stream
        self._where = where
        self._output = Signal()
        self._scope = trio.CancelScope()
        self._sending = False
        self._reads = True
        self.exchange: Exchange = exchange
        self.listeners: Listeners = listeners
        self.left: trio.Event = trio.Event()

    def wake(self) -> None:
        """Send the output of the exchange, and close the connection if it is of no more use."""
        self._output.set()
        if self.exchange.finished:
            self._scope.cancel()

    def ping(self) -> None:
        """Ask the server for a sign of life, and give up the connection if none comes."""
        self.exchange.ping()
        self._output.set()
        self._watch()

    async def run(self, on_useful: Callable[[], object]) -> RemoteError:
        """Send requests and read answers until the connection ends; fail the requests in flight, and return the reason.

        Args:
            on_useful: called when the first packet of version 23 has arrived.
        """
        exchange = self.exchange
        reason: RemoteError | None = None
        self._watch()
        try:
            with self._scope:
                async with self._stream:
                    try:
                        reason = await self._read_and_send(on_useful)
                    finally:
                        await self._send_cancels()
        finally:
            if trio.current_time() >= self._scope.deadline:
                reason = ServerDisconnected(f"{self._where} has sent nothing for {SILENCE:g} s, and no PONG to a PING")
            exchange.end(reason)
        return exchange.reason

    def _watch(self) -> None:
        """Give up the connection in time if the server does not answer a PING."""
        if self.exchange.silent and self._reads:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + SILENCE)

    async def _read_and_send(self, on_useful: Callable[[], object]) -> RemoteError | None:
        """Do as `_read`, while requests are sent."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            nursery.start_soon(self._keep_alive)
            try:
                reason = await self._read(on_useful)
            finally:
                self.exchange.leaving = True  # the sender may run once more before it is cancelled
                nursery.cancel_scope.cancel()
        return reason

    async def _send_cancels(self) -> None:
        """Cancel the requests in flight on the server, which cannot tell a closed client from a half-closed one."""
        if self.exchange.has_output and not self._sending:
            with trio.move_on_after(CLOSING) as scope, contextlib.suppress(trio.BrokenResourceError):
                scope.shield = True
                await self._stream.send_all(self.exchange.next_batch())

    async def _send_all(self) -> None:
        exchange = self.exchange
        if not exchange.has_output:  # its request was cancelled; without a packet, the server would end the session
            self.ping()
        while True:
            if batch := exchange.next_batch():
                if exchange.leaving:
                    self.left.set()
                self._sending = True
                try:
                    await self._stream.send_all(batch)
                except trio.BrokenResourceError:
                    return  # the reader finds the reason, perhaps after a last answer
                self._sending = False
            else:
                await self._output.wait()

    async def _keep_alive(self) -> None:
        """Send a PING from time to time, as a server that has vanished sends no answers and no events."""
        exchange = self.exchange
        while True:
            received = exchange.received
            await trio.sleep(KEEP_ALIVE)
            if received == exchange.received and (exchange or self.listeners):
                self.ping()

    async def _read(self, on_useful: Callable[[], object]) -> RemoteError | None:
        """Process what the server sends, until the connection is of no more use.

        Returns:
            The reason of the end; None at the end of the stream.
        """
        exchange, useful = self.exchange, False
        while not exchange.finished:
            try:
                if exchange.full is not None:
                    await self._wait_for_room(exchange.full)
                    exchange.proceed()
                elif data := await self._stream.receive_some(READ):
                    silent = exchange.silent
                    exchange.receive(bytes(data))
                    if silent and not exchange.silent:
                        self._scope.deadline = math.inf
                else:
                    return None
            except trio.BrokenResourceError as error:
                cause = error.__cause__ or error
                reason = ServerDisconnected(f"the connection was lost {exchange.answers.state}: {cause}")
                reason.__cause__ = cause
                return reason
            except RemoteError as error:
                return error
            if exchange.useful and not useful:
                useful = True
                on_useful()
            if exchange.leaving:
                self.left.set()
            if exchange.has_output:
                self._output.set()
        return None

    async def _wait_for_room(self, call: PartsCall) -> None:
        """Read nothing until a stream has room again, so that the server stops sending; cancel it if its loop is slow.

        This delays the answers to all requests, so it is done for at most `PATIENCE`.
        """
        room = trio.Event()
        call.on_room = room.set
        self._reads, self._scope.deadline = False, math.inf
        with trio.move_on_after(PATIENCE):
            await room.wait()
        if not room.is_set():
            call.overflow(f"the answers to other requests have waited behind them for {PATIENCE:g} s")
            self.exchange.cancel(call)
        self._reads = True
        self._watch()
