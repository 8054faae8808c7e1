"""`NumberedSession`: version 23 on one connection: concurrent requests (docs/protocol.md, "Version 23").

One task leads: it reads packets, and runs each handler in place. When a handler waits for the first time, another task
becomes the leader; the task of the handler ends with its request. So a handler that never waits costs no task.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import (
    ConnectionLost,
    ErrorCode,
    ProtocolError,
)
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.intake import TimedOut
from asyncapy_core.server.numbered_output import NumberedOutput
from asyncapy_core.server.numbered_request import NumberedRequest, Progress
from asyncapy_core.server.worker import Worker
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link
    from asyncapy_core.session import Session

_REQUEST: Final = Kind.REQUEST

MAX_WAITING: Final = 1000
"""Requests that may wait their turn before the session is not read any more; their payloads have a bound as well."""


class NumberedSession:
    """The requests of one connection.

    Args:
        link: the connection.
        decoder: the decoder, with the bytes received so far.

    Attributes:
        output: the packets that are sent.
    """

    __slots__ = (
        "_base",
        "_between_turns",
        "_bytes_in_flight",
        "_bytes_waiting",
        "_changed",
        "_decoder",
        "_dispatch",
        "_frames",
        "_highest",
        "_left",
        "_link",
        "_pinged_at",
        "_plain",
        "_requests",
        "_waiting",
        "output",
    )

    def __init__(self, link: Link, decoder: NumberedDecoder) -> None:
        state = link.state
        link.intake.decoder = decoder
        self._link = link
        self._decoder = decoder
        self.output: NumberedOutput = NumberedOutput(link)
        self._frames: deque[NumberedFrame] = deque()
        self._requests: dict[int, NumberedRequest] = {}
        self._waiting: OrderedDict[int, tuple[int, bytes]] = OrderedDict()  # by number: encoding and payload
        self._bytes_in_flight = 0
        self._bytes_waiting = 0
        self._highest = 0  # the highest number that was handed to a handler or refused
        self._pinged_at = -1  # the bytes received before the last PING was sent
        self._left = False  # whether LEAVING was sent
        self._between_turns = False
        self._base: Context = copy_context()
        self._changed: trio.Event | None = None
        self._plain = state.config.handler_timeout is None and not state.config.measure
        debug = state.log.isEnabledFor(logging.DEBUG)
        self._dispatch = state.dispatcher.dispatch_traced if debug else state.dispatcher.dispatch

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._link.log

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
        if self._requests:
            self._link.lose()
            await self._wait_until_idle()

    def cancel(self) -> None:
        """Cancel all requests, as the connection broke."""
        self._drop_waiting()
        for request in tuple(self._requests.values()):
            self._cancel_request(request)
            if request.returned:  # `Client.answering` keeps it open, for a task that is not awaited here
                self.forget(request)
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
        if self._requests:
            self.cancel()

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and begin those that wait for its place."""
        if self._requests.pop(request.number, None) is not None:
            self._bytes_in_flight -= request.size
        if self._waiting:
            self._begin_waiting()
        self._note_change()

    def before_wait(self, worker: Worker) -> None:
        """Send the answers of the task of a worker, and let another task lead, before it waits; raises nothing."""
        request, state = worker.request, self._link.state
        if request is not None:
            self.output.flush()
            if worker.leads:
                worker.leads = False
                self._count(request)
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
        link, frames, requests, output = self._link, self._frames, self._requests, self.output
        outbox, intake, decoder, connection = link.outbox, link.intake, self._decoder, link.interface
        dispatch, dropped, base = self._dispatch, link.state.peers.dropped.by_task, self._base
        encodings, limit = link.state.encodings.by_id, link.state.config.packets_per_turn
        address, server, session, secured = self._client_arguments()
        plain, handled = self._plain, 0
        while True:
            if not frames:
                frames.extend(decoder.frames(limit))
                if not frames:
                    ready = outbox.uncork()
                    if self._is_to_end():
                        return await self._leave()
                    if not ready or self._waiting:
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
            elif requests and (self._waiting or not self._has_place(len(payload))):
                self._waiting[number] = wire_id, payload
                self._bytes_waiting += len(payload)
                del payload
                if not self._may_read():
                    await self._wait_for_room()
            else:
                encoding = encodings.get(wire_id, output.encoding)
                if not self._highest:
                    self._begin(encoding)
                self._highest = number
                request = worker.request = NumberedRequest(output, self, number, encoding, len(payload))
                request.worker = worker
                client = Client(address, server, request, session, encoding.name)
                if secured:
                    self._secure(client)
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
                            result = await (under_way if plain else self._measured(worker, packet, under_way))
                            if result is not None or not request.end_now():
                                await request.finish(result, packet)
                            packet.handler.outcomes.succeeded += 1  # type: ignore[union-attr]  # there is a handler
                    except BaseException as error:  # a handler may raise anything
                        outcome = await worker.fail(request, client, packet, error)
                    if outcome or dropped:
                        await self._clean_up(packet, outcome)
                finally:
                    if not passed_on:
                        self._release(worker, request)
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
        if self._may_read() and link.outbox.has_room(1):
            return
        link.state.reading.stop(link.interface)  # the peer is not late while nothing is read
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
            link.state.reading.stop(link.interface)
            while self._requests and not self._is_to_end():
                await self._wait_for_change()
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

    def _may_read(self) -> bool:
        return self._bytes_waiting <= self._link.state.config.max_packet and len(self._waiting) <= MAX_WAITING

    def _pass_on(self, worker: Worker, request: NumberedRequest, packet: Packet, under_way: Awaitable[object]) -> None:
        """Let another task handle a request whose handler is known to wait."""
        worker.request = worker.packet = request.worker = None
        self._count(request)
        self._link.start(self._follow, self._finish, request, packet, under_way)  # with the context of the filters

    async def _handle(self, worker: Worker, request: NumberedRequest, payload: bytes) -> None:
        """Handle a request that has waited for its turn, in a task of its own."""
        client, packet = self._client(request), None
        request.worker, worker.request = worker, request
        try:
            if request.progress is not Progress.CANCELLED:
                packet = worker.packet = request.encoding.unpack_numbered(payload, client)
                under_way = self._dispatch(client, packet)
        except BaseException as error:  # a filter may raise anything
            try:
                await self._clean_up(packet, await worker.fail(request, client, packet, error))
            finally:
                self._release(worker, request)
        else:
            if packet is None:
                self._release(worker, request)
            else:
                await self._finish(worker, request, packet, under_way)

    async def _finish(
        self, worker: Worker, request: NumberedRequest, packet: Packet, under_way: Awaitable[object]
    ) -> None:
        """Await the handlers of a request in a task of its own, and answer it."""
        client: Any = packet.sender
        request.worker, worker.request, worker.packet = worker, request, packet
        outcome: str = SUCCEEDED
        try:
            try:
                if request.progress is Progress.CANCELLED:
                    worker.scope.cancel()
                if not self._plain:
                    under_way = self._measured(worker, packet, under_way)
                result = await under_way
                await request.finish(result, packet)
            except BaseException as error:  # a handler may raise anything
                outcome = await worker.fail(request, client, packet, error)
            await self._clean_up(packet, outcome)
        finally:
            self._release(worker, request)

    async def _measured(self, worker: Worker, packet: Packet, under_way: Awaitable[object]) -> object:
        """Await handlers within ``handler_timeout``, and note their duration if ``measure`` is set."""
        config, client = self._link.state.config, packet.sender
        started = time.perf_counter_ns()
        outcome: str = ErrorCode.HANDLER_FAILED
        try:
            if config.handler_timeout is not None:
                under_way = worker.within_limit(self, client, under_way)  # type: ignore[arg-type]  # a Client
            result = await under_way
            outcome = SUCCEEDED
        finally:
            if config.measure and packet.handler is not None:
                packet.handler.outcomes.measure(outcome, time.perf_counter_ns() - started)
        return result

    async def _clean_up(self, packet: Packet | None, outcome: str) -> None:
        """Count a request, and close the generators that its handlers have dropped."""
        if packet is None or packet.handler is None:
            self._link.state.counters.refuse(outcome)
        elif outcome:
            packet.handler.outcomes.count(outcome)
        if self._link.state.peers.dropped.by_task:
            await self._link.state.peers.close_dropped(self)  # another task leads if this waits

    def _release(self, worker: Worker, request: NumberedRequest) -> None:
        """Separate a request from the task of its handler, which has ended."""
        packet = worker.packet
        request.handler = None if packet is None else packet.handler
        request.returned = True
        worker.packet = worker.request = request.worker = None
        if request.holds:
            self._count(request)
            return
        if request.progress is Progress.OPEN:  # `Client.answering` ended after the handler, and before this
            request.end(Progress.ENDED)
        if self._requests:
            self.forget(request)

    async def _control(self, kind: Kind, number: int) -> None:
        """Handle a packet that is no request."""
        if kind is Kind.CANCEL:
            self._cancel(number)
        elif kind is Kind.PING:
            await self.output.send_and_wait(self.output.bare(Kind.PONG, number))

    def _cancel(self, number: int) -> None:
        """End a request whose client no longer waits, unless it has ended."""
        request = self._requests.get(number)
        if request is not None and request.progress is Progress.OPEN:
            self.output.queue(self.output.bare(Kind.END, number, request.encoding.wire_id))
            self._cancel_request(request)
        elif (waiting := self._waiting.pop(number, None)) is not None:
            wire_id, payload = waiting
            self._bytes_waiting -= len(payload)
            self.output.queue(self.output.bare(Kind.END, number, wire_id))
            self._begin_waiting()

    @staticmethod
    def _cancel_request(request: NumberedRequest) -> None:
        if request.progress is Progress.OPEN:
            request.progress = Progress.CANCELLED
        if request.worker is not None:
            request.worker.scope.cancel()

    def _begin(self, encoding: Encoding) -> None:
        """Fix the encoding of events: that of the first request."""
        self.output.encoding = encoding
        self._link.client.encoding = encoding.name

    def _count(self, request: NumberedRequest) -> None:
        """Count a request as one in flight: other packets are read before it ends."""
        if request.number not in self._requests:
            self._requests[request.number] = request
            self._bytes_in_flight += request.size

    def _begin_waiting(self) -> None:
        """Begin the requests that wait their turn, as far as there are places, unless the session is to end."""
        while self._waiting and (self._left or not self._is_to_end()):
            number, (wire_id, payload) = next(iter(self._waiting.items()))
            if not self._has_place(len(payload)):
                return
            del self._waiting[number]
            self._bytes_waiting -= len(payload)
            self._start(self._follow, self._handle, self._admit(number, wire_id, len(payload)), payload)

    def _drop_waiting(self) -> None:
        """Drop the requests that wait their turn."""
        self._waiting.clear()
        self._bytes_waiting = 0

    def _admit(self, number: int, wire_id: int, size: int) -> NumberedRequest:
        """Return a request in flight, whose handler begins later."""
        encoding = self._link.state.encodings.by_id.get(wire_id, self.output.encoding)
        self._highest = max(self._highest, number)
        request = NumberedRequest(self.output, self, number, encoding, size)
        self._count(request)
        return request

    async def _leave(self, *, readable: bool = True) -> bool:
        """Send LEAVING, then wait for the answers to the requests in flight; meanwhile read CANCEL and PONG.

        Args:
            readable: whether further packets can be read.
        """
        self.output.leaving = True
        self._frames.clear()
        if self._waiting and next(reversed(self._waiting)) > self._highest:
            self._drop_waiting()
        self._left = True
        await self.output.send_and_wait(self.output.bare(Kind.LEAVING, self._highest))
        self._link.outbox.uncork()
        self._begin_waiting()
        while self._requests and readable:
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

    def _has_place(self, size: int) -> bool:
        """Return True if a request with a payload of this size can be handled now."""
        if not self._requests:
            return True
        config = self._link.state.config
        return len(self._requests) < config.max_in_flight and self._bytes_in_flight + size <= config.max_packet

    async def _wait_until_idle(self) -> None:
        """Wait until no request is in flight; nothing is read meanwhile."""
        self._link.state.reading.stop(self._link.interface)
        while self._requests:
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        """Wait until a request has ended, or the session is to end."""
        self._changed = trio.Event()
        await self._changed.wait()
        self._changed = None

    def _note_change(self) -> None:
        if self._changed is not None:
            self._changed.set()
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

    def _client_arguments(self) -> tuple[str, ServerInterface, Session, bool]:
        """Return the arguments of the clients of requests, and whether the peer has a certificate."""
        client = self._link.client
        return client.address, client.server, client.session, client.tls_peer is not None

    def _secure(self, client: Client) -> None:
        """Set the certificate of the peer in the client of a request."""
        client.tls_peer, client.tls_names = self._link.client.tls_peer, self._link.client.tls_names

    def _client(self, request: NumberedRequest) -> Client:
        """Return a client whose packets answer a request."""
        address, server, session, secured = self._client_arguments()
        client = Client(address, server, request, session, request.encoding.name)
        if secured:
            self._secure(client)
        return client

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
