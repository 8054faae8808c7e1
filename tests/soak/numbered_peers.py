"""The clients of `make soak PROTOCOL=23`: ours, with requests of all kinds, and hostile ones."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import trio
from numbered_load import Load
from numbered_peer import KINDS, numbered
from peer import Peer, json_packet
from peers import STEADY, Network, introduced

from asyncapy.client import AsyncClient, Pool
from asyncapy.errors import RemoteError, ServerDisconnected

DRAINED = ("one", "two")
"""The servers that stop and start again, one after the other."""


@dataclass
class NumberedNetwork(Network):
    """The servers, and the counts and faults of the clients of version 23."""

    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def good(self, seed: int) -> None:
        """Send requests of all kinds from many tasks, and check the answers.

        An error is a fault unless the connection leads through the proxy that cuts connections: also while servers
        drain.
        """
        chance = random.Random(seed)
        while True:
            is_slow = chance.random() < 0.4
            client = self._client(chance, is_slow=is_slow)
            load = Load(client, chance, self.numbers, self.wrong)
            try:
                async with client, trio.open_nursery() as listening:
                    if isinstance(client, AsyncClient):
                        listening.start_soon(self._listen, client, load)
                    async with trio.open_nursery() as nursery:
                        for _ in range(chance.choice((1, 5, 30))):
                            nursery.start_soon(self._call, load, chance.randrange(1, 100))
                    listening.cancel_scope.cancel()
            except* RemoteError as errors:
                if not is_slow:
                    self.wrong.append(f"client {seed}: {errors.exceptions!r}")
            self.replies += load.requests.total()

    def _client(self, chance: random.Random, *, is_slow: bool) -> AsyncClient | Pool:
        encoding = chance.choice(("json", "ziproto"))
        if not is_slow and chance.random() < 0.5:
            hosts = [("127.0.0.1", self.ports[name]) for name in DRAINED]
            return Pool(hosts, 0, tls=False, encoding=encoding, version=23, size=chance.choice((1, 4)))
        kind = chance.choice(STEADY)
        port = (self.slow_ports if is_slow else self.ports)[kind]
        version: Literal[23] | None = chance.choice((23, None))
        stream = functools.partial(self._open, kind, port, chance)
        context = self.context if kind == "tls" else None
        return AsyncClient(
            "localhost",
            0,
            open_stream=stream,
            tls=kind == "tls",
            ssl_context=context,
            encoding=encoding,
            version=version,
        )

    async def _open(self, kind: str, port: int, chance: random.Random) -> trio.abc.Stream:
        peer = await Peer.connect(port)
        if kind == "proxy":
            await introduced(self.context, peer, kind, chance)
        stream: trio.SocketStream = peer.stream
        return stream

    async def _call(self, load: Load, count: int) -> None:
        for _ in range(count):
            await load.request()

    async def _listen(self, client: AsyncClient, load: Load) -> None:
        """Check that all events are those of the own session."""
        while True:
            try:
                async for event in client.events():
                    if event.get("event") not in load.events:
                        self.wrong.append(f"an event of another session: {event}")
            except ServerDisconnected:
                await trio.sleep(0.01)

    def attack_data(self, chance: random.Random) -> bytes:
        """Return the data of one attack, of version 22 or 23."""
        if chance.random() < 0.3:
            return super().attack_data(chance)
        return chance.choice(ATTACKS)(chance, chance.randrange(1, 300))


def request(number: int, do: str, **fields: Any) -> bytes:
    return numbered("REQUEST", number, {"n": number, "do": do, **fields})


ATTACKS: list[Callable[[random.Random, int], bytes]] = [
    lambda chance, size: b"".join(request(n, "wait", seconds=9) + numbered("CANCEL", n) for n in range(1, size)),
    lambda chance, size: b"".join(request(n, "wait", seconds=9) for n in range(1, size)),
    lambda chance, size: b"".join(request(n, "big", size=100_000) for n in range(1, size % 40 + 1)),
    lambda chance, size: b"".join(request(n, "parts", count=1000) for n in range(1, size % 20 + 1)),
    lambda chance, size: b"".join(request(n, "thread", seconds=0.001) for n in range(1, size)),
    lambda chance, size: numbered("PING", size) * size,
    lambda chance, size: b"".join(numbered("CANCEL", n) for n in range(size)),
    lambda chance, size: request(size, "echo") + request(size - 1, "echo"),
    lambda chance, size: request(1, "wait", seconds=9) + numbered(chance.choice(KINDS), size),
    lambda chance, size: request(1, "wait", seconds=9) + json_packet(a=1),
    lambda chance, size: request(1, "echo") + b"\x00\x00\x00\x07\x17\x00" + bytes((chance.randrange(256),)) + bytes(4),
    lambda chance, size: numbered("REQUEST", 1, payload=b"[" * size) + request(2, "echo"),
    lambda chance, size: request(1, "event") * 2,
    lambda chance, size: request(1, "big", size=size)[: size % 30],
]
