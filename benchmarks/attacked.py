"""Measure how long a request with a valid key takes while 2,000 connections send wrong keys: `make bench-keys`.

The server runs in a process of its own, with a Redis store. Each connection sends the next wrong key when the last one
is refused. The valid client sends keys that the server has not cached, from the address of the others and from another.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
from keys import redis_server

from asyncapy.util import APIKeyFactory

CONNECTIONS = 2_000
CLIENTS = 20
REQUESTS = 10
SERVER = """
import sys, trio
from asyncapy import Server
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory

server = Server(port=0, session_limit=10_000, max_connections=3_000, logging_level=50)

@server.add_handler(Filters.APIFactory(APIKeyFactory(store=sys.argv[1]), "key"))
async def passed(client, packet):
    await client.send({"passed": True})

async def main():
    async with trio.open_nursery() as nursery:
        print((await nursery.start(server.serve))[0][1], flush=True)

trio.run(main)
"""


async def ask(stream: trio.SocketStream, key: str) -> dict[str, object]:
    """Send a key, and return the reply."""
    body = json.dumps({"key": key}).encode()
    await stream.send_all(struct.pack(">IBB", len(body) + 2, 22, 0) + body)
    received = b""
    while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
        received += await stream.receive_some()
    reply: dict[str, object] = json.loads(received[6:])
    return reply


async def connect(port: int, local: str) -> trio.SocketStream:
    """Connect from an address of the loopback network."""
    sock = trio.socket.socket()
    await sock.bind((local, 0))
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def attack(port: int, counts: list[int]) -> None:
    """Send wrong keys without end."""
    stream = await connect(port, "127.0.0.2")
    while True:
        assert await ask(stream, secrets.token_urlsafe()) == {"status": "failure", "error": "ERR_NO_HANDLER"}
        counts[0] += 1


async def ask_for(port: int, local: str, keys: list[str], taken: list[float]) -> None:
    """Send valid keys, one after the other, and note the seconds of each request."""
    stream = await connect(port, local)
    for key in keys:
        started = time.perf_counter()
        assert await ask(stream, key) == {"passed": True}
        taken.append(time.perf_counter() - started)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def measure(port: int, url: str, pid: int) -> None:
    """Print the seconds of valid requests, for a client at the address of the others and for one at another address."""
    factory = APIKeyFactory(store=url)
    counts = [0]
    async with trio.open_nursery() as attackers:
        for _ in range(CONNECTIONS):
            attackers.start_soon(attack, port, counts)
        await trio.sleep(3)
        for local, where in (("127.0.0.2", "the same address"), ("127.0.0.3", "another address")):
            taken: list[float] = []
            before, began, used = counts[0], time.perf_counter(), cpu_seconds(pid)
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(ask_for, port, local, [factory.issue() for _ in range(REQUESTS)], taken)
            wrong, seconds = counts[0] - before, time.perf_counter() - began
            cost = (cpu_seconds(pid) - used) / wrong * 1e6
            print(
                f"from {where}: {len(taken)} valid keys passed, p50 {statistics.median(taken) * 1e3:.0f} ms, "
                f"p99 {statistics.quantiles(taken, n=100)[98] * 1e3:.0f} ms; "
                f"{wrong / seconds:.0f} wrong keys refused a second, {cost:.0f} us of CPU each",
                flush=True,
            )
        attackers.cancel_scope.cancel()


def main() -> None:
    """Start Redis and the server, and measure."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        command = [sys.executable, "-c", SERVER, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                trio.run(measure, int(process.stdout.readline()), url, process.pid)
            finally:
                process.kill()


if __name__ == "__main__":
    main()
