"""Blocking calls in threads: the caller waits for them until the server ends."""

from __future__ import annotations

import logging
import threading

import pytest
import trio
import trio.testing

from asyncapy_core.server.threads import ThreadCalls


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
