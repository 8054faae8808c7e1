"""Good and hostile clients together, for minutes, through a proxy that delays, slices and cuts: see `make soak`.

Good clients check the order and the content of each reply; they may lose a connection only if the proxy has cut it. At
the end the server must have the same memory, tasks and descriptors as after the first tenth of the time.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from peer import JSON, Peer, json_packet, packet, zi_packet

GOOD, HOSTILE = 12, 8
ROOM_TO_GROW = 8 * 1024 * 1024
"""Bytes by which the memory of the server may grow after the first tenth of the time."""

SERVER = """
import trio
from asyncapy import Server

server = Server(port=0, timeout=30, send_timeout=2, max_connections=5000)

@server.add_handler(group=-1)
async def odd(client, packet):
    if "fail" in packet:
        raise SystemExit("a handler that fails")
    if "sleep" in packet:
        await trio.sleep(packet["sleep"])
    if "stats" in packet:
        statistics = trio.lowlevel.current_statistics()
        await client.send({"tasks": statistics.tasks_living, "connections": len(server._state.connections)})
        packet.stop_propagation()
    if "big" in packet:
        await client.send({"n": packet["n"], "text": "x" * packet["big"]})
        packet.stop_propagation()

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.log.handlers[0].addFilter(lambda record: "Serving on" in record.getMessage())
server.start()
"""


@dataclass
class Soak:
    """The state of a run: ports, counters and faults."""

    pid: int
    port: int
    proxy_port: int = 0
    replies: int = 0
    attacks: int = 0
    cuts: int = 0
    wrong: list[str] = field(default_factory=list)
    cut: set[int] = field(default_factory=set)
    """The local ports of clients whose connections the proxy has cut."""

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def resident(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    async def carry(self, source: trio.SocketStream, sink: trio.SocketStream, chance: random.Random) -> None:
        """Forward bytes in slices, sometimes with a delay."""
        try:
            async for data in source:
                rest = data
                while rest:
                    size = chance.choice((1, 7, 100, 1400, 65536))
                    await sink.send_all(rest[:size])
                    rest = rest[size:]
                    if chance.random() < 0.02:
                        await trio.sleep(chance.random() * 0.01)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def proxy(self, client: trio.SocketStream) -> None:
        """Forward one connection; one in five is cut."""
        try:
            local = client.socket.getpeername()[1]
        except OSError:
            await client.aclose()  # the client has disconnected already
            return
        chance = random.Random(local)
        life = chance.random() * 3 if chance.random() < 0.2 else 3600
        server = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with client, server:
            with trio.move_on_after(life) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.carry, client, server, chance)
                    nursery.start_soon(self.carry, server, client, chance)
            if scope.cancelled_caught:
                self.cut.add(local)
                self.cuts += 1

    async def good(self, seed: int) -> None:
        """A client that sends numbered packets, many at a time, and checks the replies."""
        chance = random.Random(seed)
        number = 0
        while True:
            port = self.proxy_port if chance.random() < 0.6 else self.port
            async with await Peer.connect(port) as peer:
                local = peer.stream.socket.getsockname()[1]
                try:
                    for _ in range(chance.randrange(1, 60)):
                        number = await self.exchange(peer, seed, number, chance)
                except* (trio.BrokenResourceError, AssertionError) as error:
                    if local not in self.cut:
                        self.wrong.append(f"client {seed} at {number}: {error!r}")
                    self.cut.discard(local)

    async def exchange(self, peer: Peer, seed: int, number: int, chance: random.Random) -> int:
        """Send a batch of packets, and check their replies."""
        count = chance.choice((1, 2, 30, 300))
        numbers = range(number, number + count)
        big = chance.randrange(200_000) if count == 1 else 0
        extra: dict[str, Any] = {"big": big} if big else {}
        if count == 2:
            extra["sleep"] = 0.002
        async with trio.open_nursery() as nursery:
            data = b"".join(json_packet(client=seed, n=n, **extra) for n in numbers)
            nursery.start_soon(peer.send, data)
            for n in numbers:
                reply = await peer.json()
                assert reply is not None, "closed"
                expected = {"n": n, "text": "x" * big} if big else {"client": seed, "n": n, **extra}
                if reply != expected:
                    self.wrong.append(f"client {seed} expected packet {n}, and got {str(reply)[:80]}")
                self.replies += 1
        return number + count

    async def hostile(self, seed: int) -> None:
        """A client that sends malformed data and costly requests, and disconnects at any time."""
        chance = random.Random(-seed)
        attacks: list[Callable[[int], bytes]] = [
            chance.randbytes,
            lambda size: json_packet(a=1)[: size % 20],
            lambda size: b"\xff" * size,
            lambda size: packet(JSON, b"[" * size),
            lambda size: packet(JSON, b'{"a":[' + b"[]," * size + b"[]]}"),
            lambda size: zi_packet(a="b") + b"\x00" * size,
            lambda size: json_packet(fail=1) * size,
            lambda size: json_packet(big=100_000, n=1) * (size % 40),
            lambda size: json_packet(sleep=0.05) + json_packet(a=1)[:9],
            lambda size: b"GET / HTTP/1.1\r\n\r\n",
        ]
        while True:
            self.attacks += 1
            async with await Peer.connect(chance.choice((self.port, self.proxy_port))) as peer:
                try:
                    with trio.move_on_after(chance.random() * 0.5):
                        await peer.send(chance.choice(attacks)(chance.randrange(1, 1000)))
                        how = chance.randrange(4)
                        if how == 0:
                            await peer.half_close()
                        elif how == 1:
                            await trio.sleep(chance.random())
                        elif how == 2:
                            await peer.read(1_000_000)
                    await peer.reset()
                except (trio.BrokenResourceError, AssertionError):
                    continue  # the server may close such a client at any time
            await trio.sleep(0.01)

    async def measured(self) -> dict[str, int]:
        """Return the resources of the server when this is its only connection."""
        async with await Peer.connect(self.port) as peer:
            with trio.fail_after(30):
                while True:
                    stats = await peer.ask(stats=1)
                    assert stats is not None
                    if stats["connections"] == 1:
                        break
                    await trio.sleep(0.1)
        return {**stats, "descriptors": self.descriptors(), "resident": self.resident()}

    async def run(self, seconds: float) -> None:
        """Run all clients for this time."""
        async with trio.open_nursery() as network:
            listeners = await network.start(trio.serve_tcp, self.proxy, 0)
            self.proxy_port = listeners[0].socket.getsockname()[1]
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    for number in range(GOOD):
                        nursery.start_soon(self.good, number)
                    for number in range(HOSTILE):
                        nursery.start_soon(self.hostile, number)
            network.cancel_scope.cancel()


async def soak(pid: int, port: int, minutes: float) -> int:
    """Run the clients, print the figures, and return the exit status."""
    state = Soak(pid, port)
    began = time.monotonic()
    await state.run(minutes * 6)
    before = await state.measured()
    await state.run(minutes * 54)
    after = await state.measured()
    grown = after["resident"] - before["resident"]
    print(
        f"{state.replies:,} replies in order in {time.monotonic() - began:.0f} s, {state.attacks:,} attacks, "
        f"{state.cuts:,} cuts\nafter a tenth: {before}\nat the end:    {after}\nmemory grew by {grown / 1024:.0f} KiB"
    )
    faults = state.wrong[:10]
    faults += [
        f"{name} were {before[name]}, and are {after[name]}"
        for name in ("tasks", "connections", "descriptors")
        if before[name] != after[name]
    ]
    if grown > ROOM_TO_GROW:
        faults.append(f"memory grew by {grown / 1024:.0f} KiB, which is more than {ROOM_TO_GROW // 1024}")
    print("\n".join(faults) or "Everything is as it should be.")
    return 1 if faults else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    with subprocess.Popen([sys.executable, "-c", SERVER], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"Serving on 127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found is not None
        try:
            status = trio.run(soak, process.pid, int(found[1]), options.minutes)
        finally:
            process.terminate()
            print(process.stderr.read(), end="")
    sys.exit(status or process.returncode)


if __name__ == "__main__":
    main()
