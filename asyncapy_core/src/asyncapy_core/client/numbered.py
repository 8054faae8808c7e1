"""`NumberedRequests`: the requests of `AsyncClient` in version 23, which are answered in any order.

A connection that the server leaves gets its last answers while another one takes new requests.
"""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.client.calls import Call, PartsCall, Unsent
from asyncapy_core.client.connecting import within
from asyncapy_core.client.events import EventStream, Listeners
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.numbered_connection import NumberedConnection
from asyncapy_core.client.ordered import FIRST_PAUSE, LONGEST_PAUSE, NOT_CONNECTED_YET
from asyncapy_core.client.streaming import ReplyStream, Signal
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected, VersionTooOld
from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION

if TYPE_CHECKING:
    from asyncapy_core.client.streams import Connector
    from asyncapy_core.client.versions import ServerVersion
    from asyncapy_core.protocol.encoding import EncodingRegistry

NOT_ANSWERED: Final = "the server has not answered the PING that asks for its version"

NO_VERSION: Final = "; it was asked for its version; if it has version 22 and does not answer, set version=22"

CLOSED: Final = "the client was closed before the request was sent"


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
        self._closed = False

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
            send=self._send,
            forget=self.forget,
            give_up=self.give_up,
            seconds=seconds,
        )

    def _send(self, call: Call) -> None:
        """Send a call, which may have been made before the client was closed."""
        if self._closed:
            call.fail(NotConnected(CLOSED))
        else:
            self._unsent.add(call)

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
        self._closed = True
        for connection in self._connections:
            connection.exchange.abandon(ServerDisconnected("the client was closed before the reply came"))
        self._unsent.fail(NotConnected(CLOSED))
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
            asked = self._version.known is None
            self._version.forget()
            self._not_ready = f"{reason}{NO_VERSION}" if asked else str(reason)
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
