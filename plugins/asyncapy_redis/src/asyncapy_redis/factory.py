"""`RedisAPIKeyFactory`: an `APIKeyFactory` with its keys in Redis."""

from __future__ import annotations

from asyncapy_core import APIKeyFactory
from asyncapy_redis.store import DEFAULT_PREFIX, RedisKeyStore


class RedisAPIKeyFactory(APIKeyFactory):
    """An `APIKeyFactory` whose keys are in Redis.

    The keys outlive the process, and all servers that use the same Redis share them. A key that is revoked through one
    server is refused by all others within ``recall_seconds``. While Redis is unavailable, no key passes, and no filter
    or method that begins with ``a`` waits longer than ``timeout``. While Redis answers, these wait for their turn.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB`` or
            ``redis+cluster://HOST:PORT``.
        size: the length of a key in characters, 8 to 1024.
        prefix: the prefix of the names in Redis, by which several factories can share one Redis.
        timeout: seconds that a call may wait for Redis.
        recall_seconds: seconds for which a key that was looked up is cached; 0 turns the cache off.

    Raises:
        KeyStoreError: the URL is wrong, or a number is out of range. An unavailable Redis is an error only when a
            key is issued, checked or changed.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        size: int = 32,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = 1.0,
        recall_seconds: float = 0.5,
    ) -> None:
        super().__init__(size, store=RedisKeyStore(url, prefix=prefix, timeout=timeout, recall_seconds=recall_seconds))
