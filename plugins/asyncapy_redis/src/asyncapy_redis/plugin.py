"""The plugin module, which the entry point ``redis`` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asyncapy_core import KeyStore, hookimpl

SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


@hookimpl
def asyncapy_key_stores() -> dict[str, Callable[[str], KeyStore]]:
    """Return the URL schemes of single servers, Sentinel and Cluster, each with and without TLS."""
    return dict.fromkeys(SCHEMES, _open_store)


def _open_store(url: str) -> KeyStore:
    """Open a store; this imports redis-py."""
    from asyncapy_redis.store import RedisKeyStore  # noqa: PLC0415  # see above

    return RedisKeyStore.from_url(url)
