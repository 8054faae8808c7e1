from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core.net.deadlines import Deadlines

PERIOD = 10.0


@dataclass
class Watch:
    """Running deadlines, and the time and holder of each that expired."""

    clock: MockClock
    expired: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deadlines: Deadlines[str] = Deadlines(PERIOD, self.note)
        self.begin = trio.current_time()

    @property
    def now(self) -> float:
        return round(trio.current_time() - self.begin, 6)

    def note(self, holder: str) -> None:
        self.expired.append((self.now, holder))

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and run all tasks that are due."""
        await wait_all_tasks_blocked()
        self.clock.jump(seconds)
        await wait_all_tasks_blocked()


@pytest.fixture
async def watch(mock_clock: MockClock) -> AsyncIterator[Watch]:
    watch = Watch(mock_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.deadlines.run)
        yield watch
        nursery.cancel_scope.cancel()


async def test_a_holder_expires_after_the_period_and_not_before(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.start("a")
    await watch.advance(9.9)
    assert watch.expired == []
    await watch.advance(0.1)
    assert watch.expired == [(10.0, "a")]
    await watch.advance(50)
    assert watch.expired == [(10.0, "a")]


async def test_a_holder_that_is_stopped_does_not_expire(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.start("a")
    await watch.advance(9)
    watch.deadlines.stop("a")
    watch.deadlines.stop("a")
    watch.deadlines.stop("never started")
    await watch.advance(50)
    assert watch.expired == []


async def test_starting_again_does_not_extend_a_deadline(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.start("a")
    await watch.advance(9)
    watch.deadlines.start("a")
    await watch.advance(1)
    assert watch.expired == [(10.0, "a")]


async def test_stopping_and_starting_gives_the_whole_period_again(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.start("a")
    await watch.advance(9)
    watch.deadlines.stop("a")
    watch.deadlines.start("a")
    await watch.advance(9.9)
    assert watch.expired == []
    await watch.advance(0.1)
    assert watch.expired == [(19.0, "a")]


async def test_each_holder_expires_at_its_own_time(mock_clock: MockClock, watch: Watch) -> None:
    for name in "abc":
        watch.deadlines.start(name)
        await watch.advance(3)
    watch.deadlines.stop("b")
    watch.deadlines.start("b")
    assert len(watch.deadlines) == 3
    for _ in range(20):
        await watch.advance(0.5)
    assert watch.expired == [(10.0, "a"), (16.0, "c"), (19.0, "b")]
    assert len(watch.deadlines) == 0


async def test_a_holder_started_while_nothing_was_kept_expires_in_time(mock_clock: MockClock, watch: Watch) -> None:
    await watch.advance(7)
    watch.deadlines.start("a")
    for _ in range(9):
        await watch.advance(1)
    assert watch.expired == []
    await watch.advance(1)
    assert watch.expired == [(17.0, "a")]


async def test_all_that_are_due_expire_in_the_order_in_which_they_were_started(
    mock_clock: MockClock, watch: Watch
) -> None:
    for number in range(5):
        watch.deadlines.start(f"{number}")
    await watch.advance(100)
    assert [holder for _, holder in watch.expired] == ["0", "1", "2", "3", "4"]


async def test_what_expires_may_start_and_stop_others(mock_clock: MockClock) -> None:
    expired: list[str] = []

    def note(holder: str) -> None:
        expired.append(holder)
        deadlines.stop("b")
        if len(expired) < 3:
            deadlines.start("a")

    deadlines = Deadlines(PERIOD, note)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        deadlines.start("a")
        deadlines.start("b")
        for _ in range(4):
            await wait_all_tasks_blocked()
            mock_clock.jump(PERIOD)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert expired == ["a", "a", "a"]
    assert len(deadlines) == 0


async def test_starting_and_stopping_wakes_nobody(mock_clock: MockClock, watch: Watch) -> None:
    wakes = 0

    class Counting(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal wakes
            wakes += "Deadlines.run" in task.name

    await wait_all_tasks_blocked()
    instrument = Counting()
    trio.lowlevel.add_instrument(instrument)
    try:
        for number in range(100):
            watch.deadlines.start(f"{number}")
            watch.deadlines.stop(f"{number}")
            await trio.lowlevel.checkpoint()
        assert wakes == 0
        watch.deadlines.start("a")
        await watch.advance(20)
        assert wakes >= 1
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def test_a_period_that_is_shortened_holds_from_then_on(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.start("a")
    await watch.advance(1)
    watch.deadlines.shorten(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.deadlines.run)
        await watch.advance(1)
        watch.deadlines.start("b")
        await watch.advance(1)
        assert watch.expired == [(3.0, "a")]
        await watch.advance(1)
        assert watch.expired == [(3.0, "a"), (4.0, "b")]
        nursery.cancel_scope.cancel()


async def test_a_period_is_not_made_longer(mock_clock: MockClock, watch: Watch) -> None:
    watch.deadlines.shorten(100)
    watch.deadlines.start("a")
    await watch.advance(10)
    assert watch.expired == [(10.0, "a")]
