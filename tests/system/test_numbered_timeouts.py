"""The deadlines of a session of version 23: silence, PING, and packets that are not complete in time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from conftest import Start
from numbered_peer import Answer, NumberedPeer, numbered
from peer import JSON, packet
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core import Server
from asyncapy_core.testing import ServerInMemory

TIMED_OUT = {"status": "failure", "error": "ERR_TIMED_OUT"}
FOREVER = 10_000


async def start(asyncapy_server: Start, **settings: Any) -> ServerInMemory:
    server = Server(port=0, timeout=60, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        await trio.sleep(packet.get("sleep", 0))
        return {"n": packet.get("n")}

    return await asyncapy_server(server)


async def connect(running: ServerInMemory) -> NumberedPeer:
    return NumberedPeer(await running.connect())


async def ended_with_time_out(peer: NumberedPeer, *, highest: int) -> bool:
    answers = [await peer.read(FOREVER) for _ in range(3)]
    return answers == [Answer("FAILURE", 0, TIMED_OUT), Answer("LEAVING", highest, None), None]


async def test_a_silent_peer_is_pinged_and_then_timed_out(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.ask(n=1)
        began = trio.current_time()
        ping = await peer.read(FOREVER)
        assert ping is not None
        assert ping.kind == "PING"
        assert trio.current_time() - began == pytest.approx(60, abs=1)
        assert await ended_with_time_out(peer, highest=1)
        assert trio.current_time() - began == pytest.approx(120, abs=2)


@pytest.mark.parametrize(
    "sign",
    [
        numbered("PONG", 1),
        numbered("PONG", 1, {"reserved": 1}),
        numbered("PONG", 99),
        numbered("CANCEL", 5),
        bytes((0, 0, 0, 7, 23, 0, 200)) + bytes(4),
    ],
    ids=["pong", "pong with a map", "another pong", "cancel", "skipped kind"],
)
async def test_a_peer_that_sends_anything_is_kept(
    asyncapy_server: Start, autojump_clock: MockClock, sign: bytes
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.ask(n=1)
        for _ in range(5):
            ping = await peer.read(FOREVER)
            assert ping is not None
            assert ping.kind == "PING"
            await trio.sleep(50)
            await peer.send(sign)
        assert await peer.ask(n=2) == [Answer("REPLY", 2, {"n": 2})]


async def test_a_peer_that_sends_requests_is_not_pinged(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        for number in range(1, 6):
            assert await peer.ask(n=number) == [Answer("REPLY", number, {"n": number})]
            await trio.sleep(59)


async def test_a_peer_whose_request_is_handled_is_pinged_as_well(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        for _ in range(2):  # in place first, then in a task of its own
            number = await peer.request(sleep=100, n=1)
            ping = await peer.read(FOREVER)
            assert ping is not None
            assert ping.kind == "PING"
            await peer.send(numbered("PONG", ping.number))
            assert await peer.read(FOREVER) == Answer("REPLY", number, {"n": 1})


async def test_answers_of_requests_in_flight_come_after_a_time_out(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.request(sleep=150, n=1)
        answers = [await peer.read(FOREVER) for _ in range(5)]
        assert [answer and answer.kind for answer in answers] == ["PING", "FAILURE", "LEAVING", "REPLY", None]


async def test_a_peer_that_has_only_sent_a_ping_is_pinged(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.ping()
        ping = await peer.read(FOREVER)
        assert ping is not None
        assert ping.kind == "PING"
        assert await ended_with_time_out(peer, highest=0)


async def test_a_half_closed_peer_is_not_pinged_and_gets_all_answers(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await start(asyncapy_server, max_in_flight=2)
    async with await connect(running) as peer:
        for number in range(1, 6):
            await peer.request(sleep=200, n=number)
        await peer.half_close()
        answers = []
        while (answer := await peer.read(FOREVER)) is not None:
            answers.append((answer.kind, answer.number))
        assert sorted(answers[:-1]) == [("REPLY", number) for number in range(1, 6)]
        assert answers[-1] == ("LEAVING", 5)


@pytest.mark.parametrize("cut", [1, 4, 5, 10, 11, 15])
async def test_a_packet_has_its_time_from_its_first_byte_on(
    asyncapy_server: Start, autojump_clock: MockClock, cut: int
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.ask(n=1)
        await trio.sleep(50)
        data = numbered("REQUEST", 2, {"n": 2})
        await peer.send(data[:cut])
        await trio.sleep(59)
        await peer.send(data[cut:])
        assert await peer.read(FOREVER) == Answer("REPLY", 2, {"n": 2})
        await trio.sleep(50)
        began = trio.current_time()
        for at in range(cut):
            await peer.send(numbered("REQUEST", 3, {"n": 3})[at : at + 1])
            await trio.sleep(1)
        assert await ended_with_time_out(peer, highest=2)
        assert trio.current_time() - began == pytest.approx(60, abs=2)


async def test_a_skipped_packet_does_not_shorten_the_time_of_the_next(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        await peer.ask(n=1)
        skipped = bytes((0, 0, 0, 7, 23, 0, 200)) + bytes(4)
        data = numbered("REQUEST", 2, {"n": 2})
        await peer.send(skipped[:6])
        await trio.sleep(40)
        await peer.send(skipped[6:] + data[:6])
        await trio.sleep(40)
        await peer.send(data[6:])
        assert await peer.read(FOREVER) == Answer("REPLY", 2, {"n": 2})


@pytest.mark.parametrize("cut", [5, 7, 11, 12])
async def test_the_first_packet_has_its_time_from_the_connection_on(
    asyncapy_server: Start, autojump_clock: MockClock, cut: int
) -> None:
    running = await start(asyncapy_server)
    async with await connect(running) as peer:
        began = trio.current_time()
        await wait_all_tasks_blocked()
        await trio.sleep(30)
        await peer.send(numbered("REQUEST", 1, {"n": 1})[:cut])
        assert await ended_with_time_out(peer, highest=0)
        assert trio.current_time() - began == pytest.approx(60, abs=2)


@pytest.mark.parametrize("cut", [0, 3, 4])
async def test_before_the_version_is_known_the_failure_has_version_22(
    asyncapy_server: Start, autojump_clock: MockClock, cut: int
) -> None:
    running = await start(asyncapy_server)
    stream = await running.connect()
    await stream.send_all(numbered("REQUEST", 1, {"n": 1})[:cut])
    data = b""
    while piece := await stream.receive_some():
        data += piece
    assert data == packet(JSON, json.dumps(TIMED_OUT, separators=(",", ":")).encode())


async def test_an_old_session_leaves_after_its_answers(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await start(asyncapy_server, session_age=1000)
    ages = set()
    for _ in range(20):
        async with await connect(running) as peer:
            began = trio.current_time()
            number = await peer.request(sleep=1500, n=1)
            while (answer := await peer.read(FOREVER)) is not None and answer.kind == "PING":
                await peer.send(numbered("PONG", 1))
            assert answer == Answer("LEAVING", number, None)
            age = trio.current_time() - began
            assert 890 <= age <= 1110
            ages.add(round(age))
            assert await peer.read(FOREVER) == Answer("REPLY", number, {"n": 1})
            assert await peer.read(FOREVER) is None
    assert len(ages) > 1


async def test_an_ended_session_does_not_age(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    running = await start(asyncapy_server, session_age=10)
    async with await connect(running) as peer:
        await peer.ask(n=1)
    await trio.sleep(100)
    assert not any("ERROR" in line for line in running.log)


async def test_a_handler_that_takes_too_long_is_a_failure_of_its_request(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    running = await start(asyncapy_server, handler_timeout=5)
    async with await connect(running) as peer:
        for _ in range(2):  # in place first, then in a task of its own
            number = await peer.request(sleep=10)
            other = await peer.request(sleep=1, n=1)
            assert await peer.read(FOREVER) == Answer("REPLY", other, {"n": 1})
            failure = {"status": "failure", "error": "ERR_HANDLER_FAILED"}
            assert await peer.read(FOREVER) == Answer("FAILURE", number, failure)


async def test_a_peer_that_reads_slowly_is_not_late_while_the_server_does_not_read(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server, wait = Server(port=0, timeout=60, max_in_flight=1, max_packet=100_000, send_timeout=FOREVER), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        await wait.wait()
        return {"n": packet["n"]}

    running = await asyncapy_server(server)
    async with await connect(running) as peer, trio.open_nursery() as nursery:
        data = b"".join(numbered("REQUEST", number, {"n": number, "x": "x" * 90_000}) for number in range(1, 30))
        nursery.start_soon(peer.send, data)
        await trio.sleep(200)  # in a packet that the server does not read
        wait.set()
        answers = [await peer.read(FOREVER) for _ in range(29)]
        assert [answer and answer.number for answer in answers] == list(range(1, 30))
