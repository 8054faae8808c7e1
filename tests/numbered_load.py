"""Requests of version 23 of many kinds, and the handlers for them: each answer tells to which request it belongs."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from asyncapy import Server
from asyncapy.client import AsyncClient, Pool
from asyncapy.errors import Failure, FailureReply, NotConnected
from asyncapy.filters import Filters


def add_load_handler(server: Server) -> None:
    """Register a handler that does as the field ``do`` of a request tells."""

    @server.add_handler(Filters.HasFields(do=None))
    async def load(client: Any, packet: Any) -> Any:
        number, kind = packet["n"], packet["do"]
        if kind == "wait":
            await trio.sleep(packet["seconds"])
        elif kind == "thread":
            await server.run_sync_task(time.sleep, packet["seconds"])
        elif kind == "parts":
            for part in range(packet["count"]):
                await client.send({"n": number, "part": part})
                if "seconds" in packet:
                    await trio.sleep(packet["seconds"])
            return None
        elif kind == "event":
            await client.session.send({"event": number})
        elif kind == "fail":
            raise Failure("ERR_GONE", n=number)
        elif kind == "none":
            return None
        return {"n": number, "text": "x" * packet.get("size", 0)}


@dataclass
class Load:
    """One caller.

    Attributes:
        client: sends its requests.
        chance: chooses them.
        numbers: the numbers of all callers.
        wrong: the wrong answers.
        requests: the number of requests by kind.
        events: the requests whose handler pushes an event.
    """

    client: AsyncClient | Pool
    chance: random.Random
    numbers: itertools.count[int]
    wrong: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    events: set[int] = field(default_factory=set)

    async def request(self) -> None:
        """Send a request of any kind, and check its answers."""
        kind = self.chance.choice(list(KINDS))
        try:
            await KINDS[kind](self)
        except NotConnected:
            if not (isinstance(self.client, Pool) and "stream" in kind):
                raise
            await trio.sleep(0.01)  # a pool does not send a stream to another host
        else:
            self.requests[kind] += 1

    async def _echo(self) -> None:
        await self._ask("echo")

    async def _wait(self) -> None:
        await self._ask("wait", seconds=self.chance.random() * 0.005)

    async def _checkpoint(self) -> None:
        await self._ask("wait", seconds=0)

    async def _thread(self) -> None:
        await self._ask("thread", seconds=self.chance.random() * 0.001)

    async def _event(self) -> None:
        number = next(self.numbers)
        self.events.add(number)
        self._check(number, await self.client.request({"n": number, "do": "event"}), {"n": number, "text": ""})

    async def _big(self) -> None:
        size = self.chance.randrange(200_000 if self.chance.random() < 0.02 else 2000)
        await self._ask("big", size=size)

    async def _none(self) -> None:
        number = next(self.numbers)
        self._check(number, await self.client.request({"n": number, "do": "none"}), None)

    async def _fail(self) -> None:
        number = next(self.numbers)
        answer = await self.client.request({"n": number, "do": "fail"})
        self._check(number, answer, {"status": "failure", "error": "ERR_GONE", "n": number})

    async def _cancel(self) -> None:
        """Cancel a request at any time: before it is sent, while it is handled, or after its answer."""
        with trio.move_on_after(self.chance.random() * 0.004):
            await self._ask("wait", seconds=self.chance.choice((0, 0.002, 1)))

    async def _stream(self) -> None:
        """Receive all answers of a stream, or leave it early."""
        number, count = next(self.numbers), self.chance.randrange(20)
        fields = {"n": number, "do": "parts", "count": count}
        if self.chance.random() < 0.5:
            fields["seconds"] = 0
        left = self.chance.randrange(2 * count + 1)
        received = 0
        async with self.client.stream(fields) as parts:
            async for part in parts:
                self._check(number, part, {"n": number, "part": received})
                received += 1
                if received == left:
                    return
        if received != count:
            self.wrong.append(f"request {number} got {received} of {count} answers")

    async def _failing_stream(self) -> None:
        number = next(self.numbers)
        try:
            async for part in self.client.stream({"n": number, "do": "fail"}):
                self._check(number, part, None)
        except FailureReply as error:
            self._check(number, (error.code, error.fields), ("ERR_GONE", {"n": number}))

    async def _ask(self, kind: str, **fields: Any) -> None:
        number = next(self.numbers)
        answer = await self.client.request({"n": number, "do": kind, **fields})
        self._check(number, answer, {"n": number, "text": "x" * fields.get("size", 0)})

    def _check(self, number: int, answer: Any, expected: Any) -> None:
        if answer != expected:
            self.wrong.append(f"request {number} expected {str(expected)[:80]}, and got {str(answer)[:80]}")


KINDS: dict[str, Callable[[Load], Awaitable[None]]] = {
    "echo": Load._echo,
    "checkpoint": Load._checkpoint,
    "wait": Load._wait,
    "thread": Load._thread,
    "event": Load._event,
    "big": Load._big,
    "none": Load._none,
    "fail": Load._fail,
    "cancel": Load._cancel,
    "stream": Load._stream,
    "failing stream": Load._failing_stream,
}
