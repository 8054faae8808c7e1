"""The requests on a connection of version 23, also against a model of a server that cancels, leaves and breaks off."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_peer import KINDS, numbered
from peer import JSON, failure, packet

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_core.client.calls import MAX_PARTS, Call, PartsCall, Unsent
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.pipeline import BATCH
from asyncapy_core.errors import (
    InvalidReply,
    NoHandlerFound,
    RemoteError,
    ServerDisconnected,
    SessionLimitReached,
    StreamOverflow,
    VersionTooOld,
)
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.kinds import MAX_NUMBER, Kind
from asyncapy_core.protocol.wire import WireFormat

ENCODINGS = EncodingRegistry([JsonCodec(), ZiProtoCodec()], WireFormat(max_packet=1000))


def packets_of(data: bytes) -> list[tuple[str, int, Any]]:
    """Return the kinds, numbers and fields of packets."""
    packets = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        assert data[4] == 23
        fields = json.loads(data[11:end]) if end > 11 else None
        packets.append((KINDS[data[6]], int.from_bytes(data[7:11], "big"), fields))
        data = data[end:]
    return packets


class Client:
    """The calls of a client, by a name of their own, over one exchange after the other."""

    def __init__(self) -> None:
        self.added = 0
        self.unsent = Unsent(self._added)
        self.events: list[dict[str, Any]] = []
        self.changes: Counter[Call] = Counter()
        self.connect()

    def _added(self) -> None:
        self.added += 1

    def connect(self, *, asks: bool = False) -> Exchange:
        self.exchange = Exchange(self.unsent, ENCODINGS, lambda fields, size: self.events.append(fields), asks=asks)
        return self.exchange

    def call(self, name: int = 1, *, padding: int = 0) -> Call:
        fields = {"name": name, "padding": "x" * padding}
        data = ENCODINGS.default.pack_numbered(Kind.REQUEST, 1, fields)
        call: Call = Call(data, 0, lambda: self.changes.update([call]))
        self.unsent.add(call)
        return call

    def stream(self, limit: int = 1000) -> PartsCall:
        data = ENCODINGS.default.pack_numbered(Kind.REQUEST, 1, {"name": 0})
        call: PartsCall = PartsCall(data, 0, lambda: self.changes.update([call]), limit)
        self.unsent.add(call)
        return call

    def sent(self) -> list[tuple[str, int, Any]]:
        return packets_of(self.exchange.next_batch())

    def receive(self, kind: str, number: int = 0, fields: Any = None) -> None:
        self.exchange.receive(numbered(kind, number, fields))


def test_requests_are_numbered_and_answered_in_any_order() -> None:
    client = Client()
    calls = [client.call(name) for name in range(3)]
    assert [(kind, number, fields["name"]) for kind, number, fields in client.sent()] == [
        ("REQUEST", 1, 0),
        ("REQUEST", 2, 1),
        ("REQUEST", 3, 2),
    ]
    assert len(client.exchange) == 3
    client.receive("REPLY", 3, {"n": 3})
    client.receive("END", 1)
    client.receive("FAILURE", 2, failure("ERR_NO_HANDLER"))
    assert [call.answer for call in calls] == [None, failure("ERR_NO_HANDLER"), {"n": 3}]
    assert [call.failed for call in calls] == [False, True, False]
    assert all(call.ended and call.error is None for call in calls)
    assert len(client.exchange) == 0
    assert not client.exchange.finished


def test_a_request_has_the_last_of_its_parts() -> None:
    client = Client()
    call = client.call()
    client.sent()
    client.receive("PART", 1, {"n": 1})
    client.receive("PART", 1, {"n": 2})
    assert not call.ended
    client.receive("END", 1)
    assert call.ended
    assert call.answer == {"n": 2}


def test_packets_may_come_in_any_pieces() -> None:
    client = Client()
    call = client.call()
    client.sent()
    for byte in numbered("PART", 1, {"n": 1}) + numbered("REPLY", 1, {"n": 2}):
        assert not call.ended
        client.exchange.receive(bytes((byte,)))
    assert call.answer == {"n": 2}


def test_a_cancelled_request_is_told_to_the_server_and_its_answers_are_dropped() -> None:
    client = Client()
    first, second = client.call(), client.call()
    client.sent()
    client.exchange.cancel(first)
    assert client.exchange.has_output
    assert client.sent() == [("CANCEL", 1, None)]
    assert not client.exchange.has_output
    client.receive("PART", 1, {"n": 1})
    client.receive("END", 1)
    client.receive("REPLY", 2, {"n": 2})
    assert first.answer is None
    assert second.answer == {"n": 2}
    with pytest.raises(InvalidReply, match="a PART for request 1, which is not in flight"):
        client.receive("PART", 1, {"n": 1})


def test_a_request_that_has_ended_is_not_cancelled() -> None:
    client = Client()
    call = client.call()
    client.sent()
    client.receive("REPLY", 1, {"n": 1})
    client.exchange.cancel(call)
    assert not client.exchange.has_output


def test_an_answer_that_cannot_be_decoded_fails_its_request_alone() -> None:
    client = Client()
    calls = [client.call() for _ in range(4)]
    client.sent()
    client.exchange.receive(numbered("REPLY", 1, payload=b"{,}"))
    client.exchange.receive(numbered("PART", 2, payload=b"{,}"))
    client.exchange.receive(numbered("REPLY", 3, payload=b"", encoding=9))
    client.receive("REPLY", 4, {})
    assert [type(call.error) for call in calls] == [InvalidReply, InvalidReply, InvalidReply, type(None)]
    assert client.sent() == [("CANCEL", 2, None)]
    client.receive("END", 2)


@pytest.mark.parametrize(
    "data",
    [
        numbered("REPLY", 1, {}),
        numbered("END", 7),
        numbered("PING", 0) + b"\0\0\0\7\x17\0\x20\0\0\0\0",
        b"\0\0\xff\xff",
        b"HTTP/1.1",
        numbered("EVENT", 0, payload=b"{,}"),
        packet(JSON, b'{"a": 1}'),
    ],
)
def test_bytes_that_break_the_protocol_end_the_connection(data: bytes) -> None:
    client = Client()
    call = client.call()
    with pytest.raises(InvalidReply) as caught:
        client.exchange.receive(data)
    client.exchange.end(caught.value)
    assert client.exchange.finished
    assert not call.ended, "it was not sent"


def test_events_are_passed_on_and_pings_are_answered() -> None:
    client = Client()
    client.receive("EVENT", 0, {"news": 1})
    client.receive("PING", 5)
    client.receive("PING", 6)
    client.receive("EVENT", 0, {"news": 2})
    assert client.events == [{"news": 1}, {"news": 2}]
    assert client.sent() == [("PONG", 6, None)], "a server that sends many without reading costs no memory"
    assert client.exchange.useful


def test_one_ping_is_outstanding_at_most() -> None:
    client = Client()
    client.exchange.ping()
    client.exchange.ping()
    assert client.sent() == [("PING", 0, None)]
    client.exchange.ping()
    assert client.sent() == []
    assert client.exchange.silent
    client.receive("PONG", 0, {"reserved": 1})
    assert not client.exchange.silent
    client.exchange.ping()
    assert client.sent() == [("PING", 0, None)]


def test_a_server_that_has_left_reads_no_ping() -> None:
    client = Client()
    client.call()
    client.sent()
    client.receive("LEAVING", 1)
    client.exchange.ping()
    assert client.sent() == []
    assert not client.exchange.silent


def test_a_server_leaves_once() -> None:
    client = Client()
    call, other = client.call(), client.call()
    client.sent()
    client.receive("LEAVING", 2)
    with pytest.raises(InvalidReply, match="LEAVING twice"):
        client.receive("LEAVING", 0)
    assert not client.unsent, "the server may have handled them"
    client.exchange.end(InvalidReply("LEAVING twice"))
    assert isinstance(call.error, InvalidReply)
    assert isinstance(other.error, InvalidReply)


def test_requests_above_the_number_of_leaving_are_sent_elsewhere_in_front_of_new_ones() -> None:
    client = Client()
    calls = [client.call(name) for name in range(3)]
    client.sent()
    calls.append(client.call(3))
    first, added = client.exchange, client.added
    client.receive("LEAVING", 1)
    assert client.added == added + 1
    assert first.leaving
    assert not first.finished
    assert client.sent() == [], "a connection that is left takes no requests"
    assert not first.has_output
    client.connect()
    assert [(number, fields["name"]) for _, number, fields in client.sent()] == [(1, 1), (2, 2), (3, 3)]
    first.receive(numbered("REPLY", 1, {"n": 0}))
    assert first.finished
    assert calls[0].answer == {"n": 0}
    first.end(None)
    for number in (1, 2, 3):
        client.receive("REPLY", number, {"n": number})
    assert [call.answer for call in calls] == [{"n": n} for n in range(4)]


def test_a_request_with_an_answer_was_handled_whatever_the_number_of_leaving_says() -> None:
    client = Client()
    call = client.call()
    client.sent()
    client.receive("PART", 1, {})
    client.receive("LEAVING", 0)
    assert call not in client.unsent
    client.exchange.end(None)
    assert isinstance(call.error, ServerDisconnected)


def test_requests_without_an_answer_at_the_end_of_the_stream_are_in_doubt() -> None:
    client = Client()
    call, unsent = client.call(), client.call()
    client.unsent.discard(unsent)
    client.sent()
    client.unsent.add(unsent)
    client.receive("FAILURE", 0, failure("ERR_TIMED_OUT"))
    client.receive("LEAVING", 1)
    client.exchange.end(None)
    assert isinstance(call.error, ServerDisconnected)
    assert "the server ended the session: ERR_TIMED_OUT" in str(call.error)
    assert not unsent.ended
    assert unsent in client.unsent


def test_a_refusal_of_version_22_answers_what_was_sent() -> None:
    client = Client()
    call, stream = client.call(), client.stream()
    client.sent()
    unsent = client.call()
    with pytest.raises(ServerDisconnected, match="refused the connection: ERR_SESSION_LIMIT_REACHED"):
        client.exchange.receive(packet(JSON, json.dumps(failure("ERR_SESSION_LIMIT_REACHED")).encode()))
    assert call.answer == failure("ERR_SESSION_LIMIT_REACHED")
    assert call.failed
    assert isinstance(stream.error, SessionLimitReached)
    assert not unsent.ended
    assert client.exchange.finished


def test_a_refusal_before_a_request_answers_those_that_wait() -> None:
    client = Client()
    call = client.call()
    with pytest.raises(ServerDisconnected):
        client.exchange.receive(packet(JSON, json.dumps(failure("ERR_SERVER_BUSY")).encode()))
    assert call.answer == failure("ERR_SERVER_BUSY")
    assert not client.unsent


def test_a_packet_of_version_22_behind_one_of_version_23_is_invalid() -> None:
    client = Client()
    client.receive("PING", 1)
    with pytest.raises(InvalidReply):
        client.exchange.receive(packet(JSON, json.dumps(failure("ERR_SERVER_BUSY")).encode()))


def test_after_the_highest_number_another_connection_is_used() -> None:
    client = Client()
    client.exchange._highest = MAX_NUMBER - 1
    call, unsent = client.call(), client.call()
    assert [number for _, number, _ in client.sent()] == [MAX_NUMBER]
    assert client.exchange.leaving
    assert unsent in client.unsent
    client.receive("REPLY", MAX_NUMBER, {})
    assert call.answer == {}
    assert client.exchange.finished


def test_a_batch_is_bounded() -> None:
    client = Client()
    for name in range(10):
        client.call(name, padding=BATCH // 2)
    assert len(client.sent()) == 2
    assert len(client.unsent) == 8


def test_a_stream_holds_its_parts_in_order() -> None:
    client = Client()
    stream = client.stream()
    client.sent()
    client.receive("PART", 1, {"n": 1})
    client.receive("PART", 1, {"n": 2})
    assert stream.take() == {"n": 1}
    client.receive("REPLY", 1, {"n": 3})
    assert [stream.take(), stream.take()] == [{"n": 2}, {"n": 3}]
    assert stream.ended
    assert stream.error is None
    assert client.changes[stream] == 4


def test_the_failure_of_a_stream_is_an_exception() -> None:
    client = Client()
    stream, other = client.stream(), client.stream()
    client.sent()
    client.receive("FAILURE", 1, failure("ERR_NO_HANDLER"))
    client.receive("FAILURE", 2, {})
    assert isinstance(stream.error, NoHandlerFound)
    assert type(other.error) is RemoteError


PART = numbered("PART", 1, payload=b'{"n":1}')
LIMITS = [(10**9, MAX_PARTS), (7 * 10, 10), (1, 1)]


@pytest.mark.parametrize(("limit", "held"), LIMITS)
def test_parts_for_which_there_is_no_room_wait_with_all_packets_behind_them(limit: int, held: int) -> None:
    client = Client()
    stream = client.stream(limit)
    other = client.call()
    client.sent()
    client.exchange.receive(PART * (held + 3) + numbered("END", 1) + numbered("REPLY", 2, {"n": 2}))
    assert client.exchange.full is stream
    assert len(stream.parts) == held
    taken = 0
    while client.exchange.full is not None:
        assert not stream.ended
        assert not other.ended
        taken += 1
        assert stream.take() == {"n": 1}
        client.exchange.proceed()
    assert taken == 3
    assert other.answer == {"n": 2}
    assert [stream.take() for _ in range(held)] == [{"n": 1}] * held
    assert stream.ended
    assert stream.error is None


def test_a_stream_without_room_that_is_cancelled_holds_up_nothing() -> None:
    client = Client()
    stream, other = client.stream(1), client.call()
    client.sent()
    client.exchange.receive(PART * 2 + numbered("FAILURE", 1, failure("ERR_GONE")) + numbered("REPLY", 2, {"n": 2}))
    stream.overflow("its loop hangs")
    client.exchange.cancel(stream)
    assert client.sent() == [("CANCEL", 1, None)]
    client.exchange.proceed()
    assert client.exchange.full is None
    assert other.answer == {"n": 2}
    assert stream.take() == {"n": 1}
    assert isinstance(stream.error, StreamOverflow)
    assert "has not taken 1 parts of 7 bytes, and its loop hangs" in str(stream.error)


def test_the_end_and_a_failure_of_a_stream_need_no_room() -> None:
    for last in (numbered("END", 1), numbered("FAILURE", 1, failure("ERR_NO_HANDLER"))):
        client = Client()
        stream = client.stream(1)
        client.sent()
        client.exchange.receive(PART + last)
        assert client.exchange.full is None
        assert stream.ended
        assert stream.take() == {"n": 1}


def test_a_last_answer_waits_for_room_as_well() -> None:
    client = Client()
    stream = client.stream(1)
    client.sent()
    client.exchange.receive(PART + numbered("REPLY", 1, {"n": 2}))
    assert not stream.ended
    assert stream.take() == {"n": 1}
    client.exchange.proceed()
    assert stream.take() == {"n": 2}
    assert stream.ended
    assert client.sent() == []


def test_invalid_packets_behind_a_stream_without_room_are_found_later() -> None:
    client = Client()
    stream = client.stream(1)
    client.sent()
    client.exchange.receive(PART * 2 + numbered("REPLY", 7, {"n": 2}))
    assert stream.take() == {"n": 1}
    with pytest.raises(InvalidReply, match="a REPLY for request 7, which is not in flight"):
        client.exchange.proceed()
    assert stream.take() == {"n": 1}


def test_an_exchange_that_asks_sends_one_ping_alone_and_the_requests_behind_the_answer() -> None:
    client = Client()
    exchange = client.connect(asks=True)
    client.call()
    assert exchange.next_batch() == numbered("PING", 0)
    assert client.sent() == []
    assert not exchange.has_output
    client.receive("PONG")
    assert [kind for kind, _, _ in client.sent()] == ["REQUEST"]


def test_the_answer_of_a_server_of_version_22_to_the_ping_leaves_the_requests_unsent() -> None:
    client = Client()
    exchange = client.connect(asks=True)
    call = client.call()
    with pytest.raises(VersionTooOld):
        exchange.receive(packet(JSON, json.dumps(failure("ERR_HEADER_INVALID")).encode()))
    assert exchange.finished
    assert call in client.unsent
    assert not call.ended


def test_the_same_answer_to_a_request_is_its_failure() -> None:
    client = Client()
    call = client.call()
    client.sent()
    with pytest.raises(ServerDisconnected):
        client.exchange.receive(packet(JSON, json.dumps(failure("ERR_HEADER_INVALID")).encode()))
    assert call.answer == failure("ERR_HEADER_INVALID")


@pytest.mark.parametrize("fields", [{"detail": "x", **failure("ERR_HEADER_INVALID")}, failure("ERR_TIMED_OUT")])
def test_another_packet_of_version_22_is_the_failure_that_it_names(fields: dict[str, Any]) -> None:
    client = Client()
    exchange = client.connect(asks=True)
    call = client.call()
    with pytest.raises(ServerDisconnected):
        exchange.receive(packet(JSON, json.dumps(fields).encode()))
    assert call.answer == fields


def test_an_abandoned_exchange_cancels_its_requests() -> None:
    client = Client()
    calls = [client.call(), client.call()]
    client.sent()
    client.receive("END", 1)
    client.exchange.abandon(ServerDisconnected("closed"))
    assert calls[0].error is None
    assert isinstance(calls[1].error, ServerDisconnected)
    assert client.sent() == [("CANCEL", 2, None)]
    assert client.exchange.finished


def test_the_state_of_the_answers_is_part_of_the_reason() -> None:
    for data, state in (
        (b"", "without an answer; is tls the same on both sides?"),
        (numbered("PING", 1), "closed the connection, without an answer"),
        (
            numbered("PING", 1)[:4],
            "in the middle of a packet: 4 bytes of it have arrived; do both sides use header_size",
        ),
        (
            numbered("PING", 1)[:9],
            "in the middle of a packet: 9 bytes of it have arrived; do both sides use header_size",
        ),
        (packet(JSON, b'{"a": 1}')[:9], "in the middle of a reply: 9 bytes have arrived"),
    ):
        exchange = Client().exchange
        if data:
            exchange.receive(data)
        exchange.end(None)
        assert state in str(exchange.reason)


class Model:
    """A server that handles each request once, and answers, leaves and breaks off at any moment."""

    def __init__(self) -> None:
        self.client = Client()
        self.calls: dict[int, Call] = {}
        self.given_up: set[int] = set()
        self.handled: Counter[int] = Counter()
        self.old: list[tuple[Exchange, dict[int, int]]] = []
        self.taken: dict[int, int] = {}
        self.arrived: list[tuple[int, int]] = []
        self.highest = 0

    def request(self) -> None:
        name = len(self.calls)
        self.calls[name] = self.client.call(name)

    def send(self) -> None:
        for kind, number, fields in self.client.sent():
            if kind == "REQUEST":
                assert number > self.highest
                self.highest = number
                self.arrived.append((number, fields["name"]))

    def handle(self) -> None:
        if self.arrived:
            number, name = self.arrived.pop(0)
            self.handled[name] += 1
            self.taken[number] = name

    def answer(self, index: int, kind: str) -> None:
        connections = [(self.client.exchange, self.taken), *self.old]
        exchange, taken = connections[index % len(connections)]
        if taken:
            number = sorted(taken)[index % len(taken)]
            name = taken[number]
            exchange.receive(numbered(kind, number, {"name": name} if kind != "END" else None))
            if kind != "PART":
                del taken[number]

    def cancel(self, index: int) -> None:
        if self.calls:
            name = index % len(self.calls)
            call = self.calls[name]
            if not call.ended:
                self.given_up.add(name)
            self.client.unsent.discard(call)
            for exchange, _ in [(self.client.exchange, None), *self.old]:
                exchange.cancel(call)

    def leave(self) -> None:
        last = max(self.taken, default=self.highest - len(self.arrived))
        self.client.receive("LEAVING", max(last, self.highest - len(self.arrived)))
        self.old.append((self.client.exchange, self.taken))
        self.reconnect()

    def break_off(self) -> None:
        self.client.exchange.end(None)
        self.reconnect()

    def reconnect(self) -> None:
        self.client.connect()
        self.taken, self.arrived, self.highest = {}, [], 0

    def finish(self) -> None:
        self.send()
        while self.arrived:
            self.handle()
        for exchange, taken in [(self.client.exchange, self.taken), *self.old]:
            for number, name in taken.items():
                exchange.receive(numbered("REPLY", number, {"name": name}))
            assert len(exchange) == 0
        assert not self.client.unsent


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["request", "request", "send", "handle", "handle", "leave", "break_off"]).map(
                lambda a: (a,)
            ),
            st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from(["PART", "REPLY", "END"])),
            st.tuples(st.just("cancel"), st.integers(0, 20)),
        ),
        max_size=60,
    )
)
def test_each_request_ends_once_and_none_is_handled_twice(steps: list[Any]) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
    model.finish()
    assert all(count == 1 for count in model.handled.values())
    for name, call in model.calls.items():
        if name in model.given_up:
            assert call.error is None
            continue
        assert call.ended
        if call.error is None:
            assert model.handled[name] == 1
            assert call.answer in (None, {"name": name})
        else:
            assert isinstance(call.error, ServerDisconnected)
