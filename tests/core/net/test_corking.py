from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from asyncapy_core.net.corking import run_with_wait_hook


def noting() -> tuple[list[str], Callable[[], None]]:
    events: list[str] = []
    return events, lambda: events.append("waits")


async def test_what_never_waits_is_run_to_its_end_without_a_note() -> None:
    async def work() -> int:
        return 42

    events, note = noting()
    assert await run_with_wait_hook(work(), note) == 42
    assert events == []


async def test_each_wait_is_noted_before_control_is_given_up() -> None:
    events, note = noting()

    async def work() -> int:
        events.append("works")
        await trio.lowlevel.checkpoint()
        events.append("goes on")
        await trio.lowlevel.checkpoint()
        return 42

    async def other() -> None:
        events.append("another task runs")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert await run_with_wait_hook(work(), note) == 42
    assert events.count("waits") == 2
    assert events[:2] == ["works", "waits"]
    assert events.index("waits") < events.index("another task runs")


@pytest.mark.parametrize("waits", [False, True])
async def test_an_exception_comes_through(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await trio.lowlevel.checkpoint()
        raise ValueError("oops")

    events, note = noting()
    with pytest.raises(ValueError, match="oops"):
        await run_with_wait_hook(work(), note)
    assert events == ["waits"] * waits


async def test_what_a_wait_returns_and_raises_reaches_the_coroutine() -> None:
    sender, receiver = trio.open_memory_channel[str](0)
    seen: list[str] = []

    async def work() -> str:
        seen.append(await receiver.receive())
        try:
            await receiver.receive()
        except trio.EndOfChannel:
            seen.append("end")
        return "done"

    async def send() -> None:
        async with sender:
            await sender.send("value")

    events, note = noting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await run_with_wait_hook(work(), note) == "done"
    assert seen == ["value", "end"]
    assert events


async def test_cancelling_reaches_the_coroutine() -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            await trio.sleep_forever()
        finally:
            cleaned = True

    events, note = noting()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, work, note)
            await wait_all_tasks_blocked()
            assert events == ["waits"]
            scope.cancel()
    assert cleaned


async def test_a_coroutine_may_catch_what_is_thrown_in_and_go_on() -> None:
    async def work() -> str:
        with trio.move_on_after(0):
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return "went on"

    events, note = noting()
    assert await run_with_wait_hook(work(), note) == "went on"
    assert len(events) >= 2


class Wait:
    """Yields once, and returns the value that is sent into it."""

    def __await__(self) -> Any:
        return (yield "request")


@pytest.mark.parametrize("caught", [False, True])
def test_what_is_thrown_in_reaches_the_coroutine(caught: bool) -> None:
    async def work() -> str:
        try:
            return str(await Wait())
        except ValueError:
            if not caught:
                raise
        return f"went on with {await Wait()}"

    events, note = noting()
    stepping = run_with_wait_hook(work(), note)
    assert stepping.send(None) == "request"
    if caught:
        assert stepping.throw(ValueError("oops")) == "request"
        with pytest.raises(StopIteration) as done:
            stepping.send("this")
        assert done.value.value == "went on with this"
    else:
        with pytest.raises(ValueError, match="oops"):
            stepping.throw(ValueError("oops"))
    assert events == ["waits"] * (2 if caught else 1)


def test_closing_closes_the_coroutine() -> None:
    closed: list[bool] = []

    async def work() -> None:
        try:
            await Wait()
        finally:
            closed.append(True)

    events, note = noting()
    stepping = run_with_wait_hook(work(), note)
    assert stepping.send(None) == "request"
    stepping.close()
    assert closed == [True]
    assert events == ["waits"]


async def _run(work: Callable[[], Any], note: Callable[[], None]) -> None:
    await run_with_wait_hook(work(), note)
