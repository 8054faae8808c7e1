"""Measure the CPU time of a request to a server with asyncapy-metrics, scraped each second, relative to one without.

Both servers are started several times, as two processes of one program differ by some per cent. The scrapes of the
server are part of its CPU time.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

from load import FRAMES, run
from processes import serving
from ratios import LOAD, PROGRAM, measure_ratio

INTERVAL = 1.0
SECONDS = 2.0
"""Seconds for which each server is measured in a round, with a scrape in each."""
TARGET = 1.1


def measure_metrics(starts: int, rounds: int) -> list[dict[str, Any]]:
    """Print and return the ratio."""
    title = (
        "a request to a server with metrics that are scraped each second, 4 "
        "connections, 32 in flight: {} times one without"
    )
    return measure_ratio("metrics", title, TARGET, starts, lambda: _ratio(rounds))


def _ratio(rounds: int) -> float:
    """Return the median of the ratios of some rounds, for two processes."""
    port = _free_port()
    with (
        serving(PROGRAM, sys.executable, tls=False) as plain,
        serving(
            PROGRAM, sys.executable, tls=False, environment={"ASYNCAPY_PLUGIN_METRICS__PORT": str(port)}
        ) as scraped,
    ):
        ratios = []
        for _ in range(rounds):
            without = run(plain, FRAMES, LOAD, SECONDS).cpu
            with _scraping(port):
                ratios.append(run(scraped, FRAMES, LOAD, SECONDS).cpu / without)
        return statistics.median(ratios)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _scraping(port: int) -> Iterator[None]:
    """Scrape the metrics at once, and then each `INTERVAL`, for the length of the block."""
    ended = threading.Event()

    def scrape() -> None:
        while True:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
                reply.read()
            if ended.wait(INTERVAL):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    measure_metrics(int(sys.argv[1]) if sys.argv[1:] else 7, 2)
