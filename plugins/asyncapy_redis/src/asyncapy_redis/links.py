"""Connections to all masters, on which Redis sends notices of changed records.

Each connection turns the notices on (``CLIENT TRACKING ON BCAST``, RESP3), and sends ``ROLE`` a few times in each
``recall_seconds``. Redis sends the notices of all changes before a command ahead of the reply to it. So a reply
confirms the cache until the time at which ``ROLE`` was sent, and records are cached for ``recall_seconds`` from then.
However a connection ends, a revoked key passes for no longer than that.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from typing import Any

import redis

from asyncapy_core.storage import RecordCache
from asyncapy_redis.client import AWAY


class Links:
    """Connections that work together: the cache is confirmed while all of them work, and not after one has failed.

    Args:
        connections: a connection with RESP3 to each master.
        cache: the cache. A record is the part of a name after the last colon.
        stopping: ends the connections when it is set.
        prefix: the beginning of the names of all records.
        interval: seconds between two confirmations.
        is_cluster: whether the masters belong to a cluster, which may get other masters.
    """

    def __init__(
        self,
        connections: list[Any],
        cache: weakref.ref[RecordCache],
        stopping: threading.Event,
        *,
        prefix: str,
        interval: float,
        is_cluster: bool,
    ) -> None:
        self._connections = connections
        self._cache = cache
        self._stopping = stopping
        self._prefix = prefix
        self._interval = interval
        self._is_cluster = is_cluster
        self._lock = threading.Lock()
        self._confirmed: dict[int, tuple[float, float]] = {}
        self._errors: list[Exception] = []
        self._is_over = False

    def follow(self) -> None:
        """Confirm the cache, and return when the store is closed.

        Raises:
            redis.RedisError, OSError: a connection failed, a server is not a master, or there are other masters.
        """
        others = [
            threading.Thread(target=self._follow, args=[number], name="asyncapy-redis-tracking", daemon=True)
            for number in range(1, len(self._connections))
        ]
        for thread in others:
            thread.start()
        self._follow(0)
        for thread in others:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """Interrupt the waits for all connections."""
        self._is_over = True
        for connection in self._connections:
            with contextlib.suppress(OSError, AttributeError):  # it is not open
                connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # disconnect() closes it under the reader

    def _follow(self, number: int) -> None:
        connection = self._connections[number]
        try:
            connection.connect()
            connection._parser.set_invalidation_push_handler(self._drop)  # noqa: SLF001  # redis-py has no other way
            _ask(connection, "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
            since = time.monotonic()
            masters = self._masters(connection, number)
            while not self._must_end:
                asked = time.monotonic()
                role = _ask(connection, "ROLE")[0]
                if role != b"master":
                    raise redis.ConnectionError(f"its role is {role!r}")
                if self._masters(connection, number) != masters:
                    raise redis.ConnectionError("the cluster has other masters")
                self._confirm(number, since, asked)
                while (left := asked + self._interval - time.monotonic()) > 0 and not self._must_end:
                    if connection.can_read(left):
                        connection.read_response(push_request=True)
        except (*AWAY, redis.RedisError) as error:
            self._errors.append(error)
        finally:
            self._end()
            connection.disconnect()

    def _masters(self, connection: Any, number: int) -> set[bytes]:
        """Return the ids of all masters of the cluster, as the first connection sees them; raise if one has no link."""
        if number or not self._is_cluster:
            return set()
        nodes = [line.split() for line in _ask(connection, "CLUSTER", "NODES").splitlines()]
        masters = {node[0] for node in nodes if b"master" in (flags := node[2].split(b",")) and b"fail" not in flags}
        if len(masters) != len(self._connections):  # one without slots may get some at any time
            raise redis.ConnectionError(f"{len(masters)} masters, {len(self._connections)} of them with keys")
        return masters

    @property
    def _must_end(self) -> bool:
        return self._is_over or self._stopping.is_set()

    def _confirm(self, number: int, since: float, asked: float) -> None:
        with self._lock:
            self._confirmed[number] = since, asked
            cache = self._cache()
            if len(self._confirmed) == len(self._connections) and not self._is_over and cache is not None:
                begins, times = zip(*self._confirmed.values(), strict=True)
                cache.confirm(max(begins), min(times))

    def _end(self) -> None:
        """Confirm the cache no more, and end the other connections."""
        with self._lock:
            self.stop()
        cache = self._cache()
        if cache is not None:
            cache.distrust()

    def _drop(self, message: list[Any]) -> None:
        """Drop the records of a notice: the names that were changed, or None for all names."""
        cache = self._cache()
        if cache is None:
            return
        if message[1] is None:
            cache.clear()
        else:
            cache.forget(*(name.rpartition(b":")[2].decode("ascii", "replace") for name in message[1]))


def _ask(connection: Any, *command: str) -> Any:
    connection.send_command(*command)
    return connection.read_response()
