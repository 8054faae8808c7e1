"""The pipeline, also against a model of docs/protocol.md: each request has one answer, and none is handled twice."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from peer import failure

from asyncapy_core.client.idle import END_WITHIN, LONGEST_DELAY
from asyncapy_core.client.pipeline import BATCH, Pipeline, Request
from asyncapy_core.errors import NotConnected, ServerDisconnected

TIMED_OUT = failure("ERR_TIMED_OUT")
END = object()
"""The end of a connection, in the place of a reply."""


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pipe:
    """A pipeline with an open connection, whose requests are numbers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pipeline = Pipeline(lambda: None, self.clock)
        self.pipeline.connected()
        self.settled: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()
        self.requests: dict[int, Request] = {}

    def add(self, size: int = 1) -> int:
        """Add a request of ``size`` bytes, at least 8, and return its number."""
        number = len(self.requests)

        def done() -> None:
            self.settled[number] += 1

        self.requests[number] = self.pipeline.add(number.to_bytes(8) + bytes(max(0, size - 8)), done)
        return number

    def send(self) -> list[int]:
        """Send the next batch, and return its requests."""
        sizes = {number: len(request.data) for number, request in self.requests.items()}
        batch, numbers = self.pipeline.next_batch(), []
        while batch:
            numbers.append(int.from_bytes(batch[:8]))
            batch = batch[sizes[numbers[-1]] :]
        self.sent.update(numbers)
        return numbers

    @property
    def in_flight(self) -> list[int]:
        """The requests that were sent, and have no answer."""
        return [number for number in self.sent if self.requests[number].answer is None]

    def answer(self, number: int) -> Any:
        return self.requests[number].answer

    def idle_request(self, seconds: float = 60) -> int:
        """Send a request after an idle time."""
        self.clock.now += seconds
        number = self.add()
        assert self.send() == [number]
        return number


def test_requests_that_cross_err_timed_out_are_sent_again_in_front_of_new_ones() -> None:
    pipe = Pipe()
    first = pipe.idle_request()
    second = pipe.add()
    assert pipe.send() == [second]
    third = pipe.add()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert pipe.pipeline.holds_reply
    assert pipe.pipeline.holds_reply_to(pipe.requests[first])
    assert not pipe.pipeline.holds_reply_to(pipe.requests[second])
    pipe.pipeline.repeat()
    assert pipe.pipeline.finished, "nothing more is sent on this connection"
    pipe.pipeline.fail_sent(ServerDisconnected("the end"))
    assert not pipe.settled
    pipe.pipeline.connected()
    assert pipe.send() == [first, second, third]
    for number in (first, second, third):
        assert pipe.pipeline.answer({"number": number})
        assert pipe.answer(number) == {"number": number}


def test_a_request_is_sent_again_once() -> None:
    pipe = Pipe()
    number = pipe.idle_request()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    pipe.pipeline.repeat()
    pipe.pipeline.fail_sent(ServerDisconnected("the end"))
    pipe.pipeline.connected()
    pipe.clock.now += 60
    assert pipe.send() == [number]
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert not pipe.pipeline.holds_reply
    assert pipe.answer(number) == TIMED_OUT


def test_a_reply_is_held_back_if_it_comes_sooner_than_the_connection_was_idle() -> None:
    for idle, delay, held in (
        (1.0, 0.99, True), (1.0, 1.0, False), (0.0, 0.0, False),
        (60, LONGEST_DELAY - 0.01, True), (60, LONGEST_DELAY, False),
    ):  # fmt: skip
        pipe = Pipe()
        number = pipe.idle_request(idle)
        pipe.clock.now += delay
        assert pipe.pipeline.answer(dict(TIMED_OUT))
        assert pipe.pipeline.holds_reply is held
        assert pipe.answer(number) == (None if held else TIMED_OUT)


def test_no_reply_is_held_back_on_a_connection_that_was_not_announced() -> None:
    pipe = Pipe()
    pipe.pipeline = Pipeline(lambda: None, pipe.clock)
    number = pipe.idle_request()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert pipe.answer(number) == TIMED_OUT


def test_the_idle_time_begins_with_the_last_reply() -> None:
    pipe = Pipe()
    numbers = [pipe.idle_request(), pipe.add()]
    pipe.send()
    for number in numbers:
        pipe.clock.now += 60
        assert pipe.pipeline.answer({"number": number})
    pipe.idle_request(1)
    pipe.clock.now += 1.5
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert not pipe.pipeline.holds_reply


def test_only_the_first_reply_after_an_idle_time_is_held_back() -> None:
    pipe = Pipe()
    numbers = [pipe.idle_request(), pipe.add()]
    pipe.send()
    assert pipe.pipeline.answer({"a": 1})
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert [pipe.answer(number) for number in numbers] == [{"a": 1}, TIMED_OUT]


def test_a_further_packet_shows_that_a_handler_has_sent_the_reply() -> None:
    pipe = Pipe()
    numbers = [pipe.idle_request(), pipe.add()]
    pipe.send()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    assert pipe.pipeline.answer({"b": 1})
    assert [pipe.answer(number) for number in numbers] == [TIMED_OUT, {"b": 1}]
    assert not pipe.pipeline.answer({"c": 1}), "nothing is held back any more"


def test_a_connection_that_is_lost_in_another_way_delivers_the_reply_that_is_held_back() -> None:
    pipe = Pipe()
    numbers = [pipe.idle_request(), pipe.add()]
    pipe.send()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    pipe.pipeline.fail_sent(ServerDisconnected("lost"))
    assert pipe.answer(numbers[0]) == TIMED_OUT
    assert isinstance(pipe.answer(numbers[1]), ServerDisconnected)
    assert not pipe.pipeline.holds_reply


def test_a_request_that_is_forgotten_takes_the_reply_that_is_held_back_with_it() -> None:
    pipe = Pipe()
    number = pipe.idle_request()
    behind = pipe.add()
    pipe.send()
    assert pipe.pipeline.answer(dict(TIMED_OUT))
    pipe.pipeline.forget(pipe.requests[number])
    assert not pipe.pipeline.holds_reply
    assert pipe.pipeline.finished
    assert isinstance(pipe.answer(behind), ServerDisconnected)


@dataclass(frozen=True)
class Handling:
    """Handles a request.

    Attributes:
        reply: the reply, if there is one.
        seconds: the time until it is sent.
        seconds_behind: the time for which the handler goes on.
    """

    reply: dict[str, Any] | None = None
    seconds: float = 0
    seconds_behind: float = 0


ECHO = Handling({"ok": 1})


@dataclass(frozen=True)
class Ask:
    """A request of the client.

    Attributes:
        timeouts, delays: the pause before it, in timeouts of the server and delays of the network.
        handling: the behaviour of the handler.
        limit: the seconds after which the caller no longer waits.
        cut: whether the connection is cut at this moment.
        size: the bytes of the request.
    """

    timeouts: float
    delays: float
    handling: Handling = ECHO
    limit: float = math.inf
    cut: bool = False
    size: int = 8


class Connection:
    """One connection of the model: a server that reads it as docs/protocol.md says."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._queue: deque[int] = deque()
        self._waits: object | None = None
        self._ended = False
        self._wait()

    def arrive(self, number: int) -> None:
        """Receive a request; a server that has ended the connection drops it."""
        if not self._ended:
            self._queue.append(number)
            if self._waits is not None:
                self._handle_next()

    def _handle_next(self) -> None:
        self._waits = None
        number = self._queue.popleft()
        handling = self._model.asks[number].handling
        self._model.handled[number] += 1
        self._model.after(handling.seconds, self._answer, handling)

    def _answer(self, handling: Handling) -> None:
        if handling.reply is not None:
            self._send(dict(handling.reply))
        self._model.after(handling.seconds_behind, self._handle_next_or_wait)

    def _handle_next_or_wait(self) -> None:
        if self._queue:
            self._handle_next()
        else:
            self._wait()

    def _wait(self) -> None:
        self._waits = object()
        self._model.after(self._model.timeout, self._time_out, self._waits)

    def _time_out(self, wait: object) -> None:
        if self._waits is wait:
            self._ended = True
            self._send(dict(TIMED_OUT))
            self._send(END)

    def _send(self, reply: Any) -> None:
        self._model.after(self._model.delay, self._model.receive, self, reply)


class Model:
    """A client and a server, with a delay between them and a clock that jumps to the next event."""

    def __init__(self, asks: list[Ask], timeout: float, delay: float) -> None:
        self.asks = asks
        self.timeout = timeout
        self.delay = delay
        self.handled: Counter[int] = Counter()
        self.repeated: set[int] = set()
        self.pipe = Pipe()
        self._pipeline = self.pipe.pipeline
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._connection: Connection | None = None

    def after(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Call a function in some seconds."""
        heapq.heappush(self._events, (self.pipe.clock.now + seconds, next(self._order), function, args))

    def run(self) -> None:
        """Make the requests, and run until nothing happens any more."""
        start = 0.0
        for ask in self.asks:
            start += max(0.0, ask.timeouts * self.timeout + ask.delays * self.delay)
            self.after(start, self._ask, ask)
        while self._events:
            self.pipe.clock.now, _, function, args = heapq.heappop(self._events)
            function(*args)
        self._pipeline.fail_sent(ServerDisconnected("the end"))
        self._pipeline.fail_unsent(NotConnected("the end"))

    def _ask(self, ask: Ask) -> None:
        number = self.pipe.add(ask.size)
        self._send()
        if ask.limit < math.inf:
            self.after(ask.limit, self._forget, number)
        if ask.cut:
            self._lose()

    def _send(self) -> None:
        """Send all requests that wait, and connect if necessary."""
        if self._connection is None and self._pipeline.has_unsent:
            self._connection = Connection(self)
            self._pipeline.connected()
        while self._connection is not None and not self._pipeline.given_up and (batch := self.pipe.send()):
            for number in batch:
                self.after(self.delay, self._connection.arrive, number)

    def receive(self, connection: Connection, reply: Any) -> None:
        """Receive a reply or the end of a connection, as `AsyncClient` does."""
        if connection is not self._connection:
            return
        if reply is END:
            if self._pipeline.holds_reply:
                self.repeated.update(self.pipe.in_flight)
                self._pipeline.repeat()
            self._lose()
        elif not self._pipeline.answer(reply) or self._pipeline.finished:
            self._lose()
        elif self._pipeline.holds_reply:
            self.after(END_WITHIN, self._deliver, connection)

    def _deliver(self, connection: Connection) -> None:
        if connection is self._connection and self._pipeline.holds_reply:
            self._pipeline.deliver_held()
            self._lose_if_finished()

    def _forget(self, number: int) -> None:
        request = self.pipe.requests[number]
        if request.answer is None and self._pipeline.holds_reply_to(request):
            self._pipeline.deliver_held()
        if request.answer is None:
            self._pipeline.forget(request)
        self._lose_if_finished()

    def _lose_if_finished(self) -> None:
        if self._pipeline.finished:
            self._lose()

    def _lose(self) -> None:
        """Lose the connection, and connect again for the requests that wait."""
        self._pipeline.fail_sent(ServerDisconnected("lost"))
        self._connection = None
        self._send()


PAUSES = {"timeouts": st.sampled_from([0, 0, 0.3, 1, 1, 1, 3]), "delays": st.integers(-3, 3)}


@settings(max_examples=500)
@given(
    asks=st.lists(st.builds(Ask, **PAUSES, size=st.sampled_from([8, BATCH])), max_size=20),
    timeout=st.sampled_from([0.5, 5, 60]),
    delay=st.sampled_from([0, 0.001, 0.1]),
)
def test_no_request_is_answered_by_err_timed_out_if_handlers_answer_and_the_network_is_quick(
    asks: list[Ask], timeout: float, delay: float
) -> None:
    model = Model(asks, timeout, delay)
    model.run()
    assert [model.pipe.answer(number) for number in range(len(asks))] == [{"ok": 1}] * len(asks)
    assert model.handled == dict.fromkeys(range(len(asks)), 1)


@settings(max_examples=1000)
@given(
    data=st.data(),
    timeout=st.sampled_from([0.1, 0.5, LONGEST_DELAY, 60]),
    delay=st.sampled_from([0, 0.001, 0.1, 0.5, 3]),
)
def test_no_request_is_handled_twice_whatever_handlers_callers_and_the_network_do(
    data: st.DataObject, timeout: float, delay: float
) -> None:
    """With a timeout below `LONGEST_DELAY`, no handler goes on after its reply."""
    handlings = st.builds(
        Handling,
        reply=st.sampled_from([{"ok": 1}, {"ok": 1}, TIMED_OUT, None]),
        seconds=st.sampled_from([0, 0, 0.05, 0.3, 3]),
        seconds_behind=st.sampled_from([0, 0, 1, 70] if timeout >= LONGEST_DELAY else [0]),
    )
    asks = data.draw(
        st.lists(
            st.builds(
                Ask,
                **PAUSES,
                handling=handlings,
                limit=st.sampled_from([math.inf, math.inf, 0.1, 2]),
                cut=st.sampled_from([False] * 9 + [True]),
                size=st.sampled_from([8, 8, BATCH]),
            ),
            max_size=12,
        )
    )
    model = Model(asks, timeout, delay)
    model.run()
    assert not [number for number, times in model.handled.items() if times > 1]
    assert all(times <= 2 for times in model.pipe.sent.values())
    assert {number for number, times in model.pipe.sent.items() if times == 2} <= model.repeated
    assert model.pipe.settled == dict.fromkeys(range(len(asks)), 1)
