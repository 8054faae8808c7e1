"""The key store in Redis, which all servers of a fleet share.

Records are cached for ``recall_seconds``, so that a key in use costs no round trip. While Redis is unavailable, calls
fail immediately or within their time limit; after a pause of `PAUSE` seconds the next call tries again.
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
from asyncapy_core.storage import ForkAware, RecordCache, check_timeout, metadata_text, take_seconds, watch_forks
from asyncapy_redis import scripts
from asyncapy_redis.connecting import Client, check, connect, redact

DEFAULT_PREFIX: Final = "asyncapy"
PAGE: Final = 500
"""Records that one step of a purge reads."""

PAUSE: Final = 0.25
"""Seconds without a new attempt after Redis did not answer."""

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
"""The exceptions that redis-py raises if Redis cannot be reached, or cannot serve at the moment."""

T = TypeVar("T")


class RedisKeyStore(ForkAware):
    """A `KeyStore` in Redis 6 or later. All its data is in one hash slot, as every change is one script.

    Args:
        url: as `RedisAPIKeyFactory` describes it.
        prefix: the prefix of the names in Redis.
        timeout: seconds that a call may wait for Redis.
        recall_seconds: seconds for which a record that was read is cached; 0 turns the cache off.

    Raises:
        KeyStoreError: the URL is wrong, or a number is out of range.
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
        self._inherited: list[Client] = []
        self._away_until = 0.0
        watch_forks(self)

    @classmethod
    def from_url(cls, url: str) -> RedisKeyStore:
        """Open the store of a URL.

        Its query may set ``prefix``, ``timeout`` and ``recall_seconds``; redis-py gets the other options.

        Raises:
            KeyStoreError: the URL is wrong, or a number is out of range.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # the message may contain the password
            raise KeyStoreError(f"{redact(url)} is not a URL") from None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        own: dict[str, Any] = {name: query.pop(name) for name in ("prefix",) if name in query}
        own |= take_seconds(query, redact(url))
        return cls(urlunsplit(parts._replace(query=urlencode(query))), **own)

    def add(self, digest: str, record: KeyRecord) -> None:
        value = _encoded(record)
        if not self._run(scripts.ADD, digest, record.id, value):
            raise KeyStoreError("a key with this digest exists already")

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
        while more:  # a page at a time, as Redis serves no other client while a script runs
            cursor, page = self._page(cursor)
            expired = [digest for digest, value in page.items() if _decoded(value).expired(now)]
            if expired:
                purged += int(self._run(scripts.PURGE, repr(now), *expired))
            more = cursor != 0
        return purged

    def _page(self, cursor: int) -> tuple[int, dict[str, str]]:
        """Return the cursor of the next page, 0 after the last one, and the records of this page by digest."""
        page: tuple[int, dict[str, str]] = self._ask(lambda client: client.hscan(self._names[0], cursor, count=PAGE))
        return page

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def after_fork_in_child(self) -> None:
        """Make another client on the next call: this one has connections and locks of the parent.

        It is kept, as its destructor waits for a lock that a thread of the parent may hold.
        """
        self._lock = threading.Lock()
        self._inherited.append(self._client)
        self._client = None

    def _change(self, script: str, digest: str, *values: str) -> None:
        """Change one record, or raise KeyError if it does not exist. In any case drop it from the cache."""
        try:
            changed = self._run(script, digest, *values)
        finally:
            self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)

    def _run(self, script: str, *values: str) -> Any:
        return self._ask(lambda client: client.eval(script, len(self._names), *self._names, *values))

    def _ask(self, command: Callable[[Client], T]) -> T:
        """Send a command, unless Redis did not answer a moment ago, and translate the exceptions of redis-py."""
        if time.monotonic() < self._away_until:
            raise KeyStoreUnavailable(f"{redact(self._url)} did not answer a moment ago; no key passes until it does")
        try:
            return command(self._connected())
        except AWAY as error:
            self._away_until = time.monotonic() + PAUSE
            reason = str(error).partition(" : <")[0]  # redis-py appends a list of its attempts
            raise KeyStoreUnavailable(
                f"{redact(self._url)} is unavailable: {reason}; no key passes until it answers again"
            ) from error
        except redis.RedisError as error:
            raise KeyStoreError(f"{redact(self._url)}: {error}") from error

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect(self._url, self.timeout)
            return self._client


def _encoded(record: KeyRecord) -> str:
    """Return the text of a record for Redis: id, time of issue, expiry and metadata, a line each."""
    expires = "" if record.expires is None else repr(record.expires)
    return f"{record.id}\n{record.issued!r}\n{expires}\n{metadata_text(record.metadata)}"


def _decoded(value: str) -> KeyRecord:
    try:
        key_id, issued, expires, metadata = value.split("\n", 3)
        return KeyRecord(key_id, json.loads(metadata), float(issued), float(expires) if expires else None)
    except ValueError as error:
        raise KeyStoreError(
            "a record in Redis is damaged, or of another program; give this store a prefix of its own"
        ) from error
