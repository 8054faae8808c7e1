"""`NumberedSession`: version 23 on one connection: concurrent requests (docs/protocol.md, "Version 23").

One task leads: it reads packets, and runs each handler in place. When a handler waits for the first time, another task
becomes the leader; the task of the handler ends with its request. So a handler that never waits costs no task.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import (
    ConnectionLost,
    ProtocolError,
)
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.server.in_flight import InFlight
from asyncapy_core.server.intake import TimedOut
from asyncapy_core.server.numbered_output import NumberedOutput
from asyncapy_core.server.numbered_request import NumberedRequest, Progress
from asyncapy_core.server.worker import Dispatch, Worker
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link

_REQUEST: Final = Kind.REQUEST


class NumberedSession:
    """The requests of one connection.

    Args:
        link: the connection.
        decoder: the decoder, with the bytes received so far.

    Attributes:
        output: the packets that are sent.
        dispatch: calls the handlers of a packet.
    """

    __slots__ = (
        "_base",
        "_between_turns",
        "_decoder",
        "_frames",
        "_highest",
        "_in_flight",
        "_left",
        "_link",
        "_pinged_at",
        "_plain",
        "dispatch",
        "output",
    )

    def __init__(self, link: Link, decoder: NumberedDecoder) -> None:
        state = link.state
        link.intake.decoder = decoder
        self._link = link
        self._decoder = decoder
        self.output: NumberedOutput = NumberedOutput(link)
        self._frames: deque[NumberedFrame] = deque()
        config = state.config
        self._in_flight = InFlight(config.max_in_flight, config.max_packet)
        self._highest = 0  # the highest number that was handed to a handler or refused
        self._pinged_at = -1  # the bytes received before the last PING was sent
        self._left = False  # whether LEAVING was sent
        self._between_turns = False
        self._base: Context = copy_context()
        self._plain = config.handler_timeout is None and not config.measure
        debug = state.log.isEnabledFor(logging.DEBUG)
        self.dispatch: Dispatch = state.dispatcher.dispatch_traced if debug else state.dispatcher.dispatch

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._link.log

    @property
    def client(self) -> Client:
        """The client of the session."""
        return self._link.client

    def drop(self) -> None:
        """Close the connection at once."""
        self._link.drop()

    async def lead(self) -> bool | None:
        """Read and dispatch packets in the current task.

        Returns:
            True at the end of the session; None if another task goes on.

        Raises:
            ProtocolError: a packet breaks a rule of the protocol.
            ConnectionLost: the connection broke.
        """
        worker = self._worker(leads=True)
        with worker.scope:
            return await run_with_wait_hook(self._lead(worker), worker.before_wait)
        return None  # the request was cancelled whose handler ran in this task

    async def refuse(self, error: ProtocolError) -> None:
        """End the session, as a packet breaks a rule of the protocol; nothing more is read.

        If it is a REQUEST with a valid number, the requests that wait before it are still handled.
        """
        self._highest = max(self._highest, error.number)
        await self.output.send_failure(error.number, error.code)
        await self._leave(readable=False)

    async def abandon(self) -> None:
        """Cancel all requests, as the connection broke, and wait until their handlers have ended."""
        if self._in_flight.requests:
            self._link.lose()
            await self._wait_until_idle()

    def cancel(self) -> None:
        """Cancel all requests, as the connection broke."""
        self._in_flight.cancel_all()
        self._note_change()

    def retire(self) -> None:
        """End the session after the answers to the requests in flight, as it is old."""
        self.output.leave()

    def stop(self) -> None:
        """Check whether the session is to end."""
        self._note_change()

    def end(self) -> None:
        """Drop the packets that were received, and cancel requests that are left, as the connection has ended."""
        self._frames.clear()
        if self._in_flight.requests:
            self.cancel()

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and begin those that wait for its place."""
        self._in_flight.remove(request)
        self._begin_waiting()
        self._note_change()

    def before_wait(self, worker: Worker) -> None:
        """Send the answers of the task of a worker, and let another task lead, before it waits; raises nothing."""
        request, state = worker.request, self._link.state
        if request is not None:
            self.output.flush()
            if worker.leads:
                worker.leads = False
                self._in_flight.add(request)
                if worker.packet is not None and worker.packet.handler is not None:
                    worker.packet.handler.waits = True
                self._base.copy().run(self._link.hand_over, self.lead)
        elif self._between_turns:
            return
        self._link.outbox.uncork()
        if state.disconnects.asleep:
            state.disconnects.wake()

    async def _lead(self, worker: Worker) -> bool | None:  # noqa: C901, PLR0912, PLR0915  # a coroutine costs 2 us here
        """Read packets, and handle each request in place.

        Returns:
            True at the end of the session; None when another worker leads.
        """
        link, frames, in_flight, output = self._link, self._frames, self._in_flight, self.output
        requests = in_flight.requests
        outbox, intake, decoder, connection = link.outbox, link.intake, self._decoder, link.interface
        dispatch, dropped, base = self.dispatch, link.state.peers.dropped.by_task, self._base
        encodings, limit = link.state.encodings.by_id, link.state.config.packets_per_turn
        of_session, plain, handled = link.client, self._plain, 0
        address, server, session, secured = (
            of_session.address,
            of_session.server,
            of_session.session,
            of_session.tls_peer,
        )
        while True:
            if not frames:
                frames.extend(decoder.frames(limit))
                if not frames:
                    ready = outbox.uncork()
                    if self._is_to_end():
                        return await self._leave()
                    if not ready or not in_flight.may_wait:
                        await self._wait_for_room()
                    partial, before = decoder.buffered, intake.received
                    received = await intake.receive_or_wake(connection)
                    if not received:
                        if not await self._wake(received):
                            return await self._leave(readable=False)
                        continue
                    frames.extend(decoder.frames(limit))
                    if not frames:
                        if not partial or decoder.buffered != partial + intake.received - before:
                            intake.complete(connection)  # a packet has its time from its first byte on
                        continue
                intake.complete(connection)
            if not outbox.corked:
                if self._is_to_end():
                    return await self._leave()
                if not outbox.cork() and not outbox.has_room(1):
                    await self._wait_for_room()
                    continue
            kind, number, wire_id, payload = frames.popleft()
            handled += 1
            if kind is not _REQUEST:
                del payload
                await self._control(kind, number)
            elif requests and not in_flight.has_place(len(payload)):
                in_flight.wait(number, wire_id, payload)
                del payload
                if not in_flight.may_wait:
                    await self._wait_for_room()
            else:
                encoding = encodings.get(wire_id, output.encoding)
                if not self._highest:
                    self._begin(encoding)
                self._highest = number
                request = worker.request = NumberedRequest(output, self, number, encoding, len(payload))
                request.worker = worker
                client = Client(address, server, request, session, encoding.name)
                if secured is not None:
                    client.tls_peer, client.tls_names = secured, of_session.tls_names
                packet, result, outcome, passed_on = None, None, "", False
                try:
                    try:
                        packet = worker.packet = encoding.unpack_numbered(payload, client)
                        under_way = dispatch(client, packet)
                        handler = packet.handler
                        if handler is not None and handler.waits:
                            passed_on = True
                            self._pass_on(worker, request, packet, under_way)
                        else:
                            result = await (under_way if plain else worker.measured(packet, under_way))
                            if result is not None or not request.end_now():
                                await request.finish(result, packet)
                            packet.handler.outcomes.succeeded += 1  # type: ignore[union-attr]  # there is a handler
                    except BaseException as error:  # a handler may raise anything
                        outcome = await worker.fail(request, client, packet, error)
                    if outcome or dropped:
                        await worker.clean_up(packet, outcome)
                finally:
                    if not passed_on:
                        self.release(worker, request)
                    # a connection that waits keeps no data, payload or packet
                    packet = result = under_way = payload = client = request = None  # type: ignore[assignment]
                if not worker.leads:
                    return None
                if copy_context() != base:
                    await self._restore_context()
            if handled >= limit:
                handled = 0
                await self._yield_turn()

    async def _wait_for_room(self) -> None:
        """Wait until a request may begin to wait for its turn, and the output queue has room."""
        link = self._link
        if self._in_flight.may_wait and link.outbox.has_room(1):
            return
        link.state.reading.stop(link.interface)  # the peer is not late while nothing is read
        while not (self._in_flight.may_wait or self._is_to_end()):
            await self._in_flight.wait_for_change()
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
            link.state.reading.stop(link.interface)
            while self._in_flight.requests and not self._is_to_end():
                await self._in_flight.wait_for_change()
            return False
        if link.intake.expired:
            link.intake.expired = False
            if self._decoder.buffered or self._pinged_at == link.intake.received:
                raise TimedOut(f"no whole packet within {link.state.config.timeout:g} s")
            self._pinged_at = link.intake.received
            await self.output.send_and_wait(self.output.bare(Kind.PING, 1))
        elif link.outbox.poisoned:
            raise ConnectionLost("the connection broke")
        return True

    def _pass_on(self, worker: Worker, request: NumberedRequest, packet: Packet, under_way: Awaitable[object]) -> None:
        """Let another task handle a request whose handler is known to wait."""
        worker.request = worker.packet = request.worker = None
        self._in_flight.add(request)
        self._link.start(self._follow, Worker.finish, request, packet, under_way)  # with the context of the filters

    def release(self, worker: Worker, request: NumberedRequest) -> None:
        """Separate a request from the task of its handler, which has ended."""
        packet = worker.packet
        request.handler = None if packet is None else packet.handler
        request.returned = True
        worker.packet = worker.request = request.worker = None
        if request.holds:
            self._in_flight.add(request)
            return
        if request.progress is Progress.OPEN:  # `Client.answering` ended after the handler, and before this
            request.end(Progress.ENDED)
        if self._in_flight.requests:
            self.forget(request)

    async def _control(self, kind: Kind, number: int) -> None:
        """Handle a packet that is no request."""
        if kind is Kind.CANCEL:
            self._cancel(number)
        elif kind is Kind.PING:
            await self.output.send_and_wait(self.output.bare(Kind.PONG, number))

    def _cancel(self, number: int) -> None:
        """End a request whose client no longer waits, unless it has ended."""
        wire_id = self._in_flight.cancel(number)
        if wire_id is not None:
            self.output.queue(self.output.bare(Kind.END, number, wire_id))
            self._begin_waiting()

    def _begin(self, encoding: Encoding) -> None:
        """Fix the encoding of events: that of the first request."""
        self.output.encoding = encoding
        self._link.client.encoding = encoding.name

    def _begin_waiting(self) -> None:
        """Begin the requests that wait for their turn, unless the session is to end."""
        if self._left or not self._is_to_end():
            self._in_flight.begin_waiting(self._begin_request)

    def _begin_request(self, number: int, wire_id: int, payload: bytes) -> None:
        """Handle a request that has waited, in a task of its own."""
        encoding = self._link.state.encodings.by_id.get(wire_id, self.output.encoding)
        self._highest = max(self._highest, number)
        request = NumberedRequest(self.output, self, number, encoding, len(payload))
        self._in_flight.add(request)
        self._start(self._follow, Worker.handle, request, payload)

    async def _leave(self, *, readable: bool = True) -> bool:
        """Send LEAVING, then wait for the answers to the requests in flight; meanwhile read CANCEL and PONG.

        Args:
            readable: whether further packets can be read.
        """
        self.output.leaving = True
        self._frames.clear()
        if self._in_flight.last_waiting > self._highest:
            self._in_flight.drop_waiting()
        self._left = True
        await self.output.send_and_wait(self.output.bare(Kind.LEAVING, self._highest))
        self._link.outbox.uncork()
        self._begin_waiting()
        while self._in_flight.requests and readable:
            received = await self._link.intake.receive_or_wake(self._link.interface)
            self._link.intake.expired = False
            if received:
                self._link.intake.complete(self._link.interface)
                try:
                    while frames := self._decoder.frames(self._link.state.config.packets_per_turn):
                        for kind, number, _, _ in frames:
                            if kind is Kind.CANCEL:
                                self._cancel(number)
                except ProtocolError:
                    readable = False
            elif received is False:
                readable = False
        await self._wait_until_idle()
        return True

    def _is_to_end(self) -> bool:
        """Return True if no further request is to be handled."""
        return self.output.leaving or self._link.state.draining or not self.output.is_open

    async def _wait_until_idle(self) -> None:
        """Wait until no request is in flight; nothing is read meanwhile."""
        self._link.state.reading.stop(self._link.interface)
        while self._in_flight.requests:
            await self._in_flight.wait_for_change()

    def _note_change(self) -> None:
        self._in_flight.note_change()
        if self._is_to_end():
            self._link.wake()

    async def _yield_turn(self) -> None:
        """Yield to other connections between two packets, without sending the replies yet."""
        self._between_turns = True
        await trio.lowlevel.checkpoint()
        self._between_turns = False

    async def _restore_context(self) -> None:
        """Undo the context variables of a handler: the next packet must not see them."""
        trio.lowlevel.current_task().context = self._base.copy()
        await self._yield_turn()  # trio uses the context when it resumes the task

    def _worker(self, *, leads: bool) -> Worker:
        return Worker(self, self._link.state, leads=leads)

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function in a task of its own, with the context variables of the connection; raises nothing."""
        self._base.copy().run(self._link.start, function, *args)

    async def _follow(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Handle a request in the current task, beside the leader."""
        worker = self._worker(leads=False)
        with worker.scope:
            await run_with_wait_hook(function(worker, *args), worker.before_wait)
