"""`NumberedSession`: version 23 on one connection: concurrent requests (docs/protocol.md, "Version 23").

One task leads: it reads packets, and runs each handler in place. When a handler waits for the first time, another task
becomes the leader; the task of the handler ends with its request. So a handler that never waits costs no task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import ConnectionLost, MalformedPacket, ProtocolError
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.in_flight import RequestsInFlight
from asyncapy_core.server.intake import TimedOut
from asyncapy_core.server.numbered_request import NumberedRequest
from asyncapy_core.server.progress import Progress

if TYPE_CHECKING:
    from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
    from asyncapy_core.server.link import Link
    from asyncapy_core.server.worker import Worker

_REQUEST: Final = Kind.REQUEST
_IN_PLACE: Final = Progress.IN_PLACE
_KEPT: Final = Progress.KEPT
_ENDED: Final = Progress.ENDED
_new_request: Final = NumberedRequest.__new__

MAX_WAITING: Final = 1000
"""Requests that may wait their turn before the session is not read any more; their payloads have a bound as well."""


class NumberedSession(RequestsInFlight):
    """The session of one connection.

    Args:
        link: the connection.
        decoder: the decoder, with the bytes received so far.
    """

    __slots__ = ("_begun", "_decoder", "_frames", "_pinged_at")

    between_turns: bool

    def __init__(self, link: Link, decoder: NumberedDecoder) -> None:
        super().__init__(link)
        link.intake.decoder = decoder
        self._decoder = decoder
        self._frames: Iterator[NumberedFrame] = iter(())
        self._begun = False  # whether there was a request
        self._pinged_at = -1  # the bytes received before the last PING was sent

    async def lead(self) -> bool | None:
        """Read and dispatch packets in the current task.

        Returns:
            At the end of the session, whether the peer may have sent bytes that are not read; None if another task
            goes on.

        Raises:
            ProtocolError: a packet breaks a rule of the protocol.
            ConnectionLost: the connection broke.
        """
        worker = self._worker(leads=True)
        try:
            with worker.scope:
                return await run_with_wait_hook(self._lead(worker), worker.before_wait)
            return None  # the request was cancelled whose handler ran in this task
        finally:
            if worker.request is not None:
                self._release(worker, worker.request)

    async def refuse(self, error: ProtocolError) -> None:
        """End the session, as a packet breaks a rule of the protocol.

        If it is a REQUEST with a valid number, the requests that wait before it are still handled.
        """
        self._highest = max(self._highest, error.number)
        encoding = self._encoding(error.wire_id) if error.number else self.output.encoding
        await self.output.send_failure(encoding, error.number, error.code)
        await self._leave(readable=self._decoder.resume())

    async def abandon(self) -> None:
        """Cancel all requests, as the connection broke, and wait until their handlers have ended."""
        if self._requests:
            self._link.lose()
            await self._wait_until_idle()

    def retire(self) -> None:
        """End the session after the answers to the requests in flight, as it is old."""
        self.output.leave()

    def end(self) -> None:
        """Drop the packets that were received, and cancel requests that are left, as the connection has ended."""
        self._frames = iter(())
        super().end()

    async def _lead(self, worker: Worker) -> bool | None:  # noqa: C901, PLR0912, PLR0915  # a coroutine costs 2 us here
        """Read packets, and handle each request in place.

        Returns:
            As `lead`.
        """
        link, requests, output = self._link, self._requests, self.output
        outbox, intake, decoder, connection = link.outbox, link.intake, self._decoder, link.interface
        dispatch, dropped, base = self._dispatch, self._state.peers.dropped.by_task, self._base
        encodings, limit = self._state.encodings.by_id, self._state.config.packets_per_turn
        limited, measured, dispatcher = self._limited, self._measured, self._state.dispatcher
        while True:
            for kind, number, wire_id, payload in self._frames:
                while not outbox.corked:
                    if self._is_to_end():
                        self._read_cancels(((kind, number, wire_id, payload),))
                        return await self._leave()
                    if outbox.cork() or outbox.has_room(1):
                        break
                    await self._wait_for_room()
                if kind is not _REQUEST:
                    await self._control(kind, number)
                    continue
                if requests and (self._waiting or not self._has_place(len(payload))):
                    await self._queue(number, wire_id, payload)
                    continue
                self._highest = number
                if not payload:
                    await self._refuse_empty(worker, number, wire_id)
                    continue
                encoding = encodings[wire_id]
                packet = None
                request = worker.request = _new_request(NumberedRequest)  # `__init__` would take 2 % of the packet
                request.requests, request.number, request.codec = self, number, encoding
                request.size, request.holds, request.progress, request.worker = len(payload), 0, _IN_PLACE, None
                try:
                    packet = worker.packet = encoding.unpack(payload, request)
                    under_way = dispatch(request, packet)
                    if requests and (packet.handler or dispatcher).waits:
                        worker.request = None
                        self._pass_on(request, packet, under_way)
                    else:
                        result = await (worker.within_limit(self, request, under_way) if limited else under_way)
                        if result is None and request.progress is _KEPT and worker.leads:
                            request.progress, output.kept = _ENDED, None  # its last answer is the REPLY
                        elif (sending := request.finish(result, packet)) is not None:
                            await sending
                        handler = request.handler = packet.handler
                        handler.outcomes.succeeded += 1  # type: ignore[union-attr]  # there is a handler
                        if measured:
                            self._measure(request, SUCCEEDED)
                except BaseException as error:  # a handler may raise anything
                    await self._clean_up(request, packet, await worker.fail(request, packet, error))
                if dropped:
                    await self._state.peers.close_dropped(self)  # another task leads if this waits
                if not worker.leads:
                    return None
                if request.holds and worker.request is not None:
                    self._release(worker, request)
                worker.request = None
                if copy_context() != base:
                    await self._restore_context()
            # a connection that waits keeps no data, payload or packet
            packet = result = under_way = payload = request = worker.packet = None  # type: ignore[assignment]
            partial = decoder.buffered
            if partial and (frames := decoder.frames(limit)):
                await self._yield_turn()
            else:
                if not outbox.corked and self._is_to_end():
                    return await self._leave()
                ready = outbox.uncork()
                if not ready or self._waiting:
                    await self._wait_for_room()
                before = intake.received
                received = await intake.receive(connection)
                if not received:
                    if not await self._wake(received):
                        await self._leave(readable=False)
                        return False
                    continue
                frames = decoder.frames(limit)
                if not frames:
                    if not partial or decoder.buffered != partial + intake.received - before:
                        intake.complete(connection)  # a packet has its time from its first byte on
                    continue
            self._frames = iter(frames)
            if not self._begun:
                self._begin(frames)
            del frames
            intake.complete(connection)

    async def _refuse_empty(self, worker: Worker, number: int, wire_id: int) -> None:
        """Answer a request without a payload."""
        request = NumberedRequest(self, number, self._encoding(wire_id), 0)
        error = MalformedPacket("a REQUEST has no payload; it needs a map, which may be empty")
        await self._clean_up(request, None, await worker.fail(request, None, error))

    async def _queue(self, number: int, wire_id: int, payload: bytes) -> None:
        """Let a request wait for its turn, and wait if no further one may."""
        self._waiting[number] = wire_id, payload
        self._bytes_waiting += len(payload)
        del payload
        if not self._may_read():
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Wait until a request may begin to wait for its turn, and the output queue has room."""
        link = self._link
        if self._may_read() and link.outbox.has_room(1):
            return
        self._state.reading.stop(link.interface)  # the peer is not late while nothing is read
        while not (self._may_read() or self._is_to_end()):
            await self._wait_for_change()
        if not link.outbox.has_room(1):
            await link.outbox.wait_for_room()
        link.intake.expired = False

    async def _wake(self, received: bool | None) -> bool:  # noqa: FBT001  # a result, passed on
        """Handle the end of the stream (False), and a wake-up while the session waited for bytes (None).

        A silent peer gets a PING after ``timeout``, and has to send something within the same time again.

        Returns:
            False at the end of the stream, when all requests have been answered.

        Raises:
            TimedOut: the peer has sent nothing, or a packet was not complete in time.
            ConnectionLost: the connection broke.
        """
        link = self._link
        if received is False:
            self._state.reading.stop(link.interface)
            while self._requests and not self._is_to_end():
                await self._wait_for_change()
            return False
        if link.intake.expired:
            link.intake.expired = False
            if self._decoder.buffered or self._pinged_at == link.intake.received:
                raise TimedOut(f"no whole packet within {self._state.config.timeout:g} s")
            self._pinged_at = link.intake.received
            await self.output.send_and_wait(self.output.bare(Kind.PING, 1))
        elif link.outbox.poisoned:
            raise ConnectionLost("the connection broke")
        return True

    def _may_read(self) -> bool:
        return self._bytes_waiting <= self._state.config.max_packet and len(self._waiting) <= MAX_WAITING

    async def _control(self, kind: Kind, number: int) -> None:
        """Handle a packet that is no request."""
        if kind is Kind.CANCEL:
            self._cancel(number)
        elif kind is Kind.PING:
            await self.output.send_and_wait(self.output.bare(Kind.PONG, number))

    def _begin(self, frames: list[NumberedFrame]) -> None:
        """Fix the encoding of events: that of the first request."""
        for kind, _, wire_id, _ in frames:
            if kind is _REQUEST:
                self._begun = True
                self.output.encoding = encoding = self._encoding(wire_id)
                self._link.client.encoding = encoding.name
                return

    async def _leave(self, *, readable: bool = True) -> bool:
        """Send LEAVING, then wait for the answers to the requests in flight; meanwhile read CANCEL and PONG.

        Args:
            readable: whether further packets can be read.
        """
        self.output.leaving = True
        self._read_cancels(self._frames)
        if self._waiting and next(reversed(self._waiting)) > self._highest:
            self._drop_waiting()
        self._left = True
        await self.output.send_and_wait(self.output.bare(Kind.LEAVING, self._highest))
        self._link.outbox.uncork()
        self._begin_waiting()
        while readable and self._requests:
            try:
                while frames := self._decoder.frames(self._state.config.packets_per_turn):
                    self._read_cancels(frames)
                readable = await self._receive_after_leaving()
            except ProtocolError:  # the session ends already
                break
        await self._wait_until_idle()
        return True

    def _read_cancels(self, frames: Iterable[NumberedFrame]) -> None:
        """Handle each CANCEL of packets that came before LEAVING was sent, or after it."""
        for kind, number, _, _ in frames:
            if kind is Kind.CANCEL:
                self._cancel(number)

    async def _receive_after_leaving(self) -> bool:
        """Wait for bytes, or for the end of a request; return False at the end of the stream."""
        intake, connection = self._link.intake, self._link.interface
        received = await intake.receive(connection)
        intake.expired = False
        if received:
            intake.complete(connection)
        return received is not False

    async def _yield_turn(self) -> None:
        """Yield to other connections between two packets, without sending the replies yet."""
        self.between_turns = True
        await trio.lowlevel.checkpoint()
        self.between_turns = False

    async def _restore_context(self) -> None:
        """Undo the context variables of a handler: the next packet must not see them."""
        trio.lowlevel.current_task().context = self._base.copy()
        await self._yield_turn()  # trio uses the context when it resumes the task
