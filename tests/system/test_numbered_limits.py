"""The limits of a session of version 23: requests in flight, requests that wait, output, and floods of packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from peer import Peer

from asyncapy_core import Server
from asyncapy_core.routing.filter import Filter
from asyncapy_core.server.numbered import MAX_WAITING

MIB = 1024 * 1024


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


class Gate:
    """A server whose handler waits for the gate if the request has the field ``wait``."""

    def __init__(self, **settings: Any) -> None:
        self.open = trio.Event()
        self.begun: list[int] = []
        self.most = self.now = 0
        self.server = Server(port=0, **settings)
        self.server.register_handler(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        self.begun.append(packet.get("n"))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if "wait" in packet:
                await self.open.wait()
        finally:
            self.now -= 1
        return {"n": packet.get("n")}


async def test_beyond_max_in_flight_requests_wait_while_packets_behind_them_are_read(serve: Serve) -> None:
    gate = Gate(max_in_flight=2)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        for number in (1, 2, 3, 4):
            await peer.request(wait=1, n=number)
        await peer.ping(7)
        assert gate.begun == [1, 2]
        await peer.cancel(2)
        assert await peer.read() == Answer("END", 2, None)
        await peer.ping(8)
        assert gate.begun == [1, 2, 3]
        gate.open.set()
        answers = [await peer.read() for _ in range(3)]
        assert sorted(answer.number for answer in answers if answer is not None) == [1, 3, 4]
        assert gate.most == 2


async def test_requests_that_wait_begin_in_their_order(serve: Serve) -> None:
    gate = Gate(max_in_flight=1, max_packet=1000)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1, x="x" * 400)
        for number in range(2, 10):
            await peer.request(n=number, x="x" * (900 if number == 2 else 1))
        gate.open.set()
        for _ in range(9):
            await peer.read()
    assert gate.begun == list(range(1, 10))


async def test_a_small_request_does_not_overtake_a_large_one_that_waits(serve: Serve) -> None:
    gate = Gate(max_packet=1000)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1, x="x" * 500)
        await peer.request(n=2, x="x" * 900)
        await peer.request(n=3)
        await peer.ping()
        assert gate.begun == [1]
        running.server.stop()  # LEAVING tells that neither was handled
        assert await peer.read() == Answer("LEAVING", 1, None)
        gate.open.set()
        assert await peer.read_all() == [Answer("REPLY", 1, {"n": 1})]


async def test_a_request_of_the_largest_size_is_always_allowed_alone(serve: Serve) -> None:
    gate = Gate(max_packet=1000)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        largest = b'{"x":"' + b"x" * (1000 - 2 - 8) + b'"}'
        await peer.send(numbered("REQUEST", 1, payload=largest) * 1)
        assert await peer.read() == Answer("REPLY", 1, {"n": None})


async def test_with_more_than_max_packet_bytes_waiting_the_session_is_read_later(serve: Serve) -> None:
    gate = Gate(max_in_flight=1, max_packet=1000)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1)
        await peer.request(n=2, x="x" * 900)
        await peer.ping(1)
        await peer.request(n=3, x="x" * 900)  # now 1,800 bytes wait
        await peer.send(numbered("PING", 2))
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.move_on_after(0.1) as scope:
            await peer.stream.receive_some()
        assert scope.cancelled_caught, "the PING behind them was read"
        gate.open.set()
        answers = [await peer.read() for _ in range(4)]
        assert {(answer.kind, answer.number) for answer in answers if answer is not None} == {
            ("REPLY", 1),
            ("REPLY", 2),
            ("REPLY", 3),
            ("PONG", 2),
        }


async def test_the_number_of_requests_that_wait_is_bounded_however_small_they_are(serve: Serve) -> None:
    gate = Gate(max_in_flight=1)
    running = await serve(gate.server)
    async with await connect(running) as peer, trio.open_nursery() as nursery:
        await peer.request(wait=1, n=1)
        many = 20_000

        async def send() -> None:
            await peer.send(b"".join(numbered("REQUEST", number) for number in range(2, many + 2)))

        nursery.start_soon(send)
        received = -1
        while received != running.server.statistics().bytes_received:  # until nothing more is read
            received = running.server.statistics().bytes_received
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert received < (MAX_WAITING + 1) * 11 + 2 * 64 * 1024 + 100
        gate.open.set()
        answers = [await peer.read() for _ in range(many + 1)]
        assert answers[0] == Answer("REPLY", 1, {"n": 1})
        assert [answer.number for answer in answers if answer is not None and answer.kind == "FAILURE"] == list(
            range(2, many + 2)
        )


async def test_answers_are_sent_before_the_session_waits_for_a_place(serve: Serve) -> None:
    gate = Gate(max_in_flight=1)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1)
        await peer.send(b"".join(numbered("REQUEST", number, {}) for number in range(2, MAX_WAITING + 2)))
        await peer.ping()
        more = b"".join(numbered("REQUEST", number, {}) for number in range(2 * MAX_WAITING, 2 * MAX_WAITING + 3))
        await peer.send(numbered("PING", 7) + more)  # after these, it does not read
        assert await peer.read() == Answer("PONG", 7, None)
        gate.open.set()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_peer_that_reads_nothing_bounds_the_memory_and_gets_all_in_the_end(serve: Serve, waits: bool) -> None:
    server, ready = Server(port=0), 0

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        nonlocal ready
        if "bystander" in packet:
            return {"bystander": 1}
        if waits:
            await trio.lowlevel.checkpoint()
        ready += 1
        await client.send({"x": "x" * MIB})
        return {"n": packet["n"]}

    running = await serve(server)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, running.server.statistics().bytes_queued)
            await trio.lowlevel.checkpoint()

    async with running.undisturbed(within=10), await connect(running) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await peer.send(b"".join(numbered("REQUEST", number, {"n": number}) for number in range(1, 101)))
        await until(lambda: running.server.statistics().bytes_queued > 0)
        async with await Peer.connect_from("127.0.0.8", running.port) as other:
            for _ in range(50):
                assert await other.ask(bystander=1) == {"bystander": 1}
        if not waits:
            assert ready < 30, "requests were begun while the output queue is full"
        last = []
        for _ in range(200):
            answer = await peer.read()
            assert answer is not None
            if answer.kind == "REPLY":
                last.append(answer.number)
            else:
                assert len(answer.fields["x"]) == MIB
        assert sorted(last) == list(range(1, 101))
        nursery.cancel_scope.cancel()
    assert most <= server.config.max_output + MIB + 200, most


@pytest.mark.parametrize("reads", [True, False])
async def test_a_flood_of_pings_is_answered_and_bounded(serve: Serve, reads: bool) -> None:
    running = await serve(Server(port=0, max_output=100_000))
    many, sent = 100_000, trio.Event()
    async with await connect(running) as peer, trio.open_nursery() as nursery:

        async def send() -> None:
            await peer.send(b"".join(numbered("PING", number) for number in range(many)))
            sent.set()

        nursery.start_soon(send)
        if not reads:
            async with await connect(running) as other:
                for number in range(100):
                    await other.ask(n=number)
                    assert running.server.statistics().bytes_queued <= 2 * 100_000 + 64 * 1024
        data = bytearray()
        with trio.fail_after(20):
            while len(data) < 11 * many:
                data += await peer.stream.receive_some(65536)
        assert data == b"".join(numbered("PONG", number) for number in range(many))
        await sent.wait()


async def test_requests_that_are_cancelled_at_once_do_not_exceed_the_bound(serve: Serve) -> None:
    gate = Gate(max_in_flight=10)
    running = await serve(gate.server)
    many = 20_000
    async with running.undisturbed(within=10), await connect(running) as peer, trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(1, many, 1000):
                data = b"".join(
                    numbered("REQUEST", number, {"wait": 1}) + numbered("CANCEL", number)
                    for number in range(start, start + 1000)
                )
                await peer.send(data)

        nursery.start_soon(send)
        numbers = []
        for _ in range(many):
            answer = await peer.read()
            assert answer is not None
            assert answer.kind == "END"
            numbers.append(answer.number)
        assert sorted(numbers) == list(range(1, many + 1))
        await peer.ping()
        assert gate.most <= 10 + 1, gate.most  # with the bystander
    await running.settle()


async def test_cancels_of_unknown_numbers_beside_many_that_wait_are_cheap(serve: Serve) -> None:
    gate = Gate(max_in_flight=1)
    running = await serve(gate.server)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1)
        await peer.send(b"".join(numbered("REQUEST", number, {}) for number in range(2, MAX_WAITING)))
        await peer.ping()
        began = trio.current_time()
        await peer.send(numbered("CANCEL", 2**32 - 1) * 50_000)
        await peer.ping(2)
        assert trio.current_time() - began < 10
        gate.open.set()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_pipelining_peer_yields_to_other_tasks_after_packets_per_turn(serve: Serve, waits: bool) -> None:
    server, turns = Server(port=0, packets_per_turn=10, max_in_flight=1000), 0
    seen: list[int] = []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "wait" in packet:
            await trio.lowlevel.checkpoint()
        return {}

    class Notes(Filter):
        def check(self, c: Any, p: Any) -> bool:
            seen.append(turns)
            return True

    server.guard(Notes())

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    running = await serve(server)
    fields = {"wait": 1} if waits else {}
    async with await connect(running) as peer, trio.open_nursery() as nursery:
        await peer.ask(**fields)
        nursery.start_soon(count)
        await peer.send(b"".join(numbered("REQUEST", number, fields) for number in range(10, 1010)))
        for _ in range(1000):
            await peer.read()
        nursery.cancel_scope.cancel()
    assert seen[-1] - seen[1] >= 90


class Later(Filter):
    """A filter that waits."""

    async def check(self, c: Any, p: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True


@pytest.mark.parametrize("how", ["one group", "two groups", "a guard", "an async filter", "at debug level"])
async def test_requests_that_arrive_together_begin_in_few_turns_of_the_loop(serve: Serve, how: str) -> None:
    server = Server(port=0, logging_level=10 if how == "at debug level" else 20)
    starts: list[int] = []
    turn = 0

    @server.add_handler(*([Later()] if how == "an async filter" else []))
    async def handle(client: Any, packet: Any) -> Any:
        starts.append(turn)
        await trio.sleep(0.001)
        return {}

    if how == "two groups":

        @server.add_handler(group=1)
        async def add(client: Any, packet: Any) -> None: ...

    elif how == "a guard":
        server.guard(lambda client, packet: True)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    running = await serve(server)
    async with await connect(running) as peer, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await peer.send(b"".join(numbered("REQUEST", number, {}) for number in range(1, 101)))
        for _ in range(100):
            answer = await peer.read()
            assert answer is not None
            assert answer.kind == "REPLY"
        nursery.cancel_scope.cancel()
    assert len(starts) == 100
    assert starts[-1] - starts[0] <= 12, "each began one turn after the other"
