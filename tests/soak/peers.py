"""The clients of `make soak`: good ones, which check each reply, and hostile ones."""

from __future__ import annotations

import random
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from pauses import Pauses
from peer import JSON, Peer, json_packet, packet, zi_packet

from asyncapy.util import APIKeyFactory

STEADY = ("plain", "tls", "proxy")
"""The servers that serve all the time."""
PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
STALE_SECONDS = 1.5
"""Seconds after which a revoked key is refused: the cache of a store keeps records for half a second."""


class Broken(Exception):
    """The connection ended early, which is a fault if the network has not cut it."""


@dataclass
class Network:
    """The servers, the ways to them, and the counts and faults of all clients.

    Attributes:
        ports: the ports of the servers by kind.
        slow_ports: the same, through a proxy that delays, slices and cuts.
        context: the TLS context of the clients.
        factories: the key stores that the servers use.
        keys: valid keys.
        cut: the local ports of clients whose connection was cut.
    """

    ports: dict[str, int]
    context: ssl.SSLContext
    factories: list[APIKeyFactory]
    keys: list[str]
    slow_ports: dict[str, int] = field(default_factory=dict)
    cut: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    replies: int = 0
    attacks: int = 0
    cuts: int = 0
    revoked: int = 0
    pauses: Pauses = field(default_factory=Pauses)

    async def good(self, seed: int) -> None:
        """Send numbered packets, many at a time, and check the replies."""
        chance = random.Random(seed)
        number = 0
        while True:
            kind = chance.choice(STEADY)
            port = (self.slow_ports if chance.random() < 0.6 else self.ports)[kind]
            async with await Peer.connect(port) as raw:
                local = raw.stream.socket.getsockname()[1]
                try:
                    peer = await introduced(self.context, raw, kind, chance)
                    for _ in range(chance.randrange(1, 60)):
                        number = await self._exchange(peer, seed, number, chance)
                except* (trio.BrokenResourceError, ssl.SSLError, AssertionError, Broken, trio.TooSlowError) as error:
                    if local not in self.cut:
                        self.wrong.append(f"client {seed} of {kind} at {number}: {error!r} {error.exceptions!r}")
                self.cut.discard(local)

    async def _exchange(self, peer: Peer, seed: int, number: int, chance: random.Random) -> int:
        """Send a batch of packets, and check their replies; return the next number."""
        count = chance.choice((1, 2, 30, 300))
        numbers = range(number, number + count)
        big = chance.randrange(200_000) if count == 1 else 0
        extra: dict[str, Any] = {"big": big} if big else {}
        if count == 2:
            extra["sleep"] = 0.002
        if count == 30:
            extra["key"] = chance.choice(self.keys)
        async with trio.open_nursery() as nursery:
            data = b"".join(json_packet(client=seed, n=n, **extra) for n in numbers)
            nursery.start_soon(peer.send, data)
            for n in numbers:
                reply = await peer.json()
                if reply is None:
                    raise Broken(f"closed before reply {n}")
                expected = {"n": n, "text": "x" * big} if big else {"client": seed, "n": n, **extra}
                if reply != expected:
                    self.wrong.append(f"client {seed} expected packet {n} {extra}, and got {str(reply)[:80]}")
                self.replies += 1
        return number + count

    async def issue_and_revoke(self, number: int) -> None:
        """Issue keys, use them, and revoke them: from then on they are refused."""
        chance = random.Random(number)
        factory = self.factories[number % len(self.factories)]
        while True:
            key = await factory.aissue({"number": number})
            kind = chance.choice(STEADY)
            async with await Peer.connect(self.ports[kind]) as raw:
                peer = await introduced(self.context, raw, kind, chance)
                if (reply := await peer.ask(key=key)) != {"key": key}:
                    self.wrong.append(f"a new key is refused: {reply}")
                await factory.arevoke(key)
                await trio.sleep(STALE_SECONDS)
                if (reply := await peer.ask(key=key)) != {"status": "failure", "error": "ERR_UNAUTHORIZED"}:
                    self.wrong.append(f"a revoked key passes: {str(reply)[:80]}")
            self.revoked += 1

    async def hostile(self, seed: int) -> None:
        """Send malformed data and costly requests from many addresses, and disconnect at any time."""
        chance = random.Random(-seed)
        while True:
            self.attacks += 1
            kind = chance.choice(list(self.ports))
            host = f"127.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
            try:
                with trio.move_on_after(0.2 + chance.random() * 0.5):
                    async with await Peer.connect_from(host, self.ports[kind]) as raw:
                        await self._attack(raw, kind, chance)
            except (trio.BrokenResourceError, ssl.SSLError, AssertionError, OSError, trio.TooSlowError):
                pass  # the server may close such a client at any time
            await trio.sleep(0.01)

    def attack_data(self, chance: random.Random) -> bytes:
        """Return the data of one attack."""
        return chance.choice(ATTACKS)(chance, chance.randrange(1, 1000))

    async def _attack(self, raw: Peer, kind: str, chance: random.Random) -> None:
        peer = raw
        if chance.random() < 0.6:  # else the attack comes in place of the handshake or the header
            peer = await introduced(self.context, raw, kind, chance)
        data = self.attack_data(chance)
        if peer is raw or chance.random() < 0.8:
            await peer.send(data)
        else:
            await raw.send(data)  # records that are not of this session
        how = chance.randrange(4)
        if how == 0 and peer is raw:
            await raw.half_close()
        elif how == 1:
            await trio.sleep(chance.random())
        elif how == 2:
            await peer.read(1_000_000)
        await raw.reset()


ATTACKS: list[Callable[[random.Random, int], bytes]] = [
    lambda chance, size: chance.randbytes(size),
    lambda chance, size: json_packet(a=1)[: size % 20],
    lambda chance, size: b"\xff" * size,
    lambda chance, size: packet(JSON, b"[" * size),
    lambda chance, size: packet(JSON, b'{"a":[' + b"[]," * size + b"[]]}"),
    lambda chance, size: zi_packet(a="b") + b"\x00" * size,
    lambda chance, size: json_packet(fail=1) * size,
    lambda chance, size: json_packet(big=100_000, n=1) * (size % 40),
    lambda chance, size: json_packet(sleep=0.05) + json_packet(a=1)[:9],
    lambda chance, size: json_packet(key=f"{size}-{chance.random()}") * (size % 5),
    lambda chance, size: b"GET / HTTP/1.1\r\n\r\n",
    lambda chance, size: b"PROXY TCP4 192.0.2.1 " + b"x" * size,
    lambda chance, size: PROXY_V2[:14] + struct.pack(">H", size) + b"y" * (size // 2),
    lambda chance, size: b"\x16\x03\x01" + struct.pack(">H", size) + chance.randbytes(size),
]


async def introduced(context: ssl.SSLContext, raw: Peer, kind: str, chance: random.Random) -> Peer:
    """Send the PROXY header or do the TLS handshake that a server expects; return the peer for packets."""
    if kind == "proxy":
        source = f"192.0.2.{chance.randrange(256)}"
        if chance.random() < 0.5:
            await raw.send(f"PROXY TCP4 {source} 192.0.2.1 1000 80\r\n".encode())
        else:
            addresses = bytes(int(part) for part in f"{source}.192.0.2.1".split("."))
            await raw.send(PROXY_V2 + addresses + struct.pack(">HH", 1000, 80))
    elif kind == "tls":
        stream = trio.SSLStream(raw.stream, context, server_hostname="localhost", https_compatible=True)
        await stream.do_handshake()
        return Peer(stream)
    return raw
