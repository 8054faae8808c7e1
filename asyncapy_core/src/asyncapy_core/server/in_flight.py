"""`RequestsInFlight`: the requests of a session of version 23, in flight and waiting, and the tasks that handle them.

It does not know how packets are read; see `NumberedSession`.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

import trio

from asyncapy_core.net.corking import run_with_wait_hook
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.routing.outcomes import SUCCEEDED
from asyncapy_core.server.numbered_output import NumberedOutput
from asyncapy_core.server.numbered_request import NumberedRequest
from asyncapy_core.server.progress import Progress
from asyncapy_core.server.stage import Stage
from asyncapy_core.server.worker import Worker

if TYPE_CHECKING:
    from asyncapy_core.logs import SessionLog
    from asyncapy_core.protocol.encoding import Encoding
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.link import Link
    from asyncapy_core.session import Client

_OPEN: Final = Stage.OPEN


class RequestsInFlight(ABC):
    """The requests of one connection.

    Args:
        link: the connection.

    Attributes:
        output: the packets that are sent.
        between_turns: whether the task that reads yields between two packets.
    """

    __slots__ = (
        "_base",
        "_bytes_in_flight",
        "_bytes_waiting",
        "_changed",
        "_dispatch",
        "_highest",
        "_left",
        "_limited",
        "_link",
        "_measured",
        "_outbox",
        "_requests",
        "_state",
        "_waiting",
        "between_turns",
        "output",
    )

    def __init__(self, link: Link) -> None:
        state = link.state
        self._link = link
        self._state = state
        self._outbox = link.outbox
        self.output: NumberedOutput = NumberedOutput(link)
        self._requests: dict[int, NumberedRequest] = {}
        self._waiting: dict[int, tuple[int, bytes]] = {}  # by number: encoding and payload
        self._bytes_in_flight = 0
        self._bytes_waiting = 0
        self._highest = 0  # the highest number that was handed to a handler or refused
        self._left = False  # whether LEAVING was sent
        self.between_turns: bool = False
        self._base: Context = copy_context()
        self._changed: trio.Event | None = None
        self._limited = state.config.handler_timeout is not None
        self._measured = state.config.measure
        debug = state.log.isEnabledFor(logging.DEBUG)
        dispatch = _traced(state.dispatcher.dispatch_traced, link.log) if debug else state.dispatcher.dispatch
        self._dispatch = _timed(dispatch) if self._measured else dispatch

    @abstractmethod
    async def lead(self) -> bool | None:
        """Read and dispatch packets in the current task."""

    @property
    def client(self) -> Client:
        """The client of the session."""
        return self._link.client

    @property
    def log(self) -> SessionLog:
        """The logger of the session."""
        return self._link.log

    def drop(self) -> None:
        """Close the connection at once."""
        self._link.drop()

    def cancel(self) -> None:
        """Cancel all requests, as the connection broke."""
        self._drop_waiting()
        for request in tuple(self._requests.values()):
            self._cancel_request(request)
            if request.has_ended:  # `Client.answering` keeps it open, for a task that is not awaited here
                self.forget(request)
        self._note_change()

    def stop(self) -> None:
        """Check whether the session is to end."""
        self.output.flush()  # the output queue is sent
        self._note_change()

    def end(self) -> None:
        """Cancel requests that are left, as the connection has ended."""
        if self._requests:
            self.cancel()

    def is_in_flight(self, request: NumberedRequest) -> bool:
        """Return True if packets behind this request have been read before its end."""
        return request.number in self._requests

    def forget(self, request: NumberedRequest) -> None:
        """Remove a request that has ended, and begin those that wait for its place."""
        if self._requests.pop(request.number, None) is not None:
            self._bytes_in_flight -= request.size
        if self._waiting:
            self._begin_waiting()
        self._note_change()

    def before_wait(self, worker: Worker, request: NumberedRequest) -> None:
        """Send the answers of a handler, and let another task lead, before it waits; raises nothing."""
        if worker.leads:
            self._hand_over(worker, request)
        self.output.flush()
        self.output.sending = False
        self._outbox.rest()

    def _hand_over(self, worker: Worker, request: NumberedRequest) -> None:
        """Let another task lead, as the handler of a request that runs in place is about to wait."""
        worker.leads = False
        request.begin_waiting(worker)
        self._count(request)
        if not self.output.sending:
            self._state.dispatcher.note_wait(worker.packet)
        self._base.copy().run(self._link.hand_over)

    def _pass_on(self, request: NumberedRequest, packet: Packet, under_way: Awaitable[object]) -> None:
        """Let another task handle a request whose handler is known to wait."""
        request.begin_waiting(None)  # tasks to which a filter has told the client may answer before the handler begins
        self._count(request)
        self._link.start(self._follow, self._finish, request, packet, under_way)  # with the context of the filters

    async def _handle(self, worker: Worker, request: NumberedRequest, payload: bytes) -> None:
        """Handle a request that has waited for its turn, in a task of its own."""
        packet = None
        request.begin_waiting(worker)
        worker.request = request
        try:
            if request.is_open:
                packet = worker.packet = request.codec.unpack_numbered(payload, request)
                under_way = self._dispatch(request, packet)
        except BaseException as error:  # a filter may raise anything
            try:
                await self._clean_up(request, packet, await worker.fail(request, packet, error))
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
        request.begin_waiting(worker)
        worker.request, worker.packet = request, packet
        outcome: str = SUCCEEDED
        try:
            try:
                if request.progress is Progress.CANCELLED or self._outbox.poisoned:
                    worker.scope.cancel()
                    if isinstance(under_way, Coroutine):
                        under_way.close()  # the handlers have not begun
                    await trio.lowlevel.checkpoint()
                if self._limited:
                    under_way = worker.within_limit(self, request, under_way)
                result = await under_way
                sending = request.finish(result, packet)
                if sending is not None:
                    await sending
            except BaseException as error:  # a handler may raise anything
                outcome = await worker.fail(request, packet, error)
            await self._clean_up(request, packet, outcome)
        finally:
            self._release(worker, request)

    async def _clean_up(self, request: NumberedRequest, packet: Packet | None, outcome: str) -> None:
        """Count a request, and close the generators that its handlers have dropped."""
        handler = request.handler = None if packet is None else packet.handler
        if handler is None:
            self._state.counters.refuse(outcome)
        else:
            handler.outcomes.count(outcome)
            if self._measured:
                self._measure(request, outcome)
        if self._state.peers.dropped.by_task:
            await self._state.peers.close_dropped(self)  # another task leads if this waits

    @staticmethod
    def _measure(request: NumberedRequest, outcome: str) -> None:
        """Note the duration of a request, after it was counted."""
        if request.handler is not None:
            request.handler.outcomes.measure(outcome, time.perf_counter_ns() - request.started)

    def _release(self, worker: Worker, request: NumberedRequest) -> None:
        """Separate a request from the task of its handler, which has ended."""
        packet = worker.packet
        request.handler = None if packet is None else packet.handler
        worker.packet = worker.request = request.worker = None
        if request.holds and not self._outbox.poisoned:  # a broken connection does not wait for `Client.answering`
            self._count(request)
            return
        request.end(Progress.ENDED)  # `Client.answering` may have ended after the handler, and before this
        if self._requests:
            self.forget(request)

    def _cancel(self, number: int) -> None:
        """End a request whose client no longer waits, unless it has ended."""
        request = self._requests.get(number)
        if request is not None and request.is_open:
            self.output.queue(self.output.bare(Kind.END, number, request.codec.wire_id))
            self._cancel_request(request)
            self.log.debug("{API Parser} Request %d was cancelled by its client", number)
        elif (waiting := self._waiting.pop(number, None)) is not None:
            wire_id, payload = waiting
            self._bytes_waiting -= len(payload)
            self.output.queue(self.output.bare(Kind.END, number, wire_id))
            self.log.debug("{API Parser} Request %d was cancelled by its client before its turn", number)
            self._begin_waiting()

    @staticmethod
    def _cancel_request(request: NumberedRequest) -> None:
        if request.is_open:
            request.progress = Progress.CANCELLED
        if request.worker is not None:
            request.worker.scope.cancel()

    def _begin_waiting(self) -> None:
        """Begin the requests that wait their turn, as far as there are places, unless the session is to end."""
        while self._waiting and not self._outbox.poisoned and (self._left or not self._is_to_end()):
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

    def _count(self, request: NumberedRequest) -> None:
        """Count a request as one in flight: other packets are read before it ends."""
        if request.number not in self._requests:
            self._requests[request.number] = request
            self._bytes_in_flight += request.size

    def _admit(self, number: int, wire_id: int, size: int) -> NumberedRequest:
        """Return a request in flight, whose handler begins later."""
        self._highest = max(self._highest, number)
        request = NumberedRequest(self, number, self._encoding(wire_id), size)
        self._count(request)
        return request

    def _encoding(self, wire_id: int) -> Encoding:
        """Return the encoding of the answers to a request; its own may be unknown if it has no payload."""
        return self._state.encodings.by_id.get(wire_id, self.output.encoding)

    def _is_to_end(self) -> bool:
        """Return True if no further request is to be handled."""
        return self.output.leaving or self._state.draining or self._link.stage is not _OPEN or self._outbox.poisoned

    def _has_place(self, size: int) -> bool:
        """Return True if a request with a payload of this size can be handled now."""
        if not self._requests:
            return True
        config = self._state.config
        return len(self._requests) < config.max_in_flight and self._bytes_in_flight + size <= config.max_packet

    async def _wait_until_idle(self) -> None:
        """Wait until no request is in flight; nothing is read meanwhile."""
        self._state.reading.stop(self._link.interface)
        if self._state.disconnects.asleep:
            self._state.disconnects.wake()  # also after an error, when no worker does so before each wait
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

    def _worker(self, *, leads: bool) -> Worker:
        return Worker(self, self._state, self._outbox, leads=leads)

    def _start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a function in a task of its own, with the context variables of the connection; raises nothing."""
        self._base.copy().run(self._link.start, function, *args)

    async def _follow(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Handle a request in the current task, beside the leader."""
        worker = self._worker(leads=False)
        with worker.scope:
            await run_with_wait_hook(function(worker, *args), worker.before_wait)


def _timed(
    dispatch: Callable[[NumberedRequest, Packet], Awaitable[object]],
) -> Callable[[NumberedRequest, Packet], Awaitable[object]]:
    """Return a function that notes the time of a dispatch, and dispatches the packet."""
    now = time.perf_counter_ns

    def dispatch_timed(request: NumberedRequest, packet: Packet) -> Awaitable[object]:
        request.started = now()
        return dispatch(request, packet)

    return dispatch_timed


def _traced(
    dispatch: Callable[[Client, Packet], Awaitable[object]], log: SessionLog
) -> Callable[[NumberedRequest, Packet], Awaitable[object]]:
    """Return a function that writes a debug line for a request, and dispatches its packet."""

    def dispatch_traced(request: NumberedRequest, packet: Packet) -> Awaitable[object]:
        line = "{API Parser} Request %d, Protocol-Version is 23, Content-Encoding is %s, %d bytes"
        log.debug(line, request.number, request.encoding, request.size)
        return dispatch(request, packet)

    return dispatch_traced
