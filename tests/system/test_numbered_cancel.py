"""CANCEL in version 23: a cancelled request gets exactly one END, whatever its handler does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered

from asyncapy_core import Server


@dataclass
class Scene:
    """The events of the handlers of one server, and what they wait for."""

    begun: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    free: trio.Event = field(default_factory=trio.Event)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)


async def plainly(scene: Scene, client: Any) -> None:
    await trio.sleep_forever()


async def swallowing(scene: Scene, client: Any) -> None:
    with contextlib.suppress(trio.Cancelled):
        await trio.sleep_forever()
    await client.send({"too": "late"})


async def returning_after_it(scene: Scene, client: Any) -> Any:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        return {"too": "late"}


async def failing_after_it(scene: Scene, client: Any) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("instead of the cancellation")


async def shielded(scene: Scene, client: Any) -> None:
    with trio.CancelScope(shield=True):
        await scene.free.wait()
        await client.send({"too": "late"})


async def in_a_nursery(scene: Scene, client: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)


async def in_a_thread(scene: Scene, client: Any) -> None:
    await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep_forever)


async def ticks() -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield 1
        finally:
            await trio.lowlevel.checkpoint()


async def in_a_generator(scene: Scene, client: Any) -> None:
    async for _ in ticks():
        await trio.sleep_forever()


async def beside_dropped_generators(scene: Scene, client: Any) -> None:
    for _ in range(3):
        async for _ in ticks():
            break
    await trio.sleep_forever()


async def with_last_answers(scene: Scene, client: Any) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await client.send({"too": "late"})
            client.send_nowait({"too": "late"})
            await client.send({"too": "late"}, last=True)


WAITS = [
    plainly,
    swallowing,
    returning_after_it,
    failing_after_it,
    shielded,
    in_a_nursery,
    in_a_thread,
    in_a_generator,
    beside_dropped_generators,
    with_last_answers,
]


async def serve_waiting(
    serve: Serve, wait: Callable[[Scene, Any], Awaitable[Any]] = plainly, **settings: Any
) -> tuple[Running, Scene]:
    """Serve a handler that waits as the function tells if the request has the field ``wait``, and answers the others.

    With the field ``beside``, it waits without an end: so that other requests run in tasks of their own.
    """
    server, scene = Server(port=0, **settings), Scene()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "beside" in packet:
            await trio.sleep_forever()
        number = packet["n"]
        scene.begun.append(number)
        try:
            return await wait(scene, client) if "wait" in packet else {"n": number}
        except trio.Cancelled:
            scene.cancelled.append(number)
            raise
        finally:
            scene.ended.append(number)

    return await serve(server), scene


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 50.0}, {"logging_level": 10}, {"measure": True}], ids=str)
@pytest.mark.parametrize("beside", [0, 1])
async def test_a_cancelled_request_gets_one_end_and_gives_its_place_back(
    serve: Serve, wait: Any, settings: dict[str, Any], beside: int
) -> None:
    running, scene = await serve_waiting(serve, wait, max_in_flight=1 + beside, **settings)
    async with await connect(running) as peer:
        others = [await peer.request(beside=1) for _ in range(beside)]
        for _ in range(3):
            number = await peer.request(wait=1, n=1)
            await until(lambda: scene.begun)
            await trio.testing.wait_all_tasks_blocked()
            await peer.cancel(number)
            await peer.cancel(number)
            assert await peer.read() == Answer("END", number, None)
            later = await peer.request(n=2)  # waits for the place
            scene.free.set()
            assert await peer.answers(later) == [Answer("REPLY", later, {"n": 2})]
            await peer.ping()
            assert scene.ended == [1, 2]
            scene.begun.clear()
            scene.ended.clear()
            scene.free = trio.Event()
        for number in others:
            await peer.cancel(number)
            assert await peer.read() == Answer("END", number, None)
    await running.settle()
    failed = wait is failing_after_it
    assert bool(running.logged("instead of the cancellation")) is failed
    assert failed or not running.logged("ERROR")


async def test_a_request_counts_until_its_handler_has_ended(serve: Serve) -> None:
    running, scene = await serve_waiting(serve, shielded, max_in_flight=1)
    async with await connect(running) as peer:
        number = await peer.request(wait=1, n=1)
        await peer.cancel(number)
        assert await peer.read() == Answer("END", number, None)
        later = await peer.request(n=2)
        await peer.ping()
        assert scene.begun == [1]
        scene.free.set()
        assert await peer.answers(later) == [Answer("REPLY", later, {"n": 2})]


@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 50.0}], ids=str)
async def test_a_request_that_is_cancelled_before_its_task_begins_is_not_handled(
    serve: Serve, settings: dict[str, Any]
) -> None:
    running, scene = await serve_waiting(serve, **settings)
    async with await connect(running) as peer:
        other = await peer.request(beside=1)
        await peer.send(
            b"".join(
                numbered("REQUEST", number, {"n": number, "wait": 1}) + numbered("CANCEL", number)
                for number in range(2, 20)
            )
        )
        assert [await peer.read() for _ in range(2, 20)] == [Answer("END", number, None) for number in range(2, 20)]
        await peer.ping()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.begun == []
        await peer.send(numbered("REQUEST", 20, {"n": 20}))
        assert await peer.read() == Answer("REPLY", 20, {"n": 20})
        await peer.cancel(other)
        assert await peer.read() == Answer("END", other, None)
    await running.settle()
    (handler,) = running.server.statistics().handlers
    assert handler.outcomes == {"ok": 1, "cancelled": 19}


async def test_a_request_that_waits_its_turn_ends_and_is_never_handled(serve: Serve) -> None:
    running, scene = await serve_waiting(serve, max_in_flight=1)
    async with await connect(running) as peer:
        first = await peer.request(wait=1, n=1)
        second, third = await peer.request(wait=1, n=2), await peer.request(n=3)
        await peer.cancel(second)
        await peer.cancel(second)
        assert await peer.read() == Answer("END", second, None)
        await peer.cancel(first)
        assert await peer.read() == Answer("END", first, None)
        assert await peer.answers(third) == [Answer("REPLY", third, {"n": 3})]
        await peer.ping()
    assert scene.begun == [1, 3]


async def test_after_the_cancellation_of_the_first_that_waits_the_next_one_that_fits_begins(serve: Serve) -> None:
    running, scene = await serve_waiting(serve, max_packet=1000)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1, x="x" * 500)
        large, small = await peer.request(n=2, x="x" * 900), await peer.request(n=3)
        await peer.ping()
        assert scene.begun == [1]
        await peer.cancel(large)
        assert await peer.read() == Answer("END", large, None)
        assert await peer.answers(small) == [Answer("REPLY", small, {"n": 3})]


async def test_a_request_that_is_cancelled_before_its_task_begins_is_never_handled(serve: Serve) -> None:
    running, scene = await serve_waiting(serve, max_packet=1000)
    async with await connect(running) as peer:
        await peer.request(wait=1, n=1, x="x" * 500)
        large, small = await peer.request(n=2, x="x" * 900), await peer.request(n=3)
        await peer.ping()
        await peer.send(numbered("CANCEL", large) + numbered("CANCEL", small))  # the first gives the second its turn
        assert await peer.read() == Answer("END", large, None)
        assert await peer.read() == Answer("END", small, None)
        later = await peer.request(n=4)
        assert await peer.answers(later) == [Answer("REPLY", later, {"n": 4})]
    assert scene.begun == [1, 4]


async def test_a_request_that_is_cancelled_in_one_piece_with_it_gets_one_end(serve: Serve) -> None:
    running, scene = await serve_waiting(serve)
    async with await connect(running) as peer:
        data = b""
        for number in range(1, 301):
            data += numbered("REQUEST", number, {"wait": 1, "n": number}) + numbered("CANCEL", number)
        await peer.send(data)
        ends = [await peer.read() for _ in range(300)]
        assert sorted(end.number for end in ends if end is not None) == list(range(1, 301))
        assert {end.kind for end in ends if end is not None} == {"END"}
        await peer.ping()
        await until(lambda: running.grown_since({**running.footprint}) == {})
    await running.settle()
    assert len(scene.ended) == len(scene.begun)


@pytest.mark.parametrize("number", [1, 2, 7, 2**32 - 1])
async def test_a_cancel_of_a_request_that_has_ended_or_never_was_is_ignored(serve: Serve, number: int) -> None:
    running, _ = await serve_waiting(serve)
    async with await connect(running) as peer:
        await peer.cancel(number)
        await peer.ping()
        assert await peer.ask(n=1) == [Answer("REPLY", 1, {"n": 1})]
        for _ in range(3):
            await peer.cancel(number)
        await peer.ping()
        assert await peer.ask(n=2) == [Answer("REPLY", 2, {"n": 2})]


async def test_a_handler_that_has_sent_its_last_answer_is_not_cancelled(serve: Serve) -> None:
    server, free, ended = Server(port=0), trio.Event(), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        await client.send({"n": 1}, last=True)
        await free.wait()
        ended.set()

    running = await serve(server)
    async with await connect(running) as peer:
        assert await peer.ask() == [Answer("REPLY", 1, {"n": 1})]
        await peer.cancel(1)
        await peer.ping()
        free.set()
        with trio.fail_after(5):
            await ended.wait()


async def test_a_cancel_while_an_answer_is_written_leaves_the_connection_intact(serve: Serve) -> None:
    server, size = Server(port=0), 4_000_000

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "small" in packet:
            await client.send({"small": 1})
            return
        for _ in range(4):
            await client.send({"x": "x" * size})

    running = await serve(server)
    async with await connect(running) as peer:
        for attempt in range(2):  # the handler runs in place, then in a task of its own
            number = await peer.request(attempt=attempt)
            await until(lambda: running.server.statistics().bytes_queued > 0)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await peer.cancel(number)
            answers: list[Answer] = []
            while not answers or answers[-1].kind == "PART":
                answer = await peer.read()
                assert answer is not None
                answers.append(answer)
            assert answers[-1] == Answer("END", number, None)
            assert all(part == Answer("PART", number, {"x": "x" * size}) for part in answers[:-1])
            (small,) = await peer.ask(small=1)
            assert small.fields == {"small": 1}
    assert not running.logged("ERROR")


async def test_a_handler_may_leave_a_cancel_scope_open(serve: Serve) -> None:
    server, kept = Server(port=0), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "leave" in packet:
            scope = trio.CancelScope()
            scope.__enter__()
            kept.append(scope)
            if packet["leave"]:
                await trio.lowlevel.checkpoint()
        await client.send({"n": 1})

    running = await serve(server)
    async with running.undisturbed(bystander=1):
        for wait in (0, 1, 1):
            async with await connect(running) as peer:
                await peer.ask(leave=wait)
                await peer.half_close()
                with trio.fail_after(5):
                    while await peer.read() is not None:
                        pass
    assert running.logged("Cancel scope stack corrupted")


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_handler_may_keep_a_generator_with_an_open_nursery(serve: Serve, cancel: bool) -> None:
    server, kept = Server(port=0), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "keep" in packet:
            kept.append(ticks())
            await anext(kept[-1])
            if "wait" in packet:
                await trio.sleep_forever()
        return {}

    running = await serve(server)
    async with running.undisturbed(bystander=1):
        for _ in range(3):
            async with await connect(running) as peer:
                number = await peer.request(keep=1, **({"wait": 1} if cancel else {}))
                if cancel:
                    await peer.ping()
                    await peer.cancel(number)
                answer = await peer.read()
                assert answer is not None
                assert answer.kind == ("END" if cancel else "REPLY")
                await peer.half_close()
                with trio.fail_after(5):
                    while await peer.read() is not None:
                        pass
        kept.clear()
        with trio.fail_after(5):
            while len(running.logged("was left open")) < 1 and not running.logged("ERROR"):  # noqa: ASYNC110  # as above
                await trio.sleep(0.002)
