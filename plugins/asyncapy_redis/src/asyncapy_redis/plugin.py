"""The plugin module, which the entry point ``redis`` names."""

from __future__ import annotations

from collections.abc import Callable

from asyncapy_core import KeyStore, hookimpl
from asyncapy_redis.connecting import SCHEMES
from asyncapy_redis.store import RedisKeyStore


@hookimpl
def asyncapy_key_stores() -> dict[str, Callable[[str], KeyStore]]:
    """Return the URL schemes of single servers, Sentinel and Cluster, each with and without TLS."""
    return dict.fromkeys(SCHEMES, RedisKeyStore.from_url)
