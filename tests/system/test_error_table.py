"""The table in docs/protocol.md, "Replies of the server": the reply of each row, its connection, the other clients."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import trio
from conftest import Serve, Start
from peer import JSON, ZIPROTO, Peer, framed, json_packet, packet, zi_packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.filters import Filters

FATAL = {
    "shorter than the minimum": (packet(JSON, b"{}"), "ERR_REQUEST_MALFORMED"),
    "a length of zero": (b"\x00\x00\x00\x00", "ERR_REQUEST_MALFORMED"),
    "a payload that does not decode": (packet(JSON, b'{"a":'), "ERR_REQUEST_MALFORMED"),
    "a payload that is no map": (packet(JSON, b"[1, 2]"), "ERR_REQUEST_MALFORMED"),
    "JSON that says it is ZiProto": (packet(ZIPROTO, b'{"foo": "bar"}'), "ERR_REQUEST_MALFORMED"),
    "another version": (packet(JSON, b'{"a":1}', version=21), "ERR_HEADER_INVALID"),
    "an encoding that no codec claims": (packet(2, b'{"a":1}'), "ERR_HEADER_INVALID"),
    "a length above max_packet": (b"\x00\x10\x00\x01", "ERR_PACKET_TOO_LARGE"),
}


def reply_encoding(data: bytes) -> int:
    """Return the encoding of the reply to a first packet: its own if its header is valid, JSON otherwise."""
    whole = len(data) > 6 and data[4] == 22 and data[5] in (JSON, ZIPROTO)
    return data[5] if whole else JSON


@pytest.mark.parametrize(("data", "code"), FATAL.values(), ids=FATAL.keys())
async def test_a_fatal_error_is_answered_with_two_fields_and_closes_the_connection(
    serve: Serve, data: bytes, code: str
) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(data)
        assert await peer.failure(reply_encoding(data)) == code
        assert await peer.closed()


@pytest.mark.parametrize(("data", "code"), FATAL.values(), ids=FATAL.keys())
async def test_a_fatal_error_is_answered_in_the_encoding_of_the_session(serve: Serve, data: bytes, code: str) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        hello = zi_packet(foo="bar")
        await peer.send(hello + data)
        assert await peer.read(len(hello)) == hello
        assert await peer.failure(ZIPROTO) == code
        assert await peer.closed()


@pytest.mark.parametrize(("data", "code"), FATAL.values(), ids=FATAL.keys())
async def test_the_replies_that_are_due_before_a_fatal_error_are_sent_first(
    serve: Serve, data: bytes, code: str
) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(50)) + data)
        for number in range(50):
            assert await peer.json() == {"number": number}
        assert await peer.failure() == code
        assert await peer.closed()


def echoing(**settings: Any) -> Server:
    server = Server(**settings)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    return server


async def test_nothing_behind_a_fatal_error_is_handled(serve: Serve) -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> None:
        seen.append(packet["number"])
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(number=1) + packet(JSON, b"{}") + json_packet(number=2))
        assert await peer.json() == {"number": 1}
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
        assert await peer.closed()
    assert seen == [1]


async def test_an_error_reply_is_not_lost_when_the_peer_sends_60_kib_more(serve: Serve) -> None:
    running = await serve()
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(packet(JSON, b"{}") + bytes(60 * 1024))
        await running.settle(2)
        await trio.sleep(0.1)  # a reset would discard the unread reply
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
        assert await peer.closed()


async def test_a_peer_that_does_not_leave_after_an_error_is_left_after_two_seconds(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(Server())
    began = trio.current_time()
    async with Peer(await running.connect()) as peer:
        await peer.send(packet(JSON, b"{}"))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
        assert await peer.closed()
        assert running.server.statistics().sessions == 0, "the session ends with the reply"
        while running.server.statistics().connections:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.25)
    assert 2 <= trio.current_time() - began <= 2.25


async def test_a_trickle_after_an_error_does_not_hold_the_connection(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(Server())
    async with Peer(await running.connect()) as peer:
        await peer.send(packet(JSON, b"{}"))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
        began = trio.current_time()
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await peer.send(b"x")
                await trio.sleep(0.25)
        assert trio.current_time() - began <= 2.25


async def test_the_length_alone_decides_that_a_packet_is_too_large(serve: Serve) -> None:
    running = await serve(max_packet=100)
    async with running.undisturbed(), await running.connect() as peer:
        fits = framed(JSON, b'{"a":"' + b"x" * 90 + b'"}')
        assert len(fits) == 4 + 100
        await peer.send(fits)
        assert await peer.read(len(fits)) == fits
        await peer.send((101).to_bytes(4, "big"))
        assert await peer.failure() == "ERR_PACKET_TOO_LARGE"
        assert await peer.closed()


async def test_a_silent_peer_is_timed_out(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await asyncapy_server(echoing(timeout=3))
    async with Peer(await running.connect()) as peer:
        began = trio.current_time()
        assert await peer.failure() == "ERR_TIMED_OUT"
        assert trio.current_time() - began == 3
        assert await peer.closed()


async def test_the_time_out_is_answered_in_the_encoding_of_the_session(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echoing(timeout=3))
    async with Peer(await running.connect()) as peer:
        hello = zi_packet(foo="bar")
        await peer.send(hello)
        assert await peer.read(len(hello)) == hello
        assert await peer.failure(ZIPROTO) == "ERR_TIMED_OUT"
        assert await peer.closed()


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 12])
async def test_a_part_of_a_packet_is_timed_out(asyncapy_server: Start, autojump_clock: MockClock, length: int) -> None:
    running = await asyncapy_server(echoing(timeout=3))
    async with Peer(await running.connect()) as peer:
        await peer.send(json_packet(number=1)[:length])
        assert await peer.failure() == "ERR_TIMED_OUT"
        assert await peer.closed()


async def test_a_byte_that_trickles_in_does_not_extend_the_deadline(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echoing(timeout=3))
    async with Peer(await running.connect()) as peer, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def trickle() -> None:
            for byte in json_packet(text="x" * 500):
                await peer.send(bytes((byte,)))
                await trio.sleep(0.2)

        nursery.start_soon(trickle)
        assert await peer.failure() == "ERR_TIMED_OUT"
        assert trio.current_time() - began == pytest.approx(3)
        assert await peer.closed()
        nursery.cancel_scope.cancel()


async def test_a_packet_that_is_whole_before_the_deadline_starts_a_new_one(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await asyncapy_server(echoing(timeout=5))
    async with Peer(await running.connect()) as peer:
        for number in range(4):
            await trio.sleep(4)
            assert await peer.ask(number=number) == {"number": number}
        began = trio.current_time()
        assert await peer.failure() == "ERR_TIMED_OUT"
        assert trio.current_time() - began == 5


async def test_the_time_that_a_handler_takes_does_not_count(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    server = Server(timeout=3)

    @server.add_handler(Filters.Fields(slow=None))
    async def slow(client: Any, packet: Any) -> None:
        await trio.sleep(6)
        await client.send(packet)

    running = await asyncapy_server(server)
    async with Peer(await running.connect()) as peer:
        await peer.send(json_packet(slow=1) + json_packet(slow=2)[:8])
        await trio.sleep(5)
        await peer.send(json_packet(slow=2)[8:])
        assert await peer.json() == {"slow": 1}
        assert await peer.json() == {"slow": 2}


async def test_a_session_above_the_limit_is_refused_and_another_address_is_not(serve: Serve) -> None:
    running = await serve(session_limit=2)
    async with running.undisturbed():
        async with await running.connect() as first, await running.connect() as second:
            assert await first.ask(a=1) == {"a": 1}
            assert await second.ask(a=2) == {"a": 2}
            async with await running.connect() as third:
                assert await third.failure() == "ERR_SESSION_LIMIT_REACHED"
                assert await third.closed()
            async with await Peer.connect_from("127.0.0.3", running.port) as stranger:
                assert await stranger.ask(a=4) == {"a": 4}
            assert await first.ask(a=5) == {"a": 5}
        await running.settle(1)
        async with await running.connect() as again:
            assert await again.ask(a=6) == {"a": 6}


async def test_a_connection_above_max_connections_is_told_that_the_server_is_busy(serve: Serve) -> None:
    running = await serve(max_connections=2)  # one is the bystander's
    async with running.undisturbed():
        async with await running.connect() as first:
            assert await first.ask(a=1) == {"a": 1}
            async with await running.connect() as second:
                assert await second.failure() == "ERR_SERVER_BUSY"
                assert await second.closed()
            assert await first.ask(a=2) == {"a": 2}
        await running.settle(1)
        async with await running.connect() as again:
            assert await again.ask(a=3) == {"a": 3}


async def test_a_connection_that_was_refused_takes_no_place(serve: Serve) -> None:
    running = await serve(max_connections=1)
    first = await running.connect()
    assert await first.ask(a=1) == {"a": 1}
    async with await running.connect() as refused:  # this peer does not leave
        assert await refused.failure() == "ERR_SERVER_BUSY"
        await first.stream.aclose()
        await running.settle(1)
        async with await running.connect() as third:
            assert await third.ask(a=3) == {"a": 3}


async def test_a_refused_peer_that_has_sent_already_gets_its_answer(serve: Serve) -> None:
    running = await serve(session_limit=1)
    async with await running.connect() as first:
        assert await first.ask(a=1) == {"a": 1}
        async with await running.connect() as second:
            await second.send(json_packet(a=2) * 100)
            await trio.sleep(0.1)
            assert await second.failure() == "ERR_SESSION_LIMIT_REACHED"
            assert await second.closed()


@pytest.mark.parametrize("encoding", [JSON, ZIPROTO])
async def test_a_packet_that_no_handler_wants_is_answered_and_the_session_goes_on(serve: Serve, encoding: int) -> None:
    server = Server(port=0)

    @server.add_handler(Filters.HasFields(wanted=None) | Filters.HasFields(bystander=None))
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    @server.add_handler(Filters.HasFields(wanted=None), group=1)
    async def nothing(client: Any, packet: Any) -> None:
        pass

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        wanted = zi_packet(wanted="x") if encoding == ZIPROTO else packet(JSON, b'{"wanted":"x"}')
        unwanted = zi_packet(other="x") if encoding == ZIPROTO else packet(JSON, b'{"other":"x"}')
        for _ in range(3):
            await peer.send(unwanted + wanted)
            assert await peer.failure(encoding) == "ERR_NO_HANDLER"
            assert await peer.read(len(wanted)) == wanted


@pytest.mark.parametrize("encoding", [JSON, ZIPROTO])
async def test_a_handler_that_raises_is_answered_for_and_the_session_goes_on(serve: Serve, encoding: int) -> None:
    server = Server(port=0)
    later: list[Any] = []

    @server.add_handler(Filters.HasFields(bad=None))
    async def bad(client: Any, packet: Any) -> None:
        raise RuntimeError("it was bad")

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    @server.add_handler(group=1)
    async def afterwards(client: Any, packet: Any) -> None:
        later.extend(name for name in packet if name != "bystander")

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        good = zi_packet(good="x") if encoding == ZIPROTO else packet(JSON, b'{"good":"x"}')
        bad_packet = zi_packet(bad="x") if encoding == ZIPROTO else packet(JSON, b'{"bad":"x"}')
        for _ in range(3):
            await peer.send(bad_packet + good)
            assert await peer.failure(encoding) == "ERR_HANDLER_FAILED"
            assert await peer.read(len(good)) == good
    assert later == ["good"] * 3, "a failure stops the propagation"
    lines = running.logged("(it was bad)")
    assert len(lines) == 1, "at most one line per second"
    assert re.match(
        r"\[ERROR\] \([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\) \{API Parser\} Handler 'bad' failed", lines[0]
    )


@pytest.mark.parametrize("wait", [True, False])
async def test_a_handler_that_raises_after_an_answer_costs_its_session_and_no_other_answer_follows(
    serve: Serve,
    wait: bool,
) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def half(client: Any, packet: Any) -> None:
        await client.send({"part": 1})
        if packet["wait"]:
            await trio.lowlevel.checkpoint()
        raise RuntimeError("no more")

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(wait=wait) + json_packet(wait=wait))
        assert await peer.json() == {"part": 1}
        assert await peer.closed()
    assert running.logged("RuntimeError (no more)")
