"""Runs commands on Redis: a single server, the master that Sentinel names, or a cluster.

Each round trip asks for the role of the server. A master that became a replica still answers on its open connections,
from data that may be old; such a server is left, also if it was reached through an address that does not change.
This module is independent of keys.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import ForkAware, watch_forks
from asyncapy_redis.connecting import Client, parse, redact

PAUSE: Final = 0.25
"""Seconds without a new attempt after Redis did not answer."""

AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.TryAgainError,
    OSError,
)
"""The exceptions that redis-py raises if Redis cannot be reached, or cannot serve at the moment."""

Command = tuple[str | bytes | float, ...]
"""A command and its arguments."""


class RedisClient(ForkAware):
    """Runs commands. Connections are opened on first use, and after a fork each process has its own.

    Args:
        url: as `asyncapy_redis.RedisAPIKeyFactory` describes it, with the options of redis-py.
        timeout: the seconds that connecting and each round trip may take.

    Attributes:
        connections: the most commands that run at the same time; further ones wait, as long as ``timeout``.
        where: the URL without its secrets, for messages.

    Raises:
        KeyStoreError: the URL is wrong.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.where: str = redact(url)
        self._target = parse(url, timeout)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self._target.connections)
        self._client: Client = None
        self._inherited: list[Client] = []
        self._away_until = 0.0
        watch_forks(self)

    @property
    def connections(self) -> int:
        return self._target.connections

    def read(self, *command: str | bytes | float) -> Any:
        """Run a command that changes nothing, and return its reply.

        Raises:
            KeyStoreUnavailable: Redis does not answer, is a replica, or did not answer a moment ago.
            KeyStoreError: Redis answered with an error.
        """
        return self._run([command], changes=False)[0]

    def read_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands that change nothing, in one round trip to each server, and return their replies.

        Raises:
            KeyStoreUnavailable, KeyStoreError: as for `read`.
        """
        return self._run(commands, changes=False) if commands else []

    def run_script(self, script: str, keys: Sequence[str | bytes], *arguments: str | bytes | float) -> Any:
        """Run a script, and return its reply, which is true if and only if the script has changed data.

        Raises:
            KeyStoreUnavailable, KeyStoreError: as for `read`.
        """
        return self._run([("EVAL", script, len(keys), *keys, *arguments)], changes=True)[0]

    def infos(self) -> dict[str, Mapping[str, Any]]:
        """Return the reply to INFO of each master, by its address.

        Raises:
            KeyStoreUnavailable, KeyStoreError: as for `read`.
        """
        reply: dict[str, Any] = self.read("INFO")  # of several masters, by their addresses
        return {self.where: reply} if "redis_version" in reply else reply

    def _run(self, commands: Sequence[Command], *, changes: bool) -> list[Any]:
        if time.monotonic() < self._away_until:
            raise KeyStoreUnavailable(f"{self.where} did not answer a moment ago; no key passes until it does")
        try:
            try:
                return self._attempt(commands, changes=changes)
            except _Demoted:  # a new connection may lead to the new master; the replica has changed nothing
                return self._attempt(commands, changes=changes)
        except (*AWAY, _Demoted) as error:
            self._away_until = time.monotonic() + PAUSE
            raise KeyStoreUnavailable(
                f"{self.where} is unavailable: {_reason(error)}; no key passes until it answers again"
            ) from error
        except redis.RedisError as error:
            raise KeyStoreError(f"{self.where}: {error}") from error

    def close(self) -> None:
        """Close the connections; may be called twice."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def after_fork_in_child(self) -> None:
        """Make another client on the next call: this one has connections and locks of the parent.

        It is kept, as its destructor waits for a lock that a thread of the parent may hold.
        """
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self._target.connections)
        self._inherited.append(self._client)
        self._client = None

    def _attempt(self, commands: Sequence[Command], *, changes: bool) -> list[Any]:
        free = self._free
        if not free.acquire(timeout=self._timeout):
            raise KeyStoreUnavailable(
                f"{self.where}: all {self.connections} connections have been in use for {self._timeout:g} s"
            )
        try:
            return self._send(commands, changes=changes)
        finally:
            free.release()

    def _send(self, commands: Sequence[Command], *, changes: bool) -> list[Any]:
        client = self._connected()
        try:
            if self._target.topology == "cluster":  # its replicas redirect commands
                return _run_on_cluster(client, commands)
            return _run_on_master(client, commands, changes=changes)
        except (*AWAY, _Demoted):
            self._leave(client)
            raise

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._target.connect()
            return self._client

    def _leave(self, client: Client) -> None:
        """Close the idle connections, and open no other with this client; connections in use are closed after it.

        The client of a cluster is kept: it has the addresses of all nodes, and the URL has one of them.
        """
        if self._target.topology == "cluster":
            return
        with self._lock:
            if self._client is client:
                self._client = None
        with contextlib.suppress(*AWAY):
            client.connection_pool.disconnect(inuse_connections=False)


class _Demoted(Exception):
    """The server is a replica, and has executed no command that changes data."""


def _run_on_master(client: Client, commands: Sequence[Command], *, changes: bool) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for command in (("ROLE",), *commands):
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        role = replies.pop(0)
    if isinstance(role, redis.ResponseError):
        raise redis.ResponseError(f"ROLE is refused, by which a master that became a replica is noticed: {role}")
    for error in [reply for reply in replies if isinstance(reply, redis.RedisError)]:
        if isinstance(error, redis.exceptions.ReadOnlyError) or "READONLY" in str(error):  # Redis 6, in a script
            raise _Demoted(str(error))
        raise error
    if role[0] != b"master" and not (changes and all(replies)):
        raise _Demoted("it is a replica, so its data may be old")
    return replies


def _run_on_cluster(client: Client, commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        nodes = {"target_nodes": redis.RedisCluster.PRIMARIES} if commands[0] == ("INFO",) else {}
        return [client.execute_command(*commands[0], **nodes)]
    with client.pipeline() as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute()
    return replies


def _reason(error: Exception) -> str:
    """Return the message of an exception. redis-py appends its attempts on Sentinels; their errors are kept."""
    text, _, attempts = str(error).partition(" : <")
    errors = dict.fromkeys(re.findall(r"> - (?:\w+:)?(\w+)", attempts))
    return f"{text} ({', '.join(errors)})" if errors else text
