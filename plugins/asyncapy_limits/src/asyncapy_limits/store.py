"""`Store`: a Redis or Valkey in which servers count together. Its calls block, and are made in threads.

redis-py is imported with this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from asyncapy_core.errors import ConfigError
from asyncapy_limits.stores import StoreUnavailable

SCHEMES: Final = ("redis", "rediss", "unix")
PREFIX: Final = "asyncapy:limits"
LONGEST_TIMEOUT: Final = 60.0

Command = tuple[str | float, ...]
"""A command and its arguments."""


class Store:
    """The place of a store, and the options of the connections to it.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with the options of redis-py, and with ``timeout``, the
            seconds that a round trip may take, and ``prefix``, with which all names in the store begin.

    Attributes:
        where: the URL without its secrets, for messages.
        timeout: seconds.
        prefix: the prefix.

    Raises:
        ConfigError: the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        self.where: str = _redact(url)
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            self.timeout: float = float(query.pop("timeout", 1.0))
            self.prefix: str = query.pop("prefix", PREFIX)
            self._url = urlunsplit(parts._replace(query=urlencode(query)))
            if parts.scheme not in SCHEMES or not 0 < self.timeout <= LONGEST_TIMEOUT:
                raise ValueError
            self.connect().connection_pool.make_connection()  # redis-py checks options here; this opens nothing
        except (ValueError, TypeError, redis.RedisError):  # the message may contain the password
            raise ConfigError(
                f"{self.where} is no store for rate limits; write redis://user:password@host:port/db, or rediss:// for "
                "TLS, with special characters of the password as %XX; a timeout is a number of seconds up to "
                f"{LONGEST_TIMEOUT:g}"
            ) from None

    def connect(self) -> redis.Redis:
        """Return a client, which connects when it is used. It repeats no command: the store may have executed it."""
        waits = {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}
        return redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **waits)

    def run(self, client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip, and return their replies; that of a command that failed is an exception.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        try:
            with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py does not type it
                return pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"{self.where}: {error}") from error

    def __repr__(self) -> str:
        return f"<Store {self.where}>"


def _redact(url: str) -> str:
    """Return a URL, which may be malformed, without its user, password and options."""
    scheme, separator, rest = str(url).partition("://")
    if not separator:
        return "a text without ://"
    place, mark, options = rest.replace("#", "?").partition("?")
    if mark and "@" in options:
        return f"{scheme}://..."  # the ? may be a part of the password
    return f"{scheme}://{place.rpartition('@')[2]}"
