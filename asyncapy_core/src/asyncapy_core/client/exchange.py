"""`Exchange`: the requests on one connection of version 23, without I/O (docs/protocol.md, "Version 23").

Answers are matched to requests by their numbers. A request that was not handled goes back to `Unsent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from asyncapy_core.client.answers import AnswerDecoder
from asyncapy_core.client.calls import Call, PartsCall, Unsent
from asyncapy_core.client.failures import failure, is_header_invalid
from asyncapy_core.client.pipeline import BATCH
from asyncapy_core.errors import InvalidReply, RemoteError, ServerDisconnected, VersionTooOld
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.kinds import MAX_NUMBER, Kind
from asyncapy_core.protocol.numbered import NumberedFrame

_NUMBER_SIZE: Final = 4

_HELD: Final = frozenset({Kind.PART, Kind.REPLY})
"""The kinds whose payloads a stream holds."""


class Exchange:
    """The requests on one connection.

    Args:
        unsent: the calls that wait to be sent; several exchanges may share them.
        encodings: the encodings of the client.
        on_event: called with the fields of each EVENT and the size of its payload.
        asks: begin with a PING, alone, and send nothing else before a packet of version 23 has arrived.

    Attributes:
        answers: the decoder of received bytes.
        leaving: whether no more requests are sent on this connection.
        silent: whether a PING was sent, and nothing has arrived since; for the PING at the beginning, no whole packet.
        received: how often bytes have arrived.
        reason: the reason why the connection has ended.
        useful: whether a packet of version 23 has arrived.
        answered: whether the server has answered a request or a PING.
        ordered: whether the server has answered the PING as a server of version 22.
        full: a stream that has no room for its next answer. This answer, and all packets behind it, are processed by
            `proceed` only; until then, nothing more is to be received.
    """

    def __init__(
        self,
        unsent: Unsent,
        encodings: EncodingRegistry,
        on_event: Callable[[dict[str, Any], int], object],
        *,
        asks: bool = False,
    ) -> None:
        self._unsent = unsent
        self._wire = encodings.wire
        self._on_event = on_event
        self._number_at = self._wire.header_size + 3  # behind version, encoding and kind
        self._highest = 0
        self._in_flight: dict[int, Call] = {}
        self._cancelled: set[int] = set()
        self._cancels: list[bytes] = []
        self._ping = b""
        self._pong = b""
        self._pinged = False
        self._left = False
        self._failure = ""
        self.answers: AnswerDecoder = AnswerDecoder(encodings)
        self.leaving: bool = False
        self.silent: bool = False
        self.received: int = 0
        self.reason: RemoteError = ServerDisconnected("the connection was given up")
        self.useful: bool = False
        self.answered: bool = False
        self.ordered: bool = False
        self.full: PartsCall | None = None
        self._frames: list[NumberedFrame] = []
        self._asks = asks
        if asks:
            self.ping()

    def __len__(self) -> int:
        """Return the number of requests that wait for their last answer."""
        return len(self._in_flight)

    @property
    def finished(self) -> bool:
        """Whether the connection is of no more use: no more requests are sent, and none waits for an answer."""
        return self.leaving and not self._in_flight

    @property
    def has_output(self) -> bool:
        """Whether `next_batch` would return bytes."""
        return bool(self._pong or self._ping or self._cancels or (self._unsent and self._sends_requests))

    @property
    def _sends_requests(self) -> bool:
        return not (self.leaving or self._asks)

    def next_batch(self) -> bytes:
        """Return the next packets to send, joined, and mark their requests as in flight; ``b""`` if there is none."""
        batch: list[bytes | memoryview] = [self._pong, self._ping, *self._cancels]
        self._pong = self._ping = b""
        self._cancels.clear()
        size, at, order = 0, self._number_at, self._wire.byteorder
        while self._unsent and size < BATCH and self._sends_requests:
            call = self._unsent.next()
            self._highest += 1
            call.number = self._highest
            self._in_flight[call.number] = call
            packet = memoryview(call.packet)
            batch += (packet[:at], call.number.to_bytes(_NUMBER_SIZE, order), packet[at + _NUMBER_SIZE :])
            size += len(packet)
            self.leaving = self._highest == MAX_NUMBER
        return b"".join(batch)

    def cancel(self, call: Call) -> bool:
        """End a call whose caller no longer waits, and drop further answers; return False if it is not in flight."""
        if self._in_flight.get(call.number) is not call:
            return False
        self._drop(call)
        call.finish()
        return True

    def ping(self) -> None:
        """Ask the server for a sign of life, unless it has left: then it reads no PING.

        No second PING is sent before the answer to the first one.
        """
        if self._left:
            return
        if not self._pinged:
            self._pinged = True
            self._ping = self._wire.encode_numbered(Kind.PING, 0)
        self.silent = True

    def receive(self, data: bytes) -> None:
        """Process received bytes.

        Raises:
            InvalidReply: they break a rule of the protocol.
            ServerDisconnected: the server has refused the connection. The calls have this answer.
            VersionTooOld: the server has version 22.
        """
        self.silent = self._asks  # a part of the answer to the first PING is no sign of life
        self.received += 1
        self.answers.feed(data)
        if (refusal := self.answers.ordered_reply()) is not None:
            self._refuse(refusal)
        self.proceed()

    def proceed(self) -> None:
        """Process packets that have been received, up to one for which its stream has no room; see ``full``.

        Raises:
            InvalidReply: they break a rule of the protocol.
        """
        self.full = None
        frames, self._frames = self._frames, []
        while frames or (frames := self._decoded()):
            for index, (kind, number, wire_id, payload) in enumerate(frames):
                if kind is Kind.EVENT:
                    self._on_event(self.answers.fields(wire_id, payload), len(payload))
                elif kind is Kind.PING:
                    self._pong = self._wire.encode_numbered(Kind.PONG, number)
                elif kind is Kind.PONG:
                    self._pinged, self.answered = False, True
                elif kind is Kind.LEAVING:
                    self._leave(number)
                elif kind is Kind.FAILURE and number == 0:
                    self._failure = str(failure(self.answers.fields(wire_id, payload)) or "a failure without a code")
                elif (call := self._in_flight.get(number)) is None:
                    self._skip(kind, number)
                elif isinstance(call, PartsCall) and kind in _HELD and not call.has_room(len(payload)):
                    self.full, self._frames = call, frames[index:]
                    return
                else:
                    self._answer(call, kind, wire_id, payload)
            frames = []

    def _decoded(self) -> list[NumberedFrame]:
        """Return the next whole packets that have been received."""
        frames = self.answers.frames()
        if frames:
            self.useful = True
            self._asks = self.silent = False
        return frames

    def end(self, error: RemoteError | None) -> None:
        """Fail the requests in flight, as the connection has ended: the server may or may not have handled them.

        Args:
            error: the reason; None for the end of the stream.
        """
        self.leaving = True
        if error is None:
            why = f"ended the session: {self._failure}" if self._failure else "closed the connection"
            error = ServerDisconnected(f"the server {why}, {self.answers.state}")
        self.reason = error
        calls, self._in_flight = self._in_flight, {}
        for call in calls.values():
            call.fail(error)

    def abandon(self, error: RemoteError) -> None:
        """Fail the requests in flight, and cancel them on the server, as the client is closed."""
        self.leaving = True
        for call in tuple(self._in_flight.values()):
            self._drop(call)
            call.fail(error)

    def _skip(self, kind: Kind, number: int) -> None:
        """Drop a packet that answers a request whose caller no longer waits."""
        self.answered = True
        if number not in self._cancelled:
            raise InvalidReply(f"the server sent a {kind.name} for request {number}, which is not in flight")
        if kind is not Kind.PART:
            self._cancelled.discard(number)

    def _answer(self, call: Call, kind: Kind, wire_id: int, payload: bytes) -> None:
        """Process a packet that answers a request in flight."""
        self.answered = True
        if kind is not Kind.END:
            try:
                fields = self.answers.fields(wire_id, payload)
            except InvalidReply as error:
                call.fail(error)  # the others are not affected
            else:
                if kind is Kind.FAILURE:
                    call.refuse(fields)
                else:
                    call.add(fields, len(payload))
        if kind is not Kind.PART:
            del self._in_flight[call.number]
            call.finish()
        elif call.ended:
            self._drop(call)

    def _drop(self, call: Call) -> None:
        """Cancel a request in flight."""
        del self._in_flight[call.number]
        self._cancelled.add(call.number)
        self._cancels.append(self._wire.encode_numbered(Kind.CANCEL, call.number, call.wire_id))

    def _leave(self, last: int) -> None:
        """Send no more requests here, and those above a number elsewhere.

        A request that has an answer was handled, even if its number is higher.

        Raises:
            InvalidReply: the server has left before; a request below the first number must not be sent twice.
        """
        if self._left:
            raise InvalidReply("the server sent LEAVING twice")
        self._left = self.leaving = True
        unhandled = [call for number, call in self._in_flight.items() if number > last and not call.answered]
        for call in unhandled:
            del self._in_flight[call.number]
        self._unsent.restore(unhandled)

    def _refuse(self, refusal: dict[str, Any]) -> None:
        """Answer the requests with a packet of version 22, which comes before the server has read a request."""
        self.leaving = True
        if self._asks and is_header_invalid(refusal):
            self.ordered = True
            raise VersionTooOld("the server has version 22 of the protocol, which has no streams and no events")
        meaning = failure(refusal)
        if meaning is None:
            raise InvalidReply("the server sent a packet of version 22 that is not a failure; is it of version 22?")
        calls, self._in_flight = self._in_flight, {}
        for call in calls.values():
            call.refuse(dict(refusal))
        if not calls:
            self._unsent.refuse(refusal)
        raise ServerDisconnected(f"the server refused the connection: {meaning}")
