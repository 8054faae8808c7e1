"""The key store in Redis, which all servers of a fleet share.

Records are cached for ``recall_seconds``, so that a key in use costs no round trip. `asyncapy_redis.client` sends the
commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import (
    Finding,
    RecordCache,
    check_timeout,
    checked_record,
    log,
    metadata_text,
    skip_damaged,
    take_seconds,
)
from asyncapy_redis import scripts
from asyncapy_redis.client import RedisClient
from asyncapy_redis.connecting import redact
from asyncapy_redis.health import describe, find_weaknesses

DEFAULT_PREFIX: Final = "asyncapy"
PAGE: Final = 500
"""Records that one step of a purge reads."""


class RedisKeyStore:
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
        self._client = RedisClient(url, timeout)
        self._is_examined = False
        self._recall = RecordCache(recall_seconds)
        self.timeout = timeout
        self.concurrency: int = self._client.connections
        self._names = [f"{{{prefix}}}:keys", f"{{{prefix}}}:ids"]

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
            value = self._redis.read("HGET", self._names[0], digest)
            return None if value is None else _decoded(digest, value)

        return self._recall.read(digest, ask)

    def peek(self, digest: str) -> KeyRecord | None:
        return self._recall.get(digest)

    def find(self, key_id: str) -> str:
        digest = self._redis.read("HGET", self._names[1], key_id)
        if digest is None:
            raise KeyError(key_id)
        return _text(digest)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self._change(scripts.UPDATE, digest, metadata_text(metadata))

    def replace(self, old: str, new: str) -> None:
        self._change(scripts.REPLACE, old, new)

    def remove(self, digest: str) -> None:
        self._change(scripts.REMOVE, digest)

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        values: dict[bytes, bytes] = self._redis.read("HGETALL", self._names[0])
        return iter(sorted(_readable(values), key=lambda item: (item[1].issued, item[0])))

    def purge(self, now: float) -> int:
        purged, cursor, more = 0, 0, True
        while more:  # a page at a time, as Redis serves no other client while a script runs
            cursor, page = self._page(cursor)
            expired = [digest for digest, record in _readable(page) if record.expired(now)]
            if expired:
                purged += int(self._run(scripts.PURGE, repr(now), *expired))
            more = cursor != 0
        return purged

    def _page(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        """Return the cursor of the next page, 0 after the last one, and the records of this page by digest."""
        page: tuple[int, dict[bytes, bytes]] = self._redis.read("HSCAN", self._names[0], cursor, "COUNT", PAGE)
        return page

    def examine(self) -> Iterator[Finding]:
        """Yield facts about the servers, and settings with which keys can be lost."""
        for where, info in self._client.infos().items():
            yield Finding(f"{where}: {describe(info)}")
            for weakness in find_weaknesses(info):
                yield Finding(f"{where}: {weakness}", is_problem=True)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @property
    def _redis(self) -> RedisClient:
        """The client. On first use, a warning is logged for each setting with which keys can be lost."""
        if not self._is_examined:
            self._is_examined = True
            try:
                for finding in self.examine():
                    if finding.is_problem:
                        log.warning("{Key store} %s", finding.text)
            except KeyStoreUnavailable:
                self._is_examined = False
                raise
            except KeyStoreError:  # the user may not run INFO
                log.debug("{Key store} the settings of Redis could not be checked", exc_info=True)
        return self._client

    def _change(self, script: str, digest: str, *values: str) -> None:
        """Change one record, or raise KeyError if it does not exist. In any case drop it from the cache."""
        try:
            changed = self._run(script, digest, *values)
        finally:
            self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)

    def _run(self, script: str, *values: str) -> Any:
        return self._redis.run_script(script, self._names, *values)


def _encoded(record: KeyRecord) -> str:
    """Return the text of a record for Redis: id, time of issue, expiry and metadata, a line each."""
    expires = "" if record.expires is None else repr(record.expires)
    return f"{record.id}\n{record.issued!r}\n{expires}\n{metadata_text(record.metadata)}"


def _readable(values: dict[bytes, bytes]) -> Iterator[tuple[str, KeyRecord]]:
    """Yield digests and records; a damaged one is skipped, with a warning."""
    return skip_damaged(values.items(), lambda item: (_text(item[0]), _decoded(_text(item[0]), item[1])))


def _decoded(digest: str, value: bytes) -> KeyRecord:
    name = f"the record of digest {digest[:16]!a} in Redis"
    lines = value.split(b"\n", 3)
    if len(lines) < 4:
        raise KeyStoreError(f"{name} is damaged, or of another program; give this store a prefix of its own")
    key_id, issued, expires, metadata = lines
    name = f"the record of key {_text(key_id)!a} (revoke it by its id)"
    return checked_record(name, key_id=key_id, metadata=metadata, issued=issued, expires=expires or None)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
