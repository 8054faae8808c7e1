"""API keys in Redis, shared by all servers that use the same Redis: ``RedisAPIKeyFactory("redis://localhost")``."""

from asyncapy_redis.factory import RedisAPIKeyFactory
from asyncapy_redis.store import RedisKeyStore

__all__ = ["RedisAPIKeyFactory", "RedisKeyStore"]
