"""Blocking calls in threads: the caller waits for them until the server ends."""

from __future__ import annotations

import functools
import logging
import threading

import pytest
import trio
import trio.testing

from asyncapy_core.server.threads import ThreadCalls, begin_session


@pytest.fixture
def calls() -> ThreadCalls:
    return ThreadCalls(logging.getLogger("test"))


@pytest.mark.parametrize("cancellable", [True, False])
async def test_a_call_returns_or_raises_as_its_function(calls: ThreadCalls, cancellable: bool) -> None:
    def fail() -> None:
        raise OSError("no disk")

    assert await calls.run(threading.get_ident, cancellable=cancellable, limiter=None) != threading.get_ident()
    with pytest.raises(OSError, match="no disk"):
        await calls.run(fail, cancellable=cancellable, limiter=None)


async def test_a_call_is_waited_for_when_it_is_cancelled_and_left_when_the_server_ends(calls: ThreadCalls) -> None:
    go_on = threading.Event()
    with trio.fail_after(10):
        scope = trio.CancelScope()

        async def call() -> None:
            with scope:
                await calls.run(go_on.wait, cancellable=False, limiter=None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            calls.abandon()
    assert scope.cancelled_caught
    go_on.set()


async def test_calls_that_begin_while_the_server_ends_are_left_too(calls: ThreadCalls) -> None:
    calls.abandon()
    go_on = threading.Event()
    with trio.move_on_after(0.01) as scope:
        await calls.run(go_on.wait, cancellable=False, limiter=None)
    assert scope.cancelled_caught
    go_on.set()


async def test_a_limiter_is_heeded_and_given_back(calls: ThreadCalls) -> None:
    limiter = trio.CapacityLimiter(1)
    go_on = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: calls.run(go_on.wait, cancellable=False, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 1
        with trio.move_on_after(0.01) as scope:
            await calls.run(lambda: None, cancellable=False, limiter=limiter)
        assert scope.cancelled_caught, "a call that waits for a thread can be cancelled"
        go_on.set()
    assert limiter.borrowed_tokens == 0


async def test_a_session_gets_a_share_of_the_threads_and_leaves_the_rest_to_others(calls: ThreadCalls) -> None:
    go_on = threading.Event()
    limiter = trio.to_thread.current_default_thread_limiter()
    limiter.total_tokens, total = 8, limiter.total_tokens
    begun = threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert go_on.wait(10)

    async def be_a_session(number: int) -> None:
        begin_session()
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(functools.partial(calls.run, work, cancellable=True, limiter=None))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_a_session, 5)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert limiter.borrowed_tokens == 2
            nursery.start_soon(be_a_session, 1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert limiter.borrowed_tokens == 3
            go_on.set()
    finally:
        limiter.total_tokens = total
    assert limiter.borrowed_tokens == 0


async def test_a_thread_that_is_abandoned_counts_until_it_ends(calls: ThreadCalls) -> None:
    go_on, ended = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    limiter = trio.to_thread.current_default_thread_limiter()
    limiter.total_tokens, total = 4, limiter.total_tokens

    def work() -> None:
        go_on.wait(10)
        token.run_sync_soon(ended.set)

    begin_session()
    try:
        with trio.move_on_after(0.01) as scope:
            await calls.run(work, cancellable=True, limiter=None)
        assert scope.cancelled_caught
        with trio.move_on_after(0.01) as scope:
            await calls.run(work, cancellable=True, limiter=None)
        assert scope.cancelled_caught, "the only place of the session is taken"
        go_on.set()
        await ended.wait()
        with trio.fail_after(10):
            assert await calls.run(lambda: 7, cancellable=True, limiter=None) == 7
            assert await calls.run(lambda: 8, cancellable=False, limiter=None) == 8
    finally:
        limiter.total_tokens = total


async def test_a_call_that_is_cancelled_before_its_thread_gives_its_place_back(calls: ThreadCalls) -> None:
    begin_session()
    limiter = trio.to_thread.current_default_thread_limiter()
    limiter.total_tokens, total = 1, limiter.total_tokens
    try:
        async with limiter:
            with trio.move_on_after(0.01) as scope:
                await calls.run(lambda: 7, cancellable=True, limiter=None)
            assert scope.cancelled_caught
        with trio.fail_after(10):
            assert await calls.run(lambda: 8, cancellable=True, limiter=None) == 8
    finally:
        limiter.total_tokens = total


def test_a_thread_may_outlast_the_run_of_trio() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(10)
        ended.set()

    async def main() -> None:
        begin_session()
        with trio.move_on_after(0.01):
            await ThreadCalls(logging.getLogger("test")).run(work, cancellable=True, limiter=None)

    trio.run(main)
    go_on.set()
    assert ended.wait(10)
