"""The key store in Redis, which all servers of a fleet share.

A record that was read is recalled for a moment, so that a key in use costs no round trip. When Redis is away, every
call fails at once or within the time limit, and after a short pause the next one tries again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import RecordCache, check_timeout, metadata_text, take_seconds
from asyncapy_redis import scripts
from asyncapy_redis.connecting import Client, check, connect, redact

DEFAULT_PREFIX: Final = "asyncapy"
PAGE: Final = 500
"""Records that are looked at in one step of a purge."""

PAUSE: Final = 0.25
"""Seconds for which Redis is left alone after it did not answer."""

AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.TryAgainError,
    OSError,
)
"""What redis-py raises when Redis cannot be reached, or cannot serve just now."""

T = TypeVar("T")


class RedisKeyStore:
    """A `KeyStore` in Redis 6 or later. All it keeps is in one hash slot, as every change is one script.

    Args:
        url: as `RedisAPIKeyFactory` describes it.
        prefix: what the names in Redis begin with.
        timeout: seconds that a call may wait for Redis.
        recall_seconds: how long a record that was read is taken for current; 0 asks Redis each time.

    Raises:
        KeyStoreError: the URL is wrong.
    """

    blocking = True

    def __init__(
        self, url: str, *, prefix: str = DEFAULT_PREFIX, timeout: float = 1.0, recall_seconds: float = 0.5
    ) -> None:
        check_timeout(timeout)
        check(url, timeout)
        self._recall = RecordCache(recall_seconds)
        self.timeout = timeout
        self._url = url
        self._names = [f"{{{prefix}}}:keys", f"{{{prefix}}}:ids"]
        self._lock = threading.Lock()
        self._client: Client = None
        self._away_until = 0.0

    @classmethod
    def from_url(cls, url: str) -> RedisKeyStore:
        """Open the store that a URL names.

        ``prefix``, ``timeout`` and ``recall_seconds`` may be among the options in its query; the rest is for redis-py.

        Raises:
            KeyStoreError: the URL is wrong.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # which may quote the password
            raise KeyStoreError(f"{redact(url)} is not a URL") from None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        own: dict[str, Any] = {name: query.pop(name) for name in ("prefix",) if name in query}
        own |= take_seconds(query, redact(url))
        return cls(urlunsplit(parts._replace(query=urlencode(query))), **own)

    def add(self, digest: str, record: KeyRecord) -> None:
        value = _encoded(record)
        if not self._run(scripts.ADD, digest, record.id, value):
            raise KeyStoreError("a key with this digest is there already")

    def get(self, digest: str) -> KeyRecord:
        def ask() -> KeyRecord | None:
            value = self._ask(lambda client: client.hget(self._names[0], digest))
            return None if value is None else _decoded(value)

        return self._recall.read(digest, ask)

    def peek(self, digest: str) -> KeyRecord | None:
        return self._recall.get(digest)

    def find(self, key_id: str) -> str:
        digest = self._ask(lambda client: client.hget(self._names[1], key_id))
        if digest is None:
            raise KeyError(key_id)
        return str(digest)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self._change(scripts.UPDATE, digest, metadata_text(metadata))

    def replace(self, old: str, new: str) -> None:
        self._change(scripts.REPLACE, old, new)

    def remove(self, digest: str) -> None:
        self._change(scripts.REMOVE, digest)

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        values: dict[str, str] = self._ask(lambda client: client.hgetall(self._names[0]))
        records = [(digest, _decoded(value)) for digest, value in values.items()]
        return iter(sorted(records, key=lambda item: (item[1].issued, item[0])))

    def purge(self, now: float) -> int:
        purged, cursor, more = 0, 0, True
        while more:  # a page at a time, for Redis serves nobody else while a script runs
            cursor, page = self._page(cursor)
            expired = [digest for digest, value in page.items() if _decoded(value).expired(now)]
            if expired:
                purged += int(self._run(scripts.PURGE, repr(now), *expired))
            more = cursor != 0
        return purged

    def _page(self, cursor: int) -> tuple[int, dict[str, str]]:
        """Return some records, and where to go on; 0 at the end."""
        page: tuple[int, dict[str, str]] = self._ask(lambda client: client.hscan(self._names[0], cursor, count=PAGE))
        return page

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _change(self, script: str, digest: str, *values: str) -> None:
        """Change one record; KeyError when it is not there. What was recalled of it is forgotten, come what may."""
        try:
            changed = self._run(script, digest, *values)
        finally:
            self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)

    def _run(self, script: str, *values: str) -> Any:
        return self._ask(lambda client: client.eval(script, len(self._names), *self._names, *values))

    def _ask(self, command: Callable[[Client], T]) -> T:
        """Send a command, unless Redis did not answer a moment ago; translate what redis-py raises."""
        if time.monotonic() < self._away_until:
            raise KeyStoreUnavailable(f"{redact(self._url)} did not answer a moment ago; no key passes until it does")
        try:
            return command(self._connected())
        except AWAY as error:
            self._away_until = time.monotonic() + PAUSE
            reason = str(error).partition(" : <")[0]  # where redis-py goes on to list all that it has tried
            raise KeyStoreUnavailable(
                f"{redact(self._url)} is away: {reason}; no key passes until it is back"
            ) from error
        except redis.RedisError as error:
            raise KeyStoreError(f"{redact(self._url)}: {error}") from error

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect(self._url, self.timeout)
            return self._client


def _encoded(record: KeyRecord) -> str:
    """Return a record as Redis keeps it: id, time of issue, expiry and metadata, a line each."""
    expires = "" if record.expires is None else repr(record.expires)
    return f"{record.id}\n{record.issued!r}\n{expires}\n{metadata_text(record.metadata)}"


def _decoded(value: str) -> KeyRecord:
    try:
        key_id, issued, expires, metadata = value.split("\n", 3)
        return KeyRecord(key_id, json.loads(metadata), float(issued), float(expires) if expires else None)
    except ValueError as error:
        raise KeyStoreError("a record in Redis is damaged, or of another program; give a prefix of its own") from error
