"""`Exposition`: the metrics of a server as text, written when they are asked for, in short steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from asyncapy_metrics.families import metrics_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from asyncapy_core import Server

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

SHARE: Final = 0.1
"""The part of the processor's time that texts may take, however many are asked for."""


class Exposition:
    """Writes the metrics of a server and of its process.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process = ProcessCollector(registry=None)
        self._thread = trio.CapacityLimiter(1)  # one of its own: handlers may use all others
        self._lock = trio.Lock()
        self._begun = self._written = 0  # numbers of texts
        self._text = b""
        self._next = trio.current_time()

    async def text(self) -> bytes:
        """Return the metrics at a moment after this call. Calls at the same time get the same text."""
        before = self._begun
        async with self._lock:
            if self._written <= before:
                await trio.sleep_until(self._next)
                self._begun += 1
                self._text = await self._write()
                self._written = self._begun
            return self._text

    async def _write(self) -> bytes:
        process = await trio.to_thread.run_sync(self._process.collect, limiter=self._thread, abandon_on_cancel=True)
        seconds = 0.0
        parts = []
        name = ""
        began = time.thread_time()
        threads = trio.to_thread.current_default_thread_limiter().statistics()
        try:
            for metric in itertools.chain(metrics_of(self._server.statistics(), threads), process):
                parts.append(_lines(metric, is_first=metric.name != name))
                name = metric.name
                seconds += time.thread_time() - began
                await trio.lowlevel.checkpoint()
                began = time.thread_time()
        finally:
            self._next = trio.current_time() + seconds / SHARE
        return b"".join(parts)


class _One(Collector):
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return [self._metric]


def _lines(metric: Metric, *, is_first: bool) -> bytes:
    """Return the lines of a metric, or of a further part of it: these have no header, which is two lines."""
    text = generate_latest(_One(metric))
    return text if is_first else text.split(b"\n", 2)[2]
