from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core.errors import ConnectionLost
from asyncapy_core.net.deadlines import Deadlines
from asyncapy_core.net.outbox import CHUNK, Outbox
from asyncapy_core.net.transport import SocketTransport

MANY = 4 * 1024 * 1024
"""More bytes than the buffers of both sockets hold."""


class Counting(SocketTransport):
    """A socket transport that counts the calls of send_now."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sends = 0

    def send_now(self, data: bytes | memoryview) -> int:
        self.sends += 1
        return super().send_now(data)


@dataclass
class Line:
    """An outbox, and the socket of its peer."""

    nursery: trio.Nursery
    limit: int = CHUNK
    deadlines: Deadlines[Outbox] = field(default_factory=lambda: Deadlines(10.0, Outbox.poison))

    def __post_init__(self) -> None:
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.setblocking(False)
        self.transport = Counting(ours)
        self.outbox = Outbox(self.transport, self.deadlines, self.limit, self.nursery.start_soon)

    async def read(self, count: int) -> bytes:
        """Read this number of bytes as the peer; fewer if the outbox closes before."""
        data = bytearray()
        while len(data) < count:
            await trio.lowlevel.wait_readable(self.peer)
            try:
                piece = self.peer.recv(count - len(data))
            except ConnectionResetError:
                break
            if not piece:
                break
            data += piece
        return bytes(data)

    def read_now(self) -> bytes:
        """Read the bytes that have arrived."""
        try:
            return self.peer.recv(1024)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.transport.abort()
        self.peer.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        yield line
        line.close()
        nursery.cancel_scope.cancel()


async def outcome(function: Callable[..., Any], *args: Any, into: list[Any]) -> None:
    """Call an async function, and note its result or its ConnectionLost."""
    try:
        into.append(await function(*args))
    except ConnectionLost as error:
        into.append(error)


async def test_what_is_put_in_is_sent_at_once(line: Line) -> None:
    await line.outbox.put(b"one")
    assert line.read_now() == b"one"


async def test_a_caller_of_enqueue_that_is_cancelled_does_not_poison_the_connection(line: Line) -> None:
    await line.outbox.enqueue(bytes(MANY))
    assert line.outbox.queued > 0
    with trio.CancelScope() as scope:
        scope.cancel()
        await line.outbox.enqueue(bytes(CHUNK + 1))  # there is no room
    assert scope.cancelled_caught
    assert not line.outbox.poisoned
    assert await line.read(MANY) == bytes(MANY)
    await line.outbox.enqueue(b"last")
    assert await line.read(4) == b"last"


async def test_enqueue_raises_connection_lost_at_once(line: Line) -> None:
    line.peer.close()
    with pytest.raises(ConnectionLost):
        await line.outbox.enqueue(b"one")
    with pytest.raises(ConnectionLost):
        await line.outbox.enqueue(b"two")


async def test_cork_tells_whether_output_may_be_held_back(line: Line) -> None:
    assert line.outbox.cork()
    line.outbox.uncork()
    await line.outbox.enqueue(bytes(MANY))
    assert not line.outbox.cork()


async def test_what_is_put_in_while_corked_is_held_back_and_sent_in_one_piece(line: Line) -> None:
    line.outbox.cork()
    for piece in (b"one", b"two", b"three"):
        assert line.outbox.hold(piece)
    assert line.transport.sends == 0
    assert line.read_now() == b""
    await line.outbox.flush()
    assert line.transport.sends == 1
    assert line.read_now() == b"onetwothree"


@pytest.mark.parametrize("attempt", range(12))  # trio wakes waiting tasks in random order
async def test_flushing_waits_for_what_waits_to_be_put_in(line: Line, attempt: int) -> None:
    outcomes: list[Any] = []
    line.nursery.start_soon(line.outbox.put, b"1" * MANY)
    await wait_all_tasks_blocked()
    line.nursery.start_soon(line.outbox.put, b"2" * MANY)
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            await line.outbox.flush()
            outcomes.append("flushed")
            line.transport.send_eof()

        nursery.start_soon(flush)
        data = await line.read(3 * MANY)
    assert (len(data), data[-1:], outcomes) == (2 * MANY, b"2", ["flushed"])


async def test_those_who_wait_for_room_do_not_keep_each_other_awake() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery, limit=MANY)
        for _ in range(6):  # one is being written, one is queued, four wait
            nursery.start_soon(lambda: outcome(line.outbox.put, b"x" * MANY, into=[]))
            await wait_all_tasks_blocked()
        assert len(await line.read(MANY)) == MANY
        with trio.fail_after(10):
            await wait_all_tasks_blocked()
        assert len(await line.read(5 * MANY)) == 5 * MANY
        line.close()


@pytest.mark.parametrize("how", ["cancelled", "poisoned"])
async def test_flushing_ends_where_what_waits_to_be_put_in_does_not_come(line: Line, how: str) -> None:
    outcomes: list[Any] = []
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=[]))
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        putting = trio.CancelScope()

        async def put() -> None:
            with putting:
                await outcome(line.outbox.put, b"2" * MANY, into=[])

        nursery.start_soon(put)
        await wait_all_tasks_blocked()
        nursery.start_soon(lambda: outcome(line.outbox.flush, into=outcomes))
        await wait_all_tasks_blocked()
        if how == "cancelled":
            putting.cancel()
            assert len(await line.read(MANY)) == MANY
        else:
            line.outbox.poison()
    assert [type(each) for each in outcomes] == [type(None) if how == "cancelled" else ConnectionLost]


async def test_uncorking_sends_what_was_held_back_and_holds_back_nothing_more(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.hold(b"one")
    line.outbox.uncork()
    assert line.read_now() == b"one"
    assert not line.outbox.hold(b"two")
    await line.outbox.put(b"two")
    assert line.read_now() == b"two"


async def test_uncorking_and_flushing_with_nothing_held_back_does_nothing(line: Line) -> None:
    line.outbox.uncork()
    await line.outbox.flush()
    assert line.transport.sends == 0


async def test_no_more_than_a_chunk_is_held_back(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.hold(b"x" * (CHUNK - 1))
    assert line.outbox.hold(b"y")
    assert not line.outbox.hold(b"z")
    assert line.transport.sends == 0
    await line.outbox.put(b"z")
    assert line.transport.sends >= 1
    assert await line.read(CHUNK + 1) == b"x" * (CHUNK - 1) + b"yz"


async def test_more_than_the_peer_takes_at_once_arrives_whole_and_in_order(line: Line) -> None:
    first, second = b"1" * MANY, b"2" * MANY
    done: list[Any] = []
    line.nursery.start_soon(lambda: outcome(line.outbox.put, first, into=done))
    await wait_all_tasks_blocked()
    line.nursery.start_soon(lambda: outcome(line.outbox.put, second, into=done))
    await wait_all_tasks_blocked()
    assert done == []
    assert await line.read(2 * MANY) == first + second
    await wait_all_tasks_blocked()
    assert done == [None, None]
    assert len(line.deadlines) == 0


async def test_a_little_may_be_queued_behind_a_write_without_waiting(line: Line) -> None:
    done: list[Any] = []
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=done))
    await wait_all_tasks_blocked()
    with trio.fail_after(5):
        await line.outbox.put(b"2" * line.limit)
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"3", into=done))
    await wait_all_tasks_blocked()
    assert done == []
    assert await line.read(MANY + line.limit + 1) == b"1" * MANY + b"2" * line.limit + b"3"
    await wait_all_tasks_blocked()
    assert done == [None, None]


async def test_flushing_waits_until_another_task_has_sent_everything(line: Line) -> None:
    sent: list[Any] = []
    flushed: list[Any] = []
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=sent))
    await wait_all_tasks_blocked()
    await line.outbox.put(b"2")
    line.nursery.start_soon(lambda: outcome(line.outbox.flush, into=flushed))
    await wait_all_tasks_blocked()
    assert flushed == []
    assert await line.read(MANY + 1) == b"1" * MANY + b"2"
    await wait_all_tasks_blocked()
    assert (sent, flushed) == ([None], [None])


@pytest.mark.parametrize("queued", [b"", b"2" * CHUNK], ids=["nothing queued", "bytes queued"])
async def test_a_flush_that_waits_for_another_task_ends_when_that_task_has_sent_everything(
    line: Line, queued: bytes
) -> None:
    line.nursery.start_soon(line.outbox.put, b"1" * MANY)
    await wait_all_tasks_blocked()
    if queued:
        await line.outbox.put(queued)
    flushed = trio.Event()

    async def flush() -> None:
        await line.outbox.flush()
        flushed.set()

    line.nursery.start_soon(flush)
    await wait_all_tasks_blocked()
    assert not flushed.is_set()
    assert len(await line.read(MANY + len(queued))) == MANY + len(queued)
    with trio.fail_after(5):
        await flushed.wait()


async def test_a_sender_gets_room_as_soon_as_the_bytes_before_its_own_are_being_written() -> None:
    done: list[Any] = []
    async with trio.open_nursery() as nursery:
        line = Line(nursery, limit=MANY)
        for number in range(4):  # one is being written, one is queued, two wait
            nursery.start_soon(partial(outcome, line.outbox.put, b"%d" % number * MANY, into=done))
            await wait_all_tasks_blocked()
        assert done == [None]
        for returned in (3, 4):
            assert len(await line.read(MANY)) == MANY
            await wait_all_tasks_blocked()
            assert done == [None] * returned
        assert len(await line.read(2 * MANY)) == 2 * MANY
        line.close()


async def test_tasks_get_room_in_the_order_of_their_calls() -> None:
    done: list[str] = []

    async def put(outbox: Outbox, name: str, size: int) -> None:
        await outbox.put(name.encode() * size)
        done.append(name)

    async with trio.open_nursery() as nursery:
        line = Line(nursery, limit=CHUNK)
        for name, size in (("a", MANY), ("b", CHUNK), ("c", MANY), ("d", 1), ("e", 1)):
            nursery.start_soon(put, line.outbox, name, size)  # a is being written, b is queued, the others wait
            await wait_all_tasks_blocked()
        assert done == ["b"]
        sent = await line.read(2 * MANY + CHUNK + 2)
        await wait_all_tasks_blocked()
        assert sent == b"a" * MANY + b"b" * CHUNK + b"c" * MANY + b"de"
        assert sorted(done) == ["a", "b", "c", "d", "e"]
        line.close()


async def test_small_packets_without_end_do_not_keep_a_large_one_from_being_sent(line: Line) -> None:
    async def put_without_end() -> None:
        outcomes: list[Any] = [None]
        while outcomes[-1] is None:
            await outcome(line.outbox.put, b"s" * 1000, into=outcomes)

    async with trio.open_nursery() as putting:
        for _ in range(20):
            putting.start_soon(put_without_end)
        await wait_all_tasks_blocked()
        putting.start_soon(partial(outcome, line.outbox.put, b"L" * (2 * CHUNK), into=[]))
        with trio.fail_after(10):
            while b"L" not in await line.read(CHUNK):
                pass
        line.outbox.poison()


async def test_uncorking_leaves_what_the_peer_does_not_take_at_once_to_a_task(line: Line) -> None:
    line.outbox.cork()
    line.outbox._queue.append(b"1" * MANY)
    line.outbox._queued = MANY
    line.outbox.uncork()
    await line.outbox.put(b"2")
    assert await line.read(MANY + 1) == b"1" * MANY + b"2"


async def test_a_peer_that_has_left_is_told_to_the_one_who_sends_and_to_all_after(line: Line) -> None:
    line.peer.close()
    with pytest.raises(ConnectionLost):
        await line.outbox.put(b"one")
    assert line.outbox.poisoned
    with pytest.raises(ConnectionLost, match="broke before"):
        await line.outbox.put(b"two")
    line.outbox.cork()
    assert not line.outbox.hold(b"three")
    with pytest.raises(ConnectionLost, match="broke before"):
        await line.outbox.put(b"three")


async def test_a_peer_that_has_left_is_found_out_quietly_when_uncorking(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.hold(b"one")
    line.peer.close()
    line.outbox.uncork()
    assert line.outbox.poisoned
    with pytest.raises(ConnectionLost):
        await line.outbox.put(b"two")


async def test_a_peer_that_leaves_in_the_middle_of_a_write_is_told_to_all_who_wait(line: Line) -> None:
    done: list[Any] = []
    for _ in range(3):
        line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=done))
    await wait_all_tasks_blocked()
    line.peer.close()
    await wait_all_tasks_blocked()
    assert [type(each) for each in done] == [ConnectionLost] * 3
    assert line.outbox.poisoned
    assert len(line.deadlines) == 0


async def test_a_task_that_sends_the_rest_after_uncorking_ends_quietly_when_the_peer_leaves(line: Line) -> None:
    line.outbox.cork()
    line.outbox._queue.append(b"1" * MANY)
    line.outbox._queued = MANY
    line.outbox.uncork()
    await wait_all_tasks_blocked()
    line.peer.close()
    await wait_all_tasks_blocked()
    assert line.outbox.poisoned


async def test_a_cancelled_write_poisons_the_connection_and_not_one_more_byte_is_sent(line: Line) -> None:
    with trio.CancelScope() as scope:
        line.nursery.start_soon(_cancel_when_blocked, scope)
        await line.outbox.put(b"1" * MANY)
    assert scope.cancelled_caught
    assert line.outbox.poisoned
    sends = line.transport.sends
    with pytest.raises(ConnectionLost):
        await line.outbox.put(b"2")
    assert line.transport.sends == sends
    arrived = await line.read(MANY + 1)
    assert len(arrived) < MANY
    assert set(arrived) == {ord("1")}


async def test_poisoning_tells_who_waits_and_drops_what_is_queued(line: Line) -> None:
    done: list[Any] = []
    for _ in range(2):
        line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=done))
    await wait_all_tasks_blocked()
    line.outbox.poison()
    line.outbox.poison()
    await wait_all_tasks_blocked()
    assert [type(each) for each in done] == [ConnectionLost] * 2
    assert len(await line.read(2 * MANY)) < MANY


async def test_a_peer_that_takes_nothing_is_given_up_after_the_deadline(mock_clock: MockClock) -> None:
    done: list[Any] = []
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        nursery.start_soon(line.deadlines.run)
        nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=done))
        await wait_all_tasks_blocked()
        mock_clock.jump(9.9)
        await wait_all_tasks_blocked()
        assert not line.outbox.poisoned
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert line.outbox.poisoned
        assert [type(each) for each in done] == [ConnectionLost]
        line.close()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_a_chunk_in_time_gets_the_whole_period_for_the_next(mock_clock: MockClock) -> None:
    done: list[Any] = []
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        nursery.start_soon(line.deadlines.run)
        nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=done))
        arrived = b""
        while len(arrived) < MANY:
            await wait_all_tasks_blocked()
            mock_clock.jump(9)
            await wait_all_tasks_blocked()
            assert not line.outbox.poisoned
            arrived += await line.read(min(8 * CHUNK, MANY - len(arrived)))
        await wait_all_tasks_blocked()
        assert done == [None]
        assert len(line.deadlines) == 0
        line.close()
        nursery.cancel_scope.cancel()


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_sender_is_free_when_its_own_bytes_are_out_however_much_others_send(line: Line) -> None:
    line.outbox._limit = MANY
    first: list[Any] = []
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=first))
    await wait_all_tasks_blocked()
    await line.outbox.put(b"2" * MANY)
    assert await line.read(MANY) == b"1" * MANY
    await wait_all_tasks_blocked()
    assert first == [None]
    assert await line.read(MANY) == b"2" * MANY


async def test_cancelling_a_sender_whose_bytes_are_out_breaks_nothing(line: Line) -> None:
    line.outbox._limit = MANY
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await line.outbox.put(b"1" * MANY)
            await trio.sleep_forever()

    line.nursery.start_soon(first)
    await wait_all_tasks_blocked()
    await line.outbox.put(b"2" * MANY)
    assert await line.read(MANY) == b"1" * MANY
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert await line.read(MANY) == b"2" * MANY
    assert not line.outbox.poisoned


async def test_what_is_held_back_is_sent_at_once_where_that_needs_no_waiting(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.flush_now()
    assert line.transport.sends == 0
    assert line.outbox.hold(b"one")
    assert line.outbox.hold(b"two")
    assert line.outbox.flush_now()
    assert (line.transport.sends, line.read_now()) == (1, b"onetwo")


async def test_what_is_not_taken_at_once_is_kept_for_flush_in_order(line: Line) -> None:
    while line.transport.send_now(b" "):
        pass  # until the socket takes no more
    line.outbox.cork()
    assert line.outbox.hold(b"one")
    assert not line.outbox.flush_now()
    assert line.outbox.hold(b"two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.outbox.flush)
        await wait_all_tasks_blocked()
        assert not line.outbox.flush_now()
        data = b""
        while not data.endswith(b"onetwo"):
            await trio.lowlevel.wait_readable(line.peer)
            data += line.peer.recv(CHUNK)


async def test_nothing_is_sent_at_once_to_a_peer_that_has_left(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.hold(b"one")
    line.outbox.poison()
    assert not line.outbox.flush_now()
    line.outbox.cork()
    assert not line.outbox.hold(b"two")


async def test_what_is_put_in_now_is_sent_at_once_in_one_piece(line: Line) -> None:
    assert line.outbox.put_now(b"one")
    assert (line.transport.sends, line.read_now(), line.outbox.sent) == (1, b"one", 3)


async def test_what_is_put_in_now_while_corked_is_held_back(line: Line) -> None:
    line.outbox.cork()
    assert line.outbox.hold(b"one")
    assert line.outbox.put_now(b"two")
    assert line.transport.sends == 0
    line.outbox.uncork()
    assert (line.transport.sends, line.read_now()) == (1, b"onetwo")


@pytest.mark.parametrize("held", [b"", b"held"])
async def test_more_than_may_be_held_back_is_sent_at_once_behind_what_is_held_back(line: Line, held: bytes) -> None:
    line.outbox.cork()
    if held:
        assert line.outbox.hold(held)
    assert line.outbox.put_now(b"1" * (CHUNK + 1))
    assert line.transport.sends == 1
    assert not line.outbox.hold(b"2")
    assert await line.read(len(held) + CHUNK + 1) == held + b"1" * (CHUNK + 1)


async def test_what_is_put_in_now_goes_behind_a_write_as_long_as_there_is_room(line: Line) -> None:
    assert line.outbox.put_now(b"1" * MANY)
    sends = line.transport.sends
    assert line.outbox.put_now(b"2" * (line.limit - 1))
    assert line.outbox.put_now(b"3")
    assert not line.outbox.put_now(b"4")
    assert line.transport.sends == sends
    assert await line.read(MANY + line.limit) == b"1" * MANY + b"2" * (line.limit - 1) + b"3"
    await line.outbox.flush()
    assert line.outbox.put_now(b"5")
    assert line.read_now() == b"5"
    assert line.outbox.sent == MANY + line.limit + 1


async def test_nothing_is_put_in_now_before_a_task_that_waits_for_room(line: Line) -> None:
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"1" * MANY, into=[]))
    await wait_all_tasks_blocked()
    line.nursery.start_soon(lambda: outcome(line.outbox.put, b"2" * (line.limit + 1), into=[]))
    await wait_all_tasks_blocked()
    assert not line.outbox.put_now(b"3")
    assert await line.read(MANY + line.limit + 1) == b"1" * MANY + b"2" * (line.limit + 1)


async def test_a_peer_that_has_left_is_told_to_the_one_who_puts_in_now_and_to_all_after(line: Line) -> None:
    line.peer.close()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            line.outbox.put_now(b"one")
        assert line.outbox.poisoned
    assert (line.transport.sends, line.outbox.queued) == (1, 0)
