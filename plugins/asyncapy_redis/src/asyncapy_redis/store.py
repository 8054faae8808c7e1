"""The key store in Redis, which all servers of a fleet share.

Records are cached, so that a key in use costs no round trip. `asyncapy_redis.client` sends the commands,
`asyncapy_redis.layout` names the keys, `asyncapy_redis.pages` reads all records, and `asyncapy_redis.tracking`
receives notices of changes by other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from asyncapy_core import KeyRecord
from asyncapy_core.errors import KeyStoreError, KeyStoreUnavailable
from asyncapy_core.storage import Finding, RecordCache, check_timeout, log, metadata_text, take_seconds
from asyncapy_redis import migration, pages, scripts
from asyncapy_redis.client import RedisClient
from asyncapy_redis.connecting import redact
from asyncapy_redis.health import describe, find_weaknesses
from asyncapy_redis.layout import TAGS, Layout, decode, encode, expiry, text
from asyncapy_redis.tracking import Tracker

DEFAULT_PREFIX: Final = "asyncapy"


class RedisKeyStore:
    """A `KeyStore` in Redis 6 or later. Every change is one script on the keys of one hash slot.

    Args:
        url: as `RedisAPIKeyFactory` describes it.
        prefix: the prefix of the names in Redis, without braces.
        timeout: seconds that a call may wait for Redis.
        recall_seconds: seconds for which a record that was read is cached; 0 turns the cache off.

    Raises:
        KeyStoreError: the URL or the prefix is wrong, or a number is out of range.
    """

    blocking = True

    def __init__(
        self, url: str, *, prefix: str = DEFAULT_PREFIX, timeout: float = 1.0, recall_seconds: float = 0.5
    ) -> None:
        check_timeout(timeout)
        self._layout = Layout(prefix)
        self._client = RedisClient(url, timeout)
        self._is_examined = False
        self._recall = RecordCache(recall_seconds)
        self._tracker = Tracker(url, timeout, self._layout.records, self._recall)
        self.timeout = timeout
        self.concurrency: int = self._client.connections

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
        keys = [self._layout.record(digest), self._layout.index(digest)]
        values = record.id, encode(record), expiry(record.expires), digest
        if not self._redis.run_script(scripts.ADD, keys, *values):
            raise KeyStoreError("a key with this digest exists already")

    def get(self, digest: str) -> KeyRecord:
        return self.get_many([digest])[digest]

    def get_many(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        """Return the records with these digests, by digest, from one round trip to each server."""
        if any(self._recall.was_read(digest) for digest in digests):
            self._tracker.start()
        return self._recall.read_many(digests, self._read)

    def peek(self, digest: str) -> KeyRecord | None:
        record = self._recall.get(digest)
        if record is not None:  # a key in use
            self._tracker.start()
        return record

    def find(self, key_id: str) -> str:
        found = self._redis.read_all([("HGET", self._layout.index(tag), key_id) for tag in sorted(TAGS)])
        digest = next((digest for digest in found if digest is not None), None)
        if digest is None:
            raise KeyError(key_id)
        return text(digest)

    def update(self, digest: str, metadata: dict[str, Any]) -> None:
        self._change(digest, scripts.UPDATE, [self._layout.record(digest)], metadata_text(metadata))

    def can_replace(self, old: str, new: str) -> bool:
        """Return whether two digests have the same hash slot, so that one script can move a record."""
        return old[:2] == new[:2]

    def replace(self, old: str, new: str) -> None:
        if not self.can_replace(old, new):
            raise ValueError("the digests have different hash slots; draw a key for which can_replace is true")
        keys = [self._layout.record(old), self._layout.record(new), self._layout.index(new)]
        self._change(old, scripts.REPLACE, keys, new)

    def remove(self, digest: str) -> None:
        self._change(digest, scripts.REMOVE, [self._layout.record(digest), self._layout.index(digest)])

    def records(self) -> Iterator[tuple[str, KeyRecord]]:
        found = {record.id: (digest, record) for digest, record in pages.read_all(self._redis, self._layout)}
        return iter(sorted(found.values(), key=lambda item: (item[1].issued, item[0])))

    def purge(self, now: float) -> int:
        return pages.purge(self._redis, self._layout, now)

    def watch(self, changed: Callable[[str | None], object]) -> Callable[[], None]:
        """Call a function when a record changes; see `asyncapy_core.WatchableKeyStore`."""
        end = self._recall.watch(changed)
        self._tracker.start()
        return end

    def migrate(self) -> int:
        """Move the keys of 0.6.0.dev0, which kept them in two hashes, and return their number.

        Raises:
            KeyStoreError: another process moves them, or Redis answered with an error.
            KeyStoreUnavailable: Redis does not answer. Call this again: keys that were moved stay.
        """
        return migration.migrate(self._client, self._layout)

    def examine(self) -> Iterator[Finding]:
        """Yield facts about the servers, and settings with which keys can be lost."""
        for where, info in self._client.infos().items():
            yield Finding(f"{where}: {describe(info)}")
            for weakness in find_weaknesses(info):
                yield Finding(f"{where}: {weakness}", is_problem=True)

    def close(self) -> None:
        """Close all connections."""
        self._tracker.close()
        self._client.close()

    @property
    def _redis(self) -> RedisClient:
        """The client. On first use, a warning is logged for each setting with which keys can be lost."""
        if not self._is_examined:
            migration.check(self._client, self._layout)
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

    def _read(self, digests: Sequence[str]) -> dict[str, KeyRecord]:
        commands = [("GET", self._layout.record(digest)) for digest in digests]
        values = self._redis.read_all(commands)
        found = zip(digests, values, strict=True)
        return {digest: decode(digest, value) for digest, value in found if value is not None}

    def _change(self, digest: str, script: str, keys: list[str], *values: str) -> None:
        """Change one record, or raise KeyError if it does not exist. In any case drop it from the cache."""
        try:
            changed = self._redis.run_script(script, keys, *values)
        finally:
            self._recall.forget(digest)
        if not changed:
            raise KeyError(digest)
