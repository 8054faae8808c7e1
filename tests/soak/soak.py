"""Good and hostile clients together, for minutes, through a proxy that delays, slices and cuts: see `make soak`.

Good clients check the order and the content of each reply; they may lose a connection only if the proxy has cut it.
With ``--version 23``, they are ours, and send requests of all kinds, while two more servers stop and start again in
turn. At the end the server must have the same memory, tasks, threads and descriptors as after the first tenth of the
time.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import random
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
import trustme
from numbered_peers import NumberedNetwork
from peer import Peer
from peers import STEADY, Network
from redis_server import PROGRAMS, RedisServer

from asyncapy.util import APIKeyFactory

GOOD, HOSTILE = 12, 8
ROOM_TO_GROW = 16 * 1024 * 1024
"""Bytes by which the memory of the server may grow after the first tenth of the time, for bursts of requests."""
BLOCKS = 5000
"""Blocks of Python's allocator of which there may be more, for caches; one for each connection would be many more."""
STORE_CONNECTIONS = 4
"""Connections of the server to Redis, which it opens when it needs them, and keeps."""
SETTLED_SECONDS = 30
NETWORKS = {22: Network, 23: NumberedNetwork}


@dataclass
class Soak:
    """A run: the process of the servers, and the network with the clients."""

    pid: int
    network: Network

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream, chance: random.Random) -> None:
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

    async def _proxy(self, port: int, client: trio.SocketStream) -> None:
        """Forward one connection to a port of the server; one in five is cut."""
        try:
            local = client.socket.getpeername()[1]
        except OSError:
            await client.aclose()  # the client has disconnected already
            return
        chance = random.Random(local)
        life = chance.random() * 3 if chance.random() < 0.2 else 3600
        server = await trio.open_tcp_stream("127.0.0.1", port)
        async with client, server:
            with trio.move_on_after(life) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, client, server, chance)
                    nursery.start_soon(self._carry, server, client, chance)
            if scope.cancelled_caught:
                self.network.cut.add(local)
                self.network.cuts += 1

    async def measured(self, before: dict[str, int] | None = None) -> dict[str, int]:
        """Return the resources of the server when this is its only connection, and they are as before."""
        async with await Peer.connect(self.network.ports["plain"]) as peer:
            with trio.move_on_after(SETTLED_SECONDS):
                while True:
                    figures = await self._figures(peer)
                    settled = figures["connections"] == 1 and figures["handshakes"] == 0
                    if settled and not (before and grown(before, figures)):
                        break
                    await trio.sleep(0.5)
        return figures

    async def _figures(self, peer: Peer) -> dict[str, int]:
        stats = await peer.ask(stats=1)
        assert stats is not None
        return {**stats, "descriptors": self._descriptors(), "resident": self._resident()}

    def _descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _resident(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    async def run(self, seconds: float) -> None:
        """Run all clients for this time."""
        network = self.network
        async with trio.open_nursery() as proxies:
            for kind in STEADY:
                port = network.ports[kind]
                listeners = await proxies.start(trio.serve_tcp, functools.partial(self._proxy, port), 0)
                network.slow_ports[kind] = listeners[0].socket.getsockname()[1]
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    for number in range(GOOD):
                        nursery.start_soon(network.good, number)
                    for number in range(HOSTILE):
                        nursery.start_soon(network.hostile, number)
                    for number in range(len(network.factories)):
                        nursery.start_soon(network.issue_and_revoke, number)
            proxies.cancel_scope.cancel()


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return a line for each resource of which there is more than before."""
    room: dict[str, float] = {
        "blocks": BLOCKS,
        "descriptors": STORE_CONNECTIONS,
        "drains": math.inf,
        "milliseconds": math.inf,
        "resident": ROOM_TO_GROW,
    }
    return [
        f"{name} were {before[name]}, and are {after[name]}"
        for name in before
        if after[name] > before[name] + room.get(name, 0)
    ]


async def soak(pid: int, network: Network, minutes: float) -> bool:
    """Run the clients, print the figures, and return whether everything is as it should be."""
    state = Soak(pid, network)
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.pauses.watch)
        await state.run(minutes * 6)
        before = await state.measured()
        await state.run(minutes * 54)
        after = await state.measured(before)
        network.pauses.scope.cancel()
    print(
        f"{network.replies:,} right replies in {time.monotonic() - began:.0f} s, {network.attacks:,} attacks, "
        f"{network.cuts:,} cuts, {network.revoked:,} keys issued and revoked, {len(network.factories)} key stores\n"
        f"after a tenth: {before}\nat the end:    {after}\n"
        f"memory grew by {(after['resident'] - before['resident']) / 1024:.0f} KiB; the longest pauses of the loops: "
        f"{after['milliseconds']} ms in the server, {network.pauses.longest * 1000:.0f} ms in this process"
    )
    faults = [*network.wrong[:10], *grown(before, after)]
    print("\n".join(faults) or "Everything is as it should be.")
    return not faults


@contextmanager
def stores(folder: Path) -> Iterator[list[str]]:
    """Yield the URLs of the key stores: a file, and a Redis if one is installed."""
    urls = [f"sqlite:///{folder / 'keys.db'}"]
    with ExitStack() as stack:
        for program in list(PROGRAMS)[:1]:
            server = stack.enter_context(RedisServer(program, folder))
            urls.append(f"{server.url}?max_connections={STORE_CONNECTIONS}")
        yield urls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--version", type=int, choices=(22, 23), default=22)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        urls = stack.enter_context(stores(folder))
        factories = [stack.enter_context(closing(APIKeyFactory(store=url))) for url in urls]
        keys = [factory.issue({"number": number}) for factory in factories for number in range(50)]
        program = str(Path(__file__).with_name("server.py"))
        command = [sys.executable, program, str(options.version), str(folder / "server.pem"), *urls]
        errors = stack.enter_context((folder / "errors").open("w+"))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
            assert process.stdout is not None
            try:
                ports = json.loads(process.stdout.readline())
                network = NETWORKS[options.version](ports, context, factories, keys)
                good = trio.run(soak, process.pid, network, options.minutes)
            finally:
                process.terminate()
                process.wait()
                errors.seek(0)
                failures = errors.read()
                print(failures[:5000], end="")
    sys.exit(0 if good and not failures and process.returncode == 0 else 1)


if __name__ == "__main__":
    main()
