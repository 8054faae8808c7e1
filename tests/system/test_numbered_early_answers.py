"""Requests of version 23 that are answered before their handler begins: each has one last answer."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered

from asyncapy import Server
from asyncapy.errors import AlreadyAnswered
from asyncapy.filters import Filters
from asyncapy_core.routing.filter import Filter

LAST = {"REPLY", "END", "FAILURE"}


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


class Tells(Filter):
    """A filter that passes each packet, and tells its client to a function."""

    def __init__(self, tell: Any) -> None:
        self.tell = tell

    def check(self, c: Any, p: Any) -> bool:
        self.tell(c, p)
        return True


async def answers_by_number(peer: NumberedPeer, numbers: range) -> dict[int, list[Answer]]:
    """Return the answers to requests, and those that follow the last answer of each, up to a PONG."""
    found: dict[int, list[Answer]] = {number: [] for number in numbers}
    pinged = False
    while (answer := await peer.read()) is not None and answer.kind != "PONG":
        if answer.kind != "EVENT":
            found[answer.number].append(answer)
        if not pinged and all(answers and answers[-1].kind in LAST for answers in found.values()):
            pinged = True
            await peer.send(numbered("PING", 1))
    assert answer is not None
    return found


class Scene:
    """A server whose filter tells the clients of requests to a task, which answers all of them.

    Args:
        nursery: the nursery of the task.
        sends: how the task answers.
        then: the end of the handler.
    """

    def __init__(self, nursery: trio.Nursery, sends: str, then: str) -> None:
        self.nursery, self.sends, self.then = nursery, sends, then
        self.told: list[tuple[Any, int]] = []
        self.begun: Counter[int] = Counter()
        self.free = trio.Event()
        # packets are handled in several turns, so that answers are held back while other tasks run
        self.server = Server(port=0, packets_per_turn=4)
        self.server.register_handler(self.wait, Filters.HasFields(first=None))
        self.server.register_handler(self.handle, Tells(self.tell))

    def tell(self, client: Any, packet: Any) -> None:
        self.told.append((client, packet["n"]))
        if len(self.told) == 1:
            self.nursery.start_soon(self.answer_all)

    async def answer_all(self) -> None:
        told, self.told = self.told, []
        for client, number in told:
            with suppress(AlreadyAnswered):  # the handler may have begun before this task
                if self.sends == "now":
                    client.send_nowait({"early": 1})
                else:
                    last = self.sends == "last" or (self.sends == "two" and number % 2 == 0)
                    await client.send({"early": 1}, last=last)

    async def wait(self, client: Any, packet: Any) -> None:
        await self.free.wait()

    async def handle(self, client: Any, packet: Any) -> Any:
        self.begun[packet["n"]] += 1
        with suppress(AlreadyAnswered):
            if self.then.startswith("sends"):
                await client.send({"n": packet["n"]})
        if self.then == "sends and waits" or "wait" in packet:
            await trio.lowlevel.checkpoint()
        if self.then == "raises":
            raise ValueError("a failure")
        return {"n": packet["n"]} if self.then == "returns a value" else None


@pytest.mark.parametrize("sends", ["one", "two", "last", "now"])
@pytest.mark.parametrize("then", ["returns", "returns a value", "sends", "sends and waits", "raises"])
async def test_a_task_may_answer_before_the_handlers_begin(serve: Serve, sends: str, then: str) -> None:
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery, sends, then)
        running = await serve(scene.server)
        async with await connect(running) as peer:
            await peer.send(
                numbered("REQUEST", 1, {"n": 1, "wait": 1})
            )  # handlers that have waited get their own tasks
            await answers_by_number(peer, range(1, 2))
            for first in range(10, 200, 20):
                scene.free = trio.Event()
                await peer.send(numbered("REQUEST", first, {"first": 1}))
                await peer.ping()
                numbers = range(first + 1, first + 20)
                await peer.send(b"".join(numbered("REQUEST", number, {"n": number}) for number in numbers))
                for number, answers in (await answers_by_number(peer, numbers)).items():
                    kinds = [answer.kind for answer in answers]
                    assert [kind for kind in kinds if kind in LAST] == kinds[-1:], (number, kinds)
                    assert scene.begun[number] == 1
                scene.free.set()
                assert (await answers_by_number(peer, range(first, first + 1)))[first] == [Answer("END", first, None)]


@pytest.mark.parametrize("known", ["in place", "in a task of its own"])
@pytest.mark.parametrize("guards", [False, True])
@pytest.mark.parametrize("passes", [False, True])
async def test_a_filter_may_hand_its_answer_to_a_task(serve: Serve, known: str, guards: bool, passes: bool) -> None:
    server, free = Server(port=0), trio.Event()

    async def go_on(client: Any, answering: Any, release: trio.Event) -> None:
        async with answering:
            await release.wait()
            await client.send({"n": 2})

    class HandsOver(Filter):
        async def check(self, c: Any, p: Any) -> bool:
            if "first" in p:
                return True
            await c.send({"n": 1})
            releases.append(trio.Event())
            nursery.start_soon(go_on, c, c.answering(), releases[-1])
            return passes

    async def handle(client: Any, packet: Any) -> None:
        if "first" in packet:
            await free.wait()

    async with trio.open_nursery() as nursery:
        releases: list[trio.Event] = []
        if guards:
            server.guard(HandsOver())
        server.register_handler(handle, *([] if guards else [HandsOver()]))
        running = await serve(server)
        async with await connect(running) as peer:
            if known == "in a task of its own":
                await peer.request(first=1)
            for _ in range(3):
                number = await peer.request()
                assert await peer.read() == Answer("PART", number, {"n": 1})
                await peer.ping()
                releases[-1].set()
                assert await peer.answers(number) == [Answer("PART", number, {"n": 2}), Answer("END", number, None)]
            free.set()
