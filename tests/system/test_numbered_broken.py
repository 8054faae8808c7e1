"""Broken connections of version 23: all requests are cancelled, and nothing is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered

from asyncapy import Server
from asyncapy.filters import Filters


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def until(condition: Callable[[], object], seconds: float = 5) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)


class Scene:
    """A server whose handler waits as the field ``wait`` tells."""

    def __init__(self, **settings: Any) -> None:
        self.free = trio.Event()
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.server = Server(port=0, **settings)
        self.server.register_handler(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        number = packet.get("n", 0)
        self.begun.append(number)
        try:
            if packet.get("wait") == "shielded":
                with trio.CancelScope(shield=True):
                    await self.free.wait()
                assert client.gone
                with pytest.raises(ConnectionError):
                    await client.send({"too": "late"})
            elif "wait" in packet:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.append(number)
            raise
        return {"n": number}


async def do_nothing(peer: NumberedPeer) -> None: ...


async def half_close(peer: NumberedPeer) -> None:
    await peer.half_close()


async def send_more_than_may_wait(peer: NumberedPeer) -> None:
    with trio.move_on_after(0.1):  # the server does not read it all
        for number in range(10, 14):
            await peer.send(numbered("REQUEST", number, {"n": number, "wait": 1, "x": "x" * 900_000}))


async def make_the_server_leave(peer: NumberedPeer) -> None:
    await peer.send(numbered("EVENT", 0))


async def have_a_request_refused(peer: NumberedPeer) -> None:
    await peer.send(numbered("REQUEST", 10, {}, encoding=9))  # those that wait before it are to be handled


PREPARATIONS = [do_nothing, half_close, send_more_than_may_wait, make_the_server_leave, have_a_request_refused]


@pytest.mark.parametrize("prepare", PREPARATIONS)
@pytest.mark.parametrize("in_flight", [1, 3, 100])
async def test_a_reset_cancels_all_requests_and_gives_the_place_back(
    serve: Serve, prepare: Any, in_flight: int
) -> None:
    scene = Scene(max_in_flight=in_flight)
    running = await serve(scene.server)
    before = running.footprint
    for _ in range(2):
        scene.begun.clear()
        scene.cancelled.clear()
        peer = await connect(running)
        for number in range(1, 6):
            await peer.send(numbered("REQUEST", number, {"n": number, "wait": 1}))
        await until(lambda: len(scene.begun) == min(5, in_flight))
        await prepare(peer)
        await trio.testing.wait_all_tasks_blocked(0.01)
        begun = len(scene.begun)
        await peer.reset()
        await until(lambda: running.server.statistics().sessions == 0)
        await until(lambda: sorted(scene.cancelled) == sorted(scene.begun))
        assert len(scene.begun) == begun, "a request that waited was begun on a broken connection"
        await running.settle()
        await until(lambda: not running.grown_since(before))
    await until(lambda: len(running.logged("The client has left")) == 2)
    assert not running.logged("ERROR")


@pytest.mark.parametrize("fault", ["length", "version", "end of the stream"])
async def test_a_reset_behind_the_end_of_the_reading_cancels_all_requests(serve: Serve, fault: str) -> None:
    """The server notices it although its watch for resets sleeps: all sessions were being read."""
    scene = Scene()
    running = await serve(scene.server)
    state = running.server._state
    assert state is not None
    peer = await connect(running)
    await peer.send(numbered("REQUEST", 1, {"wait": 1}) + numbered("REQUEST", 2, {"wait": 1}))
    await peer.ping()
    await until(lambda: state.disconnects.asleep)
    data = {"length": bytes(4), "version": bytes((0, 0, 0, 9, 22)) + bytes(8)}.get(fault, numbered("EVENT", 0))
    await peer.send(data)
    assert [getattr(await peer.read(), "kind", None) for _ in range(2)] == ["FAILURE", "LEAVING"]
    if fault == "end of the stream":
        await peer.half_close()
    await trio.testing.wait_all_tasks_blocked(0.01)
    await peer.reset()
    await until(lambda: len(scene.cancelled) == 2)
    await running.settle()


async def test_the_place_is_given_back_within_a_tenth_of_a_second(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    for number in range(1, 4):
        await peer.send(numbered("REQUEST", number, {"n": number, "wait": "shielded"}))
    await peer.ping()
    began = trio.current_time()
    await peer.reset()
    await until(lambda: running.server.statistics().connections == 0)
    assert trio.current_time() - began < 1  # a tenth of a second, on a machine that is not busy
    assert running.server.statistics().abandoned == 1
    scene.free.set()
    await until(lambda: running.server.statistics().abandoned == 0)


async def test_a_handler_that_has_sent_its_last_answer_is_cancelled_and_that_is_no_failure(serve: Serve) -> None:
    server, cancelled = Server(port=0), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        await client.send({"n": 1}, last=True)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    running = await serve(server)
    peer = await connect(running)
    assert await peer.ask() == [Answer("REPLY", 1, {"n": 1})]
    await peer.reset()
    with trio.fail_after(5):
        await cancelled.wait()
    await until(lambda: running.server.statistics().abandoned == 0)
    await running.settle()
    assert not running.logged("ERROR")


async def test_a_drain_waits_for_shielded_handlers_of_a_broken_connection(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    await peer.send(numbered("REQUEST", 1, {"wait": "shielded"}) + numbered("REQUEST", 2, {"wait": 1}))
    await peer.ping()
    await peer.reset()
    await until(lambda: running.server.statistics().abandoned == 1)
    running.server.stop()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert running.server.statistics().abandoned == 1
    scene.free.set()
    await until(lambda: running.server.statistics().abandoned == 0)


async def test_an_answering_block_does_not_keep_a_broken_connection(serve: Serve) -> None:
    server, kept, free, ended = Server(port=0), [], trio.Event(), trio.Event()

    async def go_on(client: Any, answering: Any) -> None:
        async with answering:
            await free.wait()
            with pytest.raises(ConnectionError):
                await client.send({"too": "late"})
        ended.set()

    async with trio.open_nursery() as nursery:

        @server.add_handler()
        async def handle(client: Any, packet: Any) -> None:
            kept.append(client.answering())  # never entered
            nursery.start_soon(go_on, client, client.answering())

        running = await serve(server)
        peer = await connect(running)
        await peer.send(numbered("REQUEST", 1, {}))
        await peer.ping()
        await peer.reset()
        await running.settle()
        assert running.server.statistics().abandoned == 0
        free.set()
        with trio.fail_after(5):
            await ended.wait()
    assert not running.logged("ERROR")


@pytest.mark.parametrize("ends", ["reset", "failed write"])
@pytest.mark.parametrize("how", ["waits", "waits in a task of its own", "closes a generator", "fails to send"])
async def test_an_answering_block_does_not_keep_a_broken_connection_whose_handler_runs(
    serve: Serve, ends: str, how: str
) -> None:
    server, begun = Server(port=0, send_timeout=0.1, max_output=1), trio.Event()
    kept: list[Any] = []

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with trio.move_on_after(5, shield=True):
                begun.set()
                await client_gone()

    async def client_gone() -> None:
        await kept[-1][0].gone

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        kept.append((client, client.answering()))  # another task of the application has it
        if how == "closes a generator":
            async for _ in ticks():
                break
            return
        if "own" in how:
            await trio.lowlevel.checkpoint()
        begun.set()
        if how == "fails to send":
            while True:
                await client.send({"x": "x" * 100_000})
        await trio.sleep_forever()

    running = await serve(server)
    peer = await connect(running)
    await peer.send(numbered("REQUEST", 1, {}) + numbered("REQUEST", 2, {}))
    with trio.fail_after(5):
        await begun.wait()
        if ends == "reset":
            await peer.reset()
        else:
            with suppress(ConnectionError):
                while True:
                    await kept[-1][0].session.send({"x": "x" * 100_000})
    await running.settle()
    await until(lambda: running.server.statistics().abandoned == 0)
    assert not running.logged("ERROR")
    await peer.stream.aclose()


async def test_the_statistics_count_cancelled_requests_apart(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    peer = await connect(running)
    assert await peer.ask(n=1) == [Answer("REPLY", 1, {"n": 1})]
    await peer.send(b"".join(numbered("REQUEST", number, {"wait": 1}) for number in (2, 3, 4)))
    await peer.cancel(2)
    assert await peer.read() == Answer("END", 2, None)
    await peer.reset()
    await running.settle()
    await until(lambda: running.server.statistics().abandoned == 0)
    (statistics,) = running.server.statistics().handlers
    assert statistics.outcomes == {"ok": 1, "cancelled": 3}


async def test_a_refused_request_is_counted_once_while_another_session_has_a_generator_to_close(serve: Serve) -> None:
    server, dropped, free = Server(port=0), trio.Event(), trio.Event()

    async def ticks() -> AsyncIterator[int]:
        yield 1
        yield 2

    @server.add_handler(Filters.HasFields(drop=None))
    async def drop_a_generator(client: Any, packet: Any) -> None:
        async for _ in ticks():
            break
        dropped.set()
        await free.wait()

    running = await serve(server)
    async with await connect(running) as other, await connect(running) as peer:
        await other.request(drop=1)
        await dropped.wait()
        assert [answer.kind for answer in await peer.ask(a=1)] == ["FAILURE"]
        await peer.send(numbered("REQUEST", 9, payload=b"no JSON"))
        await peer.read()
        free.set()
    await running.settle()
    assert running.server.statistics().refusals == {"ERR_NO_HANDLER": 1, "ERR_REQUEST_MALFORMED": 1}


async def test_a_session_that_fails_cancels_its_requests(serve: Serve) -> None:
    server, cancelled, kept = Server(port=0), trio.Event(), []

    @server.add_handler(Filters.HasFields(wait=None))
    async def wait(client: Any, packet: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    @server.add_handler()
    async def leave_a_cancelled_scope_open(client: Any, packet: Any) -> None:
        kept.append(trio.CancelScope().__enter__())
        kept[-1].cancel()

    running = await serve(server)
    before = running.footprint
    async with await connect(running) as peer:
        await peer.request(wait=1)
        await peer.request()
        with trio.fail_after(5):
            await cancelled.wait()
    await running.settle()
    await until(lambda: not running.grown_since(before))
    assert running.logged("ERROR")
