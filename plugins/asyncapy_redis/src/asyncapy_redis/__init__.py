"""API keys in Redis, shared by all servers that use the same Redis: ``RedisAPIKeyFactory("redis://localhost")``.

redis-py is imported on first use: it takes longer to import than a whole server, and each server loads its plugins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncapy_redis.factory import RedisAPIKeyFactory
    from asyncapy_redis.store import RedisKeyStore

__all__ = ["RedisAPIKeyFactory", "RedisKeyStore"]


def __getattr__(name: str) -> Any:
    if name == "RedisAPIKeyFactory":
        return importlib.import_module("asyncapy_redis.factory").RedisAPIKeyFactory
    if name == "RedisKeyStore":
        return importlib.import_module("asyncapy_redis.store").RedisKeyStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
