"""From a URL to a Redis client: single servers, Sentinel and Cluster.

Knows redis-py, and nothing of keys.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from asyncapy_core.errors import KeyStoreError

SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
SENTINEL_PORT: Final = 26379

Client = Any
"""`redis.Redis` or `redis.RedisCluster`, which share no base class that has the commands."""


def connect(url: str, timeout: float) -> Client:
    """Return a client for a URL. Only a cluster is spoken to at once; the others when they are used.

    Nothing is tried twice: a write of which the answer was lost may have been done.

    Raises:
        KeyStoreError: the URL is wrong.
        redis.RedisError: the cluster cannot be reached.
    """
    scheme, _, kind = urlsplit(url).scheme.partition("+")
    settings: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    try:
        if kind == "sentinel":
            return _sentinel(url, tls=scheme == "rediss", settings=settings)
        if kind == "cluster":
            return redis.RedisCluster.from_url(_plain(url, scheme), **settings, cluster_error_retry_attempts=0)
        return redis.Redis.from_url(url, **settings)
    except ValueError as error:
        raise KeyStoreError(f"{shown(url)} is not a Redis URL: {error}") from error


def shown(url: str) -> str:
    """Return a URL for messages: without a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _sentinel(url: str, *, tls: bool, settings: dict[str, Any]) -> Client:
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not places:
        raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or .../SERVICE/DB")
    username, _, password = credentials.partition(":")
    sentinels = [_place(place) for place in places.split(",")]
    connection = {
        **settings,
        "db": int(database or 0),
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "ssl": tls,
    }
    sentinel: Any = Sentinel(sentinels, sentinel_kwargs={**settings, "ssl": tls})  # type: ignore[no-untyped-call]  # redis-py does not type it
    return sentinel.master_for(service, **connection)


def _place(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    return (host.strip("[]"), int(port)) if colon else (place, SENTINEL_PORT)


def _plain(url: str, scheme: str) -> str:
    return urlunsplit(urlsplit(url)._replace(scheme=scheme))
