"""Tasks of one peer each: a failure is logged and drops the peer, and a cancellation of the server passes through."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing
from cancellation import make_cancelled

from asyncapy_core.logs import SessionLog
from asyncapy_core.server.isolation import CancellationWatch, PeerTasks, is_cancellation, is_descendant


class Lines(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.lines.append(record.getMessage())
        return False


class CountingPeer:
    """A peer that counts the calls of drop."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = SessionLog(log, "UUID")
        self.dropped = 0

    def drop(self) -> None:
        self.dropped += 1


class Tasks:
    """PeerTasks in a nursery, a peer for them, and their log lines."""

    def __init__(self, nursery: trio.Nursery) -> None:
        logger = logging.Logger("test", logging.INFO)  # noqa: LOG001  # a registered logger would be shared
        lines = Lines()
        logger.addFilter(lines)
        self.lines = lines.lines
        self.watch = CancellationWatch()
        self.peers = PeerTasks(nursery, self.watch, logger)
        self.peer = CountingPeer(logger)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with trio.open_nursery() as nursery:
        made = Tasks(nursery)
        await nursery.start(made.watch.run)
        yield made
        nursery.cancel_scope.cancel()


async def fail(error: BaseException) -> None:
    raise error


async def test_a_task_that_fails_drops_its_peer_and_no_other_task(tasks: Tasks) -> None:
    other = CountingPeer(tasks.peer.log.logger)
    tasks.peers.start(other, trio.sleep_forever)
    for error in (ValueError("no"), SystemExit(1), GeneratorExit(), await make_cancelled()):
        tasks.peers.start(tasks.peer, fail, error)
        await trio.testing.wait_all_tasks_blocked()
    assert (tasks.peer.dropped, other.dropped) == (4, 0)
    assert [line for line in tasks.lines if "(UUID) {Client handler} The session failed: ValueError (no)" in line]


async def test_a_call_that_fails_drops_its_peer_where_it_has_one(tasks: Tasks) -> None:
    def fail_now() -> None:
        raise SystemExit

    tasks.peers.call(fail_now, peer=tasks.peer)
    tasks.peers.call(fail_now)
    assert tasks.peer.dropped == 1
    assert len([line for line in tasks.lines if "failed: SystemExit" in line]) == 1, "at most one line per second"


async def test_a_task_that_cannot_be_started_drops_its_peer() -> None:
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
    tasks.peers.start(tasks.peer, trio.sleep_forever)
    assert tasks.peer.dropped == 1


async def test_a_cancellation_is_the_servers_from_the_moment_of_the_cancel() -> None:
    async with trio.open_nursery() as outer:
        tasks = Tasks(outer)
        await outer.start(tasks.watch.run)
        error = await make_cancelled()
        assert not tasks.peers.is_servers(error)
        outer.cancel_scope.cancel()
        assert tasks.peers.is_servers(error), "immediately, before any task runs"


async def test_a_cancellation_from_outside_is_the_servers_too() -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            await nursery.start(tasks.watch.run)
            scope.cancel()
            assert tasks.watch.cancelled
    assert scope.cancelled_caught


async def test_a_group_is_split_into_the_servers_part_and_the_failure(tasks: Tasks) -> None:
    own, foreign = ValueError(), await make_cancelled()
    group = BaseExceptionGroup("both", [own, ExceptionGroup("inner", [TypeError()]), foreign])
    before = tasks.peers.split(group)
    assert before[0] is None
    assert isinstance(before[1], BaseExceptionGroup)
    assert len(before[1].exceptions) == 3
    tasks.watch.cancelled = True
    through, failure = tasks.peers.split(group)
    assert isinstance(through, BaseExceptionGroup)
    assert isinstance(failure, ExceptionGroup)
    assert through.exceptions == (foreign,)
    assert len(failure.exceptions) == 2
    assert tasks.peers.split(own) == (None, own)
    assert tasks.peers.split(foreign) == (foreign, None)


def test_a_generator_exit_goes_through_outside_of_trio_only() -> None:
    async def inside() -> bool:
        async with trio.open_nursery() as nursery:
            return Tasks(nursery).peers.is_servers(GeneratorExit())

    async def make() -> PeerTasks:
        async with trio.open_nursery() as nursery:
            return Tasks(nursery).peers

    assert trio.run(inside) is False
    assert trio.run(make).is_servers(GeneratorExit()) is True


async def test_an_exception_that_cannot_be_examined_drops_its_peer(tasks: Tasks) -> None:
    class Hostile(BaseExceptionGroup[Any]):
        def split(self, condition: Any) -> Any:
            return self, None  # claims that all of it is a cancellation

    tasks.peers.start(tasks.peer, fail, Hostile("several", [ValueError()]))
    await trio.testing.wait_all_tasks_blocked()
    assert tasks.peer.dropped == 1
    assert tasks.lines == ["(UUID) {Client handler} The session failed: ValueError ()"]


async def test_what_is_a_cancellation() -> None:
    error = await make_cancelled()
    assert is_cancellation(error)
    assert is_cancellation(BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [error])]))
    assert not is_cancellation(ValueError())
    assert not is_cancellation(ExceptionGroup("", [ValueError()]))


async def test_a_task_is_within_itself_and_within_those_above_it() -> None:
    me = trio.lowlevel.current_task()
    found: list[trio.lowlevel.Task] = []

    async def below() -> None:
        found.append(trio.lowlevel.current_task())

    async def middle() -> None:
        found.append(trio.lowlevel.current_task())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(below)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(middle)
    (parent, child) = found
    assert is_descendant(me, me)
    assert is_descendant(child, parent)
    assert is_descendant(child, me)
    assert not is_descendant(me, child)
    assert not is_descendant(child, None)


# Async generators


class Cursor:
    """Notes the tasks that close its generators."""

    def __init__(self) -> None:
        self.closed_by: list[trio.lowlevel.Task] = []

    async def rows(self) -> AsyncIterator[int]:
        try:
            with trio.CancelScope():
                yield 1
        finally:
            self.closed_by.append(trio.lowlevel.current_task())


async def test_a_dropped_generator_is_closed_by_the_task_that_began_it(tasks: Tasks) -> None:
    cursor = Cursor()
    task: list[trio.lowlevel.Task] = []

    async def work() -> None:
        task.append(trio.lowlevel.current_task())
        async for _ in cursor.rows():
            break
        assert tasks.peers.dropped.by_task
        await tasks.peers.close_dropped(tasks.peer)
        assert not tasks.peers.dropped.by_task

    with tasks.peers.dropped.collected():
        tasks.peers.start(tasks.peer, work)
        await trio.testing.wait_all_tasks_blocked()
    assert cursor.closed_by == task
    assert tasks.peer.dropped == 0
    assert [line for line in tasks.lines if "'Cursor.rows' was left open" in line]


async def test_a_generator_that_a_task_drops_at_its_end_is_closed_before_it_ends(tasks: Tasks) -> None:
    cursor = Cursor()

    async def work() -> None:
        rows = cursor.rows()
        async for _ in rows:
            break

    with tasks.peers.dropped.collected():
        tasks.peers.start(tasks.peer, work)
        await trio.testing.wait_all_tasks_blocked()
    assert len(cursor.closed_by) == 1


async def test_a_generator_that_is_kept_is_left_open(tasks: Tasks) -> None:
    cursor = Cursor()
    rows = cursor.rows()

    async def work() -> None:
        async for _ in rows:
            break
        await tasks.peers.close_dropped(tasks.peer)

    with tasks.peers.dropped.collected():
        tasks.peers.start(tasks.peer, work)
        await trio.testing.wait_all_tasks_blocked()
    assert cursor.closed_by == []
    with pytest.raises(RuntimeError, match="unrelated"):  # trio raises this, as the task of the generator has ended
        await rows.aclose()  # type: ignore[attr-defined]  # rows is a generator


async def test_a_generator_whose_clean_up_fails_is_logged(tasks: Tasks) -> None:
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise SystemExit(3)

    async def work() -> None:
        async for _ in rows():
            break

    with tasks.peers.dropped.collected():
        tasks.peers.start(tasks.peer, work)
        await trio.testing.wait_all_tasks_blocked()
    assert [line for line in tasks.lines if "rows' failed: SystemExit (3)" in line]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_generators_of_other_tasks_are_left_to_trio(tasks: Tasks) -> None:
    closed_by: list[trio.lowlevel.Task] = []

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed_by.append(trio.lowlevel.current_task())

    async def work() -> None:
        async for _ in rows():
            break
        assert not tasks.peers.dropped.by_task

    with tasks.peers.dropped.collected():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
    assert len(closed_by) == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_generator_of_a_task_with_a_nursery_waits_for_the_end_of_that_task(tasks: Tasks) -> None:
    closed = trio.Event()
    go_on = trio.Event()

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    async def work() -> None:
        async with trio.open_nursery():  # the generator could have opened it
            async for _ in rows():
                break
            await go_on.wait()

    with tasks.peers.dropped.collected():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            assert not closed.is_set()
            go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert closed.is_set()


async def test_the_hooks_are_those_of_trio_again_when_the_last_collection_ends(tasks: Tasks) -> None:
    before = sys.get_asyncgen_hooks()
    first, second = ExitStack(), ExitStack()
    first.enter_context(tasks.peers.dropped.collected())
    hooks = sys.get_asyncgen_hooks()
    second.enter_context(tasks.peers.dropped.collected())
    assert hooks == sys.get_asyncgen_hooks() != before
    first.close()
    assert sys.get_asyncgen_hooks() == hooks
    second.close()
    assert sys.get_asyncgen_hooks() == before
