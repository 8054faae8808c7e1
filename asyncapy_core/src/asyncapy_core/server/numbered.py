"""`NumberedSession`: version 23 on one connection: concurrent requests (docs/protocol.md, "Version 23").

One task leads: it reads packets, and runs each handler in place. When a handler waits for the first time, another task
becomes the leader; the task of the handler ends with its request. So a handler that never waits costs no task.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.errors import (
    BrokenCodec,
    ConnectionLost,
    EncodeError,
    ErrorCode,
    MalformedPacket,
    ProtocolError,
)
from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.routing.dispatch import NoHandler
from asyncapy_core.routing.outcomes import CANCELLED, DISCONNECTED, SUCCEEDED
from asyncapy_core.server.intake import TimedOut
from asyncapy_core.server.numbered_output import NumberedOutput
from asyncapy_core.server.numbered_request import NumberedRequest, Progress
from asyncapy_core.server.worker import Worker
from asyncapy_core.session import Client

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
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
        "_link",
        "_pinged",
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
        self._waiting: deque[tuple[int, int, bytes]] = deque()  # requests: number, encoding and payload
        self._bytes_in_flight = 0
        self._bytes_waiting = 0
        self._highest = 0  # the highest number that was handed to a handler or refused
        self._pinged = False
        self._between_turns = False
        self._base: Context = copy_context()
        self._changed: trio.Event | None = None
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
        """End the session, as a packet breaks a rule of the protocol; nothing more is read."""
        self._highest = max(self._highest, error.number)
        await self.output.send_failure(error.number, error.code)
        await self._leave(readable=False)

    async def abandon(self) -> None:
        """Cancel all requests, as the connection broke, and wait until their handlers have ended."""
        self._waiting.clear()
        if self._requests:
            self._link.lose()
            await self._wait_until_idle()

    def cancel(self) -> None:
        """Cancel all requests, as the connection broke."""
        for request in tuple(self._requests.values()):
            self._cancel_request(request)
        self._note_change()

    def retire(self) -> None:
        """End the session after the answers to the requests in flight, as it is old."""
        self.output.leave()

    def stop(self) -> None:
        """Check whether the session is to end."""
        self._note_change()

    def end(self) -> None:
        """Drop the packets that were received, as the connection has ended."""
        self._frames.clear()
        self._waiting.clear()

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and begin those that wait for its place."""
        del self._requests[request.number]
        self._bytes_in_flight -= request.size
        while self._waiting and self._has_place(len(self._waiting[0][2])):
            number, wire_id, payload = self._waiting.popleft()
            self._bytes_waiting -= len(payload)
            self._start(self._follow, self._handle, self._admit(number, wire_id, len(payload)), payload)
        self._note_change()

    def before_wait(self, worker: Worker) -> None:
        """Send the answers of the task of a worker, and let another task lead, before it waits; raises nothing."""
        request, state = worker.request, self._link.state
        if request is not None:
            self.output.flush()
            if worker.leads:
                worker.leads = False
                if request.handler is not None:
                    request.handler.waits = True
                self._start(self._link.proceed, self.lead)
        elif self._between_turns:
            return
        self._link.outbox.uncork()
        if state.disconnects.asleep:
            state.disconnects.wake()

    async def _lead(self, worker: Worker) -> bool | None:
        """Lead until the session ends (True), or until another worker leads (None)."""
        outbox = self._link.outbox
        while True:
            if not await self._dispatch_frames(worker):
                return None
            outbox.uncork()
            if self._is_to_end():
                return await self._leave()
            if self._bytes_waiting > self._link.state.config.max_packet:
                await self._wait_for_change()
            else:
                await outbox.wait_for_room()
                if await self._receive() is False:
                    await self._wait_until_idle()
                    return await self._leave(readable=False)
            if outbox.poisoned:
                raise ConnectionLost("the connection broke")

    async def _dispatch_frames(self, worker: Worker) -> bool:
        """Handle the packets that are complete; return False if another worker leads."""
        frames, outbox, intake = self._frames, self._link.outbox, self._link.intake
        limit, most = self._link.state.config.packets_per_turn, self._link.state.config.max_packet
        dropped, handled = self._link.state.peers.dropped.by_task, 0
        while not self._is_to_end() and self._bytes_waiting <= most:
            if not frames:
                frames.extend(self._decoder.frames(limit))
                if not frames:
                    break
            if not outbox.corked:
                intake.complete(self._link.interface)
                outbox.cork()
            kind, number, wire_id, payload = frames.popleft()
            if kind is not _REQUEST:
                await self._control(kind, number)
            elif self._waiting or not self._has_place(len(payload)):
                self._waiting.append((number, wire_id, payload))
                self._bytes_waiting += len(payload)
            else:
                await self._handle(worker, self._admit(number, wire_id, len(payload)), payload)
                if not worker.leads:
                    return False
                if dropped or copy_context() != self._base:
                    await self._clean_up()
            handled += 1
            if handled == limit:
                handled = 0
                await self._yield_turn()
        return True

    async def _receive(self) -> bool | None:
        """Receive bytes; return False at the end of the stream, and None after a wake-up.

        A silent peer gets a PING after ``timeout``, and has to send something within the same time again.

        Raises:
            TimedOut: it has not, or a packet was not complete in time.
        """
        link, partial = self._link, self._decoder.buffered
        received = await link.intake.receive_or_wake(link.interface)
        if received:
            if not partial:
                link.state.reading.stop(link.interface)  # a packet has its time from its first byte on
        elif received is None and link.intake.expired:
            link.intake.expired = False
            if partial or self._pinged or not self._highest:
                raise TimedOut(f"no whole packet within {link.state.config.timeout:g} s")
            self._pinged = True
            await self.output.send_and_wait(self.output.bare(Kind.PING, 1))
        return received

    async def _control(self, kind: Kind, number: int) -> None:
        """Handle a packet that is no request."""
        if kind is Kind.CANCEL:
            self._cancel(number)
        elif kind is Kind.PING:
            await self.output.send_and_wait(self.output.bare(Kind.PONG, number))
        else:
            self._pinged = False

    def _cancel(self, number: int) -> None:
        """End a request whose client no longer waits, unless it has ended."""
        request = self._requests.get(number)
        if request is not None and request.progress is Progress.OPEN:
            self.output.queue(self.output.bare(Kind.END, number, request.encoding.wire_id))
            self._cancel_request(request)
            return
        for waiting in self._waiting:
            if waiting[0] == number:
                self._waiting.remove(waiting)
                self._bytes_waiting -= len(waiting[2])
                self.output.queue(self.output.bare(Kind.END, number, waiting[1]))
                return

    @staticmethod
    def _cancel_request(request: NumberedRequest) -> None:
        if request.progress is Progress.OPEN:
            request.progress = Progress.CANCELLED
        if request.worker is not None:
            request.worker.scope.cancel()

    def _admit(self, number: int, wire_id: int, size: int) -> NumberedRequest:
        """Count a request as one in flight."""
        encoding = self._link.state.encodings.by_id.get(wire_id, self.output.encoding)
        if not self._highest:
            self.output.encoding = encoding
            self._link.client.encoding = encoding.name
        self._highest = number
        request = self._requests[number] = NumberedRequest(self.output, self, number, encoding, size)
        self._bytes_in_flight += size
        return request

    async def _handle(self, worker: Worker, request: NumberedRequest, payload: bytes) -> None:
        """Dispatch a request, and answer it; in a task of its own if its handler is known to wait."""
        client = self._client(request)
        request.worker, worker.request = worker, request
        packet: Packet | None = None
        try:
            packet = request.encoding.unpack_numbered(payload, client)
            under_way = self._dispatch(client, packet)
            request.handler = packet.handler
            if worker.leads and request.handler is not None and request.handler.waits:
                request.worker = worker.request = None
                self._start(self._follow, self._finish, request, packet, under_way)
                return
        except BaseException as error:  # a filter may raise anything
            await self._conclude(worker, request, await self._fail(worker, request, client, packet, error))
            return
        await self._finish(worker, request, packet, under_way)

    async def _finish(
        self, worker: Worker, request: NumberedRequest, packet: Packet, under_way: Awaitable[object]
    ) -> None:
        """Await the handlers of a request, and answer it."""
        client: Any = packet.sender
        request.worker, worker.request = worker, request
        started = time.perf_counter_ns()
        outcome: str = SUCCEEDED
        try:
            if request.progress is Progress.CANCELLED:
                worker.scope.cancel()
            if self._link.state.config.handler_timeout is not None:
                under_way = worker.within_limit(self, client, under_way)
            result = await under_way
            request.handler = packet.handler
            await request.finish(result, packet)
        except BaseException as error:  # a handler may raise anything
            request.handler = packet.handler
            outcome = await self._fail(worker, request, client, packet, error)
        if request.handler is not None and self._link.state.config.measure:
            request.handler.outcomes.measure(outcome, time.perf_counter_ns() - started)
        await self._conclude(worker, request, outcome)

    async def _conclude(self, worker: Worker, request: NumberedRequest, outcome: str) -> None:
        """Count a request whose handlers have ended, and give its place to another."""
        if request.handler is None:
            self._link.state.counters.refuse(outcome)
        else:
            request.handler.outcomes.count(outcome)
        if self._link.state.peers.dropped.by_task:
            await self._link.state.peers.close_dropped(self)  # another task leads if this waits
        request.worker = worker.request = None
        request.returned = True
        if request.is_over:
            self.forget(request)

    async def _fail(
        self, worker: Worker, request: NumberedRequest, client: Client, packet: Packet | None, error: BaseException
    ) -> str:
        """Answer a request whose dispatch raised; return its outcome.

        Raises:
            BaseException: the part of the exception that belongs to the server.
        """
        try:
            if packet is None:
                return await self._refuse_payload(request, error)
            if type(error) is NoHandler:
                await (request.end(Progress.ENDED) if request.answered else request.fail(ErrorCode.NO_HANDLER))
                return ErrorCode.NO_HANDLER
            return await self._answer_failure(worker, request, client, packet, error)
        except ConnectionLost:
            return DISCONNECTED

    async def _refuse_payload(self, request: NumberedRequest, error: BaseException) -> str:
        """Answer a request whose payload cannot be decoded: only this request is malformed."""
        if not isinstance(error, MalformedPacket):
            raise error
        if isinstance(error, BrokenCodec) and self._link.state.should_log_codec():
            self.log.error("{API Parser} A packet could not be decoded: %s", error)
        await request.fail(error.code)
        return error.code

    async def _answer_failure(
        self, worker: Worker, request: NumberedRequest, client: Client, packet: Packet, error: BaseException
    ) -> str:
        cancelled = request.progress is Progress.CANCELLED
        through, outcome, failure = worker.split(error, client, cancelled=cancelled)
        if cancelled:
            outcome = CANCELLED
        elif failure is not None and through is None:
            answer, failure = await worker.translate(client, packet, failure)
            outcome = ErrorCode.HANDLER_FAILED if answer is None else answer.code
            if answer is not None:
                try:
                    await request.fail(answer.code, answer.fields)
                except EncodeError as fault:
                    outcome, failure = ErrorCode.HANDLER_FAILED, fault
        if failure is not None:
            worker.report(self.log, packet, failure)
        if through is not None:
            raise through
        if failure is not None:
            await request.fail(ErrorCode.HANDLER_FAILED)
        elif request.progress is Progress.OPEN:
            await request.end(Progress.ENDED)
        return outcome

    async def _leave(self, *, readable: bool = True) -> bool:
        """Send LEAVING, then wait for the answers to the requests in flight; meanwhile read CANCEL and PONG.

        Args:
            readable: whether further packets can be read.
        """
        self.output.leaving = True
        self._frames.clear()
        self._waiting.clear()
        self._bytes_waiting = 0
        await self.output.send_and_wait(self.output.bare(Kind.LEAVING, self._highest))
        self._link.outbox.uncork()
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
        """Wait until no request is in flight or waits."""
        while self._requests or self._waiting:
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

    async def _clean_up(self) -> None:
        """Close dropped generators, and undo the context variables of a handler: the next packet must not see them."""
        if self._link.state.peers.dropped.by_task:
            await self._link.state.peers.close_dropped(self)
        if copy_context() != self._base:
            trio.lowlevel.current_task().context = self._base.copy()
            await self._yield_turn()  # trio uses the context when it resumes the task

    def _client(self, request: NumberedRequest) -> Client:
        """Return a client whose packets answer a request."""
        of_session = self._link.client
        client = Client(of_session.address, of_session.server, request, of_session.session, request.encoding.name)
        client.tls_peer, client.tls_names = of_session.tls_peer, of_session.tls_names
        return client

    def _worker(self, *, leads: bool) -> Worker:
        state = self._link.state
        return Worker(self, state.peers, state.dispatcher.errors, state.config.handler_timeout, leads=leads)

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function in a task of its own, with the context variables of the connection; raises nothing."""
        self._base.copy().run(self._link.start, function, *args)

    async def _follow(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Handle a request in the current task, beside the leader."""
        worker = self._worker(leads=False)
        with worker.scope:
            await run_with_wait_hook(function(worker, *args), worker.before_wait)
