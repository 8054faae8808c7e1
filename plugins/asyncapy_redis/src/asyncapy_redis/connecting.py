"""Redis clients from URLs: single servers, Sentinel and Cluster.

This module depends on redis-py and is independent of keys.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from asyncapy_core.errors import KeyStoreError
from asyncapy_redis.plugin import SCHEMES

SENTINEL_PORT: Final = 26379

Client = Any
"""`redis.Redis` or `redis.RedisCluster`, which have no common base class with the commands."""


def check(url: str, timeout: float) -> None:
    """Validate a URL without connecting to a server.

    Raises:
        KeyStoreError: the scheme, the form or an option of the URL is wrong.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise KeyStoreError(f"{redact(url)} is not a Redis URL: it must begin with one of {', '.join(SCHEMES)}")
    if scheme.endswith("+cluster"):
        connect(_plain(url), timeout)
    else:
        connect(url, timeout)


def connect(url: str, timeout: float) -> Client:
    """Return a client for a URL. A cluster is contacted immediately, a single server or Sentinel on first use.

    No command is retried: Redis may have executed a write although its reply was lost.

    Raises:
        KeyStoreError: the URL is wrong.
        redis.RedisError, redis.exceptions.RedisClusterException: the cluster cannot be reached.
    """
    settings: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
    }
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith("+cluster"):
            return redis.RedisCluster.from_url(_plain(url), **settings)
        if scheme.endswith("+sentinel"):
            return _sentinel(url, settings)
        client = redis.Redis.from_url(url, **settings)
        _make_connection(client)
    except (ValueError, TypeError) as error:  # the message may contain the password
        raise KeyStoreError(f"{redact(url)} is not a Redis URL: {_harmless(error)}") from None
    return client


def redact(url: str) -> str:
    """Return a URL, which may be malformed, without its user, password and options, for messages."""
    scheme, _, rest = url.partition("://")
    place, mark, options = rest.replace("#", "?").partition("?")
    if mark and "@" in options:
        return f"{scheme}://..."  # the ? may be a part of the password
    return f"{scheme}://{place.rpartition('@')[2]}"


def _sentinel(url: str, settings: dict[str, Any]) -> Client:
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not places:
        raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or .../SERVICE/DB")
    username, _, password = credentials.partition(":")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    tls = {"ssl": parts.scheme == "rediss+sentinel", **{name: options[name] for name in options if name[:4] == "ssl_"}}
    account = {"username": unquote(username) or None, "password": unquote(password) or None}
    connection = {**settings, **account, **options, **tls, "db": int(database or 0)}
    _make_connection(redis.Redis(**connection))
    sentinels = [_place(place) for place in places.split(",")]
    sentinel: Any = Sentinel(sentinels, sentinel_kwargs={**settings, **tls})  # type: ignore[no-untyped-call]  # redis-py does not type it
    return sentinel.master_for(service, **connection)


def _make_connection(client: Any) -> None:
    """Make redis-py validate the options, which it does when it makes a connection. The connection is not opened."""
    client.connection_pool.make_connection()


def _place(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    return (host.strip("[]"), int(port)) if colon else (place, SENTINEL_PORT)


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0]))


def _harmless(error: Exception) -> str:
    """Return a message without secrets: redis-py's for an unknown option, ours for a Sentinel URL, or a general one."""
    text = str(error)
    if "unexpected keyword" in text or text.startswith("write "):
        return text
    return "write scheme://user:password@host:port/db, with special characters of the password as %XX"
