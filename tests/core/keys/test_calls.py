"""The queue of calls to a blocking store. The clock jumps; the threads wait for events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core import APIKeyFactory, KeyRecord, MemoryKeyStore
from asyncapy_core.errors import KeyStoreUnavailable
from asyncapy_core.keys.calls import CallQueue, _Turn

TIMEOUT = 10.0


class Held:
    """Calls that wait in their threads until they are released."""

    def __init__(self) -> None:
        self.began: list[object] = []
        self.outcomes: dict[object, object] = {}
        self._begins = threading.Semaphore(0)
        self._release: dict[object, threading.Event] = {}

    def call(self, name: object, error: Exception | None = None) -> Callable[[], object]:
        release = self._release[name] = threading.Event()

        def run() -> object:
            self.began.append(name)
            self._begins.release()
            assert release.wait(20)
            if error is not None:
                raise error
            return name

        return run

    async def run(self, queue: CallQueue, name: object, error: Exception | None = None) -> None:
        """Run a call, and note its result or its exception."""
        try:
            network = name[0] if isinstance(name, tuple) else ""
            self.outcomes[name] = await queue.run(self.call(name, error), TIMEOUT, network=network)
        except Exception as caught:
            self.outcomes[name] = caught

    async def begin(self, number: int) -> None:
        """Wait until this number of further calls have begun."""
        for _ in range(number):
            assert await trio.to_thread.run_sync(self._begins.acquire, True, 20)
        await wait_all_tasks_blocked()

    async def end(self, *names: object) -> None:
        """Release calls, one after the other, and wait for their outcomes."""
        for name in names:
            self._release[name].set()
            while name not in self.outcomes:  # the clock does not move by itself
                await trio.lowlevel.checkpoint()

    def release_all(self) -> None:
        for release in self._release.values():
            release.set()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.release_all()


@contextmanager
def fails(message: str) -> Iterator[None]:
    with pytest.raises(KeyStoreUnavailable, match=message):
        yield


async def test_calls_begin_in_their_order_and_few_at_a_time(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=2)
    async with trio.open_nursery() as nursery:
        for name in range(6):
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        await held.begin(2)
        assert (queue.running, queue.waiting) == (2, 4)
        for name in range(4):
            await held.end(name)
            await held.begin(1)
        assert set(held.began[:2]) == {0, 1}, "two threads begin at a time, in any order"
        assert held.began[2:] == [2, 3, 4, 5]
        await held.end(4, 5)
    assert held.outcomes == {name: name for name in range(6)}
    assert (queue.running, queue.waiting) == (0, 0)


async def test_the_time_in_the_queue_does_not_count(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        for name in range(4):
            await held.begin(1)
            mock_clock.jump(0.9 * TIMEOUT)
            await held.end(name)
    assert held.outcomes == {name: name for name in range(4)}


async def test_a_call_that_takes_too_long_fails_and_its_thread_counts_until_it_ends(
    held: Held, mock_clock: MockClock
) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run, queue, "hangs")
        await held.begin(1)
        mock_clock.jump(TIMEOUT)
        await wait_all_tasks_blocked()
        assert "did not answer within 10 s" in str(held.outcomes["hangs"])
        assert queue.running == 1
        nursery.start_soon(held.run, queue, "next")
        await wait_all_tasks_blocked()
        assert held.began == ["hangs"]
        held._release["hangs"].set()
        await held.begin(1)
        await held.end("next")
    assert queue.running == 0


async def test_while_the_store_hangs_no_call_waits_longer_than_its_timeout(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run, queue, "hangs")
        await held.begin(1)
        mock_clock.jump(TIMEOUT / 2)
        nursery.start_soon(held.run, queue, "waits")
        await wait_all_tasks_blocked()
        mock_clock.jump(TIMEOUT * 0.6)
        await wait_all_tasks_blocked()
        assert set(held.outcomes) == {"hangs"}
        mock_clock.jump(TIMEOUT * 0.4)
        await wait_all_tasks_blocked()
        assert "did not answer within 10 s" in str(held.outcomes["waits"])
        assert queue.waiting == 0
        held.release_all()
    assert held.began == ["hangs"]


@pytest.mark.parametrize(
    ("error", "waits"), [(KeyError(), True), (ValueError(), True), (KeyStoreUnavailable("away"), False)]
)
async def test_a_failure_of_the_store_other_than_its_absence_is_an_answer(
    held: Held, mock_clock: MockClock, error: Exception, waits: bool
) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        for name, failure in (("fails", error), ("hangs", None), ("waits", None)):
            nursery.start_soon(held.run, queue, name, failure)
            await wait_all_tasks_blocked()
        await held.begin(1)
        mock_clock.jump(0.9 * TIMEOUT)
        await held.end("fails")
        await held.begin(1)
        mock_clock.jump(0.2 * TIMEOUT)
        await wait_all_tasks_blocked()
        assert held.outcomes["fails"] is error
        assert ("waits" not in held.outcomes) is waits
        held.release_all()


async def test_a_call_beyond_the_longest_queue_fails_immediately(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1, longest=2)
    async with trio.open_nursery() as nursery:
        for name in range(3):
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        with fails("2 calls wait for the key store, the most that may"):
            await queue.run(held.call("beyond"), TIMEOUT)
        held.release_all()
    assert held.outcomes == {0: 0, 1: 1, 2: 2}
    assert "beyond" not in held.began


async def test_a_call_that_is_cancelled_gives_up_its_place(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run, queue, "first")
        await held.begin(1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(held.run, queue, "cancelled")
                await wait_all_tasks_blocked()
                nursery.start_soon(held.run, queue, "last")
                await wait_all_tasks_blocked()
                assert queue.waiting == 2
                scope.cancel()
        assert queue.waiting == 1
        await held.end("first")
        await held.begin(1)
        await held.end("last")
    assert held.began == ["first", "last"]
    assert queue.running == 0


def turn(queue: CallQueue, network: str = "") -> _Turn:
    return _Turn(queue, trio.CancelScope(), TIMEOUT, network)


async def test_a_call_that_is_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    queue = CallQueue(threads=1)
    first, second = turn(queue), turn(queue)
    await queue.enter(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.enter, second)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        queue.leave(first)  # before the cancelled task runs
        assert second.began
    assert (queue.running, queue.waiting) == (0, 0)


async def test_networks_take_turns(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    names = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("c", 1), ("a", 4)]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        for number in range(len(names)):
            await held.begin(1)
            await held.end(held.began[number])
    assert held.began == [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("a", 3), ("b", 2), ("a", 4)]


async def test_a_network_that_comes_back_waits_behind_the_others(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        for name in [("a", 1), ("a", 2), ("b", 1), ("b", 2)]:
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        await held.begin(1)
        await held.end(("a", 1))
        await held.begin(1)  # the last waiting call of a
        nursery.start_soon(held.run, queue, ("a", 3))
        await wait_all_tasks_blocked()
        for number in range(1, 5):
            await held.end(held.began[number])
            if number < 4:
                await held.begin(1)
    assert held.began == [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 2)]


async def test_a_network_occupies_three_quarters_of_the_threads(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=8)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(held.run, queue, ("a", number))
        await held.begin(6)
        assert (queue.running, queue.waiting) == (6, 4)
        nursery.start_soon(held.run, queue, ("b", 0))
        await held.begin(1)
        for number in range(3):
            nursery.start_soon(held.run, queue, f"no network {number}")
            await wait_all_tasks_blocked()
        await held.begin(1)
        assert (queue.running, queue.waiting) == (8, 6)
        await held.end(("b", 0))
        await held.begin(1)
        assert [name for name in held.began if isinstance(name, str)] == ["no network 0", "no network 1"]
        held.release_all()
    assert len(held.outcomes) == 14
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_full_queue_refuses_the_newest_call_of_the_network_with_the_most(held: Held) -> None:
    queue = CallQueue(threads=1, longest=4)
    async with trio.open_nursery() as nursery:
        for name in [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 1)]:
            nursery.start_soon(held.run, queue, name)
            await wait_all_tasks_blocked()
        with fails("4 calls wait for the key store, the most that may; try again"):
            await queue.run(held.call(("a", 4)), TIMEOUT, network="a")
        nursery.start_soon(held.run, queue, ("c", 1))
        await wait_all_tasks_blocked()
        assert str(held.outcomes.pop(("a", 3))) == "4 calls wait for the key store, the most that may; try again"
        with fails("the most that may"):
            await queue.run(held.call(("b", 2)), TIMEOUT, network="b")
        held.release_all()
    assert list(held.outcomes) == [("a", 0), ("a", 1), ("b", 1), ("c", 1), ("a", 2)]
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_queue(held: Held) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run, queue, ("a", 0))
        await held.begin(1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(held.run, queue, ("b", 0))
                await wait_all_tasks_blocked()
                scope.cancel()
        assert queue.waiting == 0
        held.release_all()


async def test_a_call_without_a_limit_waits(held: Held, mock_clock: MockClock) -> None:
    queue = CallQueue(threads=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run, queue, "first")
        await held.begin(1)
        results: list[Any] = []

        async def wait() -> None:
            results.append(await queue.run(held.call("second"), float("inf")))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        mock_clock.jump(TIMEOUT / 2)
        await held.end("first")
        await held.begin(1)
        mock_clock.jump(1e9)
        held.release_all()
    assert results == ["second"]


def test_threads_that_an_earlier_run_abandoned_leave_the_next_run_all_threads() -> None:
    answer = threading.Event()

    class Hanging(MemoryKeyStore):
        blocking = True
        timeout = 0.02

        def get(self, digest: str) -> KeyRecord:
            answer.wait(20)
            return super().get(digest)

    factory = APIKeyFactory(store=Hanging())
    key = factory.issue()

    async def fill() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(8):

                async def ask() -> None:
                    with fails("did not answer"):
                        await factory.aget(key)

                nursery.start_soon(ask)

    trio.run(fill)
    answer.set()
    assert trio.run(factory.aget, key) == {}
