"""The thread in which a store receives notices of changes by other processes, if Redis sends them.

`asyncapy_redis.links` has the connections. This module starts the thread, and connects again after a failure.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from typing import Final

import redis

from asyncapy_core.storage import ForkAware, RecordCache, log, watch_forks
from asyncapy_redis.client import AWAY
from asyncapy_redis.connecting import Masters, Target, parse, redact
from asyncapy_redis.links import Links

CHECKS: Final = 3
"""Confirmations in each ``recall_seconds``."""

SHORTEST_INTERVAL: Final = 0.05
LONGEST_INTERVAL: Final = 1.0
"""The most seconds between two confirmations. It is also the time between two attempts to connect."""

LONGEST_CLOSE: Final = 0.2
"""Seconds for which `Tracker.close` waits."""

REFUSED_INTERVAL: Final = 60.0
"""Seconds until the next attempt after the server has refused."""


class Tracker(ForkAware):
    """The thread of one store. It starts when `start` is called, and ends with `close` or the last use of the cache.

    Args:
        url: the URL of the store.
        timeout: the seconds that connecting and each reply may take.
        prefix: the beginning of the names of all records.
        cache: the cache to confirm. A record is the part of a name after the last colon.
    """

    def __init__(self, url: str, timeout: float, prefix: str, cache: RecordCache) -> None:
        target = parse(url, timeout)
        options = target.options | {"protocol": 3, "health_check_interval": 0}
        self._target = dataclasses.replace(target, options=options)
        self._where = redact(url)
        self._prefix = prefix
        self._cache = cache
        self._lock = threading.Lock()
        self._thread: _Thread | None = None
        self._inherited: list[_Thread | None] = []
        self._is_closed = False
        watch_forks(self)

    def start(self) -> None:
        """Start the thread unless it runs, or the store is closed."""
        if self._is_needed():
            with self._lock:
                if not self._is_needed():
                    return
                self._thread = _Thread(self._target, self._where, self._prefix, self._cache)
                self._thread.start()

    def close(self) -> None:
        """End the thread, and wait until its connections are closed, but not until it has failed to open one."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            thread.stop()
            thread.join(LONGEST_CLOSE)

    def _is_needed(self) -> bool:
        return self._thread is None and not self._is_closed

    def after_fork_in_child(self) -> None:
        """Start another thread when a key is in use. The connections of the parent are kept and not used."""
        self._lock = threading.Lock()
        self._inherited.append(self._thread)
        self._thread = None


class _Thread(threading.Thread):
    """Connects to all masters, confirms the cache as long as all connections work, and connects again."""

    def __init__(self, target: Target, where: str, prefix: str, cache: RecordCache) -> None:
        super().__init__(name="asyncapy-redis-tracking", daemon=True)
        self.stopping = threading.Event()
        self._masters = Masters(target)
        self._where = where
        self._prefix = prefix
        self._interval = min(max(cache.seconds / CHECKS, SHORTEST_INTERVAL), LONGEST_INTERVAL)
        self._cache = weakref.ref(cache, lambda _: self.stopping.set())
        self._is_refused = False
        self._links: Links | None = None

    def stop(self) -> None:
        """Let the thread end."""
        self.stopping.set()
        if self._links is not None:
            self._links.stop()

    def run(self) -> None:
        while not self.stopping.is_set():
            retry_at = time.monotonic() + self._follow()
            while not self.stopping.is_set() and (left := retry_at - time.monotonic()) > 0:
                self._distrust()
                self.stopping.wait(min(left, LONGEST_INTERVAL))

    def _distrust(self) -> None:
        cache = self._cache()
        if cache is not None:
            cache.distrust()

    def _follow(self) -> float:
        """Confirm the cache until a connection fails, and return the seconds until the next attempt."""
        try:
            self._links = Links(
                self._masters.connections(),
                self._cache,
                self.stopping,
                prefix=self._prefix,
                interval=self._interval,
                is_cluster=self._masters.is_cluster,
            )
            self._links.follow()
        except AWAY as error:
            log.debug("{Key store} %s sends no notices of changed keys at the moment: %s", self._where, error)
        except redis.RedisError as error:
            if not self._is_refused:
                self._is_refused = True
                log.info(
                    "{Key store} %s refuses notices of changed keys; a record is cached for recall_seconds: %s",
                    self._where,
                    error,
                )
            return REFUSED_INTERVAL
        return LONGEST_INTERVAL
