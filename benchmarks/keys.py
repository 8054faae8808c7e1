"""Measure the key checks per second of each store: `make bench-keys`.

A check is a call of `Filters.APIFactory` for a packet with a valid key. "hot" checks one key repeatedly, as an active
client causes it; "once" is the same without the key, in a session that is logged in; and "cold" checks each of many
keys once, so that no record is cached. The rounds of all stores are interleaved. The median is printed, with the lowest
and the highest value, and the ratio to memory. For Redis, the program starts a redis-server on a free port.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio

from asyncapy.core import Packet
from asyncapy.filters import Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.routing.filter import check
from asyncapy_core.testing import Detached

HOT_CHECKS = 20_000
COLD_KEYS = 500
ROUNDS = 7


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis for the length of a ``with`` block and yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--dir", str(folder), "--save", ""], stdout=-3)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def checks_per_second(factory: APIKeyFactory, keys: list[str], *, once: bool = False) -> float:
    """Check each of these keys once and return the rate; with ``once``, packets without a key behind a log-in."""
    passing = Filters.APIFactory(factory, "key", once=once)
    packets = [Packet({"a": 1} if once else {"key": key}) for key in keys]
    client = Detached().client
    if once:
        assert await check(passing, client, Packet({"key": keys[0]}))
    started = time.perf_counter()
    for packet in packets:
        assert await check(passing, client, packet)
    return len(keys) / (time.perf_counter() - started)


async def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {
            "memory": "memory://",
            "sqlite": f"sqlite:///{folder / 'keys.db'}",
            "redis": stack.enter_context(redis_server(folder)),
        }
        factories = {name: APIKeyFactory(store=url) for name, url in urls.items()}
        results: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for name, factory in factories.items():
                keys = [factory.issue() for _ in range(COLD_KEYS)]
                results.setdefault((name, "cold"), []).append(await checks_per_second(factory, keys))
                hot = keys[-1:] * HOT_CHECKS
                results.setdefault((name, "hot"), []).append(await checks_per_second(factory, hot))
                results.setdefault((name, "once"), []).append(await checks_per_second(factory, hot, once=True))
        for kind in ("hot", "once", "cold"):
            memory = statistics.median(results["memory", kind])
            for name in factories:
                rates = results[name, kind]
                middle = statistics.median(rates)
                print(
                    f"{kind:5} {name:7} {middle:10,.0f} checks/s  ({min(rates):,.0f} to {max(rates):,.0f})"
                    f"  {memory / middle:6.2f} times the cost of memory"
                )


if __name__ == "__main__":
    trio.run(main)
