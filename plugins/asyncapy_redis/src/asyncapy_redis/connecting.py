"""Redis clients from URLs: single servers, Sentinel and Cluster.

This module depends on redis-py and is independent of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import URL_QUERY_ARGUMENT_PARSERS, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from asyncapy_core.errors import KeyStoreError
from asyncapy_redis.plugin import SCHEMES

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

FIXED: Final[dict[str, Any]] = {"retry": Retry(NoBackoff(), 0)}
"""Options that a URL does not change. No command is retried: Redis may have executed it although its reply was lost."""

TEXTS: Final = ("client_name", "lib_name", "lib_version", "password", "protocol", "username")
TLS_TEXTS: Final = ("ca_certs", "ca_data", "ca_path", "cert_reqs", "certfile", "ciphers", "keyfile", "password")
NOT_FOR_URLS: Final = {"legacy_responses", "retry_on_error", "retry_on_timeout", "timeout"}
OPTIONS: Final[set[str]] = {*TEXTS, *(f"ssl_{name}" for name in TLS_TEXTS), *URL_QUERY_ARGUMENT_PARSERS} - NOT_FOR_URLS
"""The options of redis-py's connections that a URL may set."""

CONNECTIONS: Final = 50
"""The most connections of one store, if the URL does not set ``max_connections``."""

MOST: Final = 1_000_000
"""The limit of numbers in a URL."""

Client = Any
"""`redis.Redis` or `redis.RedisCluster`, which have no common base class with the commands."""


@dataclass(frozen=True, slots=True)
class Target:
    """The servers of a URL, and the options of the connections to them.

    Attributes:
        topology: empty for a single server, ``sentinel`` or ``cluster``.
        nodes: host and port of the server, of each Sentinel, or of some nodes of the cluster.
        service: the name of the master in Sentinel.
        options: the arguments of redis-py's connections.
        connections: the most connections that are used at the same time, to each node of a cluster.
        sentinel_options: the arguments of the connections to Sentinels.
    """

    topology: str
    nodes: list[tuple[str, int]]
    service: str
    options: dict[str, Any]
    connections: int
    sentinel_options: dict[str, Any]

    def connect(self) -> Client:
        """Return a client. A cluster is contacted immediately, a single server or Sentinel on first use.

        Raises:
            redis.RedisError, redis.exceptions.RedisClusterException, OSError: the cluster cannot be reached.
        """
        if self.topology == "cluster":
            nodes = [ClusterNode(host, port) for host, port in self.nodes]  # type: ignore[no-untyped-call]  # redis-py does not type it
            return redis.RedisCluster(startup_nodes=nodes, **self.options)
        if self.topology == "sentinel":
            sentinel: Any = Sentinel(self.nodes, sentinel_kwargs=self.sentinel_options)  # type: ignore[no-untyped-call]  # redis-py does not type it
            return sentinel.master_for(self.service, **self.options)
        ((host, port),) = self.nodes
        return redis.Redis(host, port, **self.options)


class Masters:
    """Makes connections to all masters of a target, outside of any pool.

    Args:
        target: the target.

    Attributes:
        is_cluster: whether there may be several masters.
    """

    def __init__(self, target: Target) -> None:
        self.is_cluster: bool = target.topology == "cluster"
        self._target = target
        self._client: Client = None

    def connections(self) -> list[Any]:
        """Return a new `redis.Connection` for each master, which is opened when it is used.

        Raises:
            redis.RedisError, redis.exceptions.RedisClusterException, OSError: the cluster cannot be reached.
        """
        if self.is_cluster and self._client is not None:
            self._client.nodes_manager.initialize()
        else:  # a client of a single server makes a limited number of connections
            self._client = self._target.connect()
        if not self.is_cluster:
            return [self._client.connection_pool.make_connection()]
        nodes = self._client.get_primaries()
        self._client.disconnect_connection_pools()
        servers = [redis.Redis(node.host, node.port, **self._target.options) for node in nodes]
        return [server.connection_pool.make_connection() for server in servers]


def parse(url: str, timeout: float) -> Target:
    """Return the target of a URL, without connecting to it.

    redis-py's own parser converts the options of the URL.

    Args:
        url: as `asyncapy_redis.RedisAPIKeyFactory` describes it.
        timeout: the default of ``socket_timeout`` and ``socket_connect_timeout``, in seconds.

    Raises:
        KeyStoreError: the scheme, the form or an option of the URL is wrong.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise KeyStoreError(f"{redact(url)} is not a Redis URL: it must begin with one of {', '.join(SCHEMES)}")
    try:
        return _parsed(url, timeout)
    except (ValueError, TypeError, redis.RedisError) as error:  # the message may contain the password
        raise KeyStoreError(f"{redact(url)} is not a Redis URL: {_harmless(error)}") from None


def redact(url: str) -> str:
    """Return a URL, which may be malformed, without its user, password and options, for messages."""
    scheme, _, rest = url.partition("://")
    place, mark, options = rest.replace("#", "?").partition("?")
    if mark and "@" in options:
        return f"{scheme}://..."  # the ? may be a part of the password
    return f"{scheme}://{place.rpartition('@')[2]}"


def _parsed(url: str, timeout: float) -> Target:
    parts = urlsplit(url)
    security, _, topology = parts.scheme.partition("+")
    credentials, at, places = parts.netloc.rpartition("@")
    nodes = [_place(place, SENTINEL_PORT if topology == "sentinel" else PORT) for place in places.split(",")]
    path, service = parts.path.strip("/"), ""
    if topology == "sentinel":
        service, _, path = path.partition("/")
        if not service or not places:
            raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or .../SERVICE/DB")
    elif not topology and len(nodes) > 1:
        raise ValueError("write one HOST:PORT; several are for redis+sentinel:// and redis+cluster://")
    if parts.fragment or (path and not path.isdecimal()):
        raise ValueError(url)
    options = parse_url(urlunsplit((security, f"{credentials}{at}localhost", path, parts.query, "")))  # type: ignore[no-untyped-call]  # redis-py does not type it
    if "protocol" in options:  # before release 8, redis-py has no parser for it
        options["protocol"] = {"2": 2, "3": 3}.get(str(options["protocol"]))
        if options["protocol"] is None:
            raise ValueError("write protocol as 2 or 3")
    for name in ("host", "connection_class"):  # redis-py derives the class from the option ssl
        options.pop(name, None)
    account = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")} if service else {}
    _check_options(options, topology, secure=security == "rediss")
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **options, **FIXED}
    if security == "rediss":
        options["ssl"] = True
    redis.Redis(**options).connection_pool.make_connection()  # redis-py checks values here; this opens no connection
    if topology == "cluster":
        options.pop("db", None)  # RedisCluster does not accept it
    of_sockets = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl"))}
    connections = options.pop("max_connections", CONNECTIONS)
    if connections < 1:
        raise ValueError("write max_connections as a number from 1")
    return Target(topology, nodes, service, options, connections, {**of_sockets, **FIXED, **account})


def _check_options(options: dict[str, Any], topology: str, *, secure: bool) -> None:
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(f"write no option {name}; the options of connections are {', '.join(sorted(OPTIONS))}")
        if name.startswith("ssl_") and not secure:
            raise ValueError(f"write rediss instead of redis; {name} is an option of TLS")
        if isinstance(value, (int, float)) and not 0 <= value < MOST:
            raise ValueError(f"write {name} as a number from 0 to {MOST}")
    if topology == "cluster" and options.get("db"):
        raise ValueError("write no database; a cluster has only one")


def _place(place: str, default_port: int) -> tuple[str, int]:
    """Return host and port. The host may be an IPv6 address in brackets."""
    parts = urlsplit(f"//{place}")
    return parts.hostname or "localhost", default_port if parts.port is None else parts.port


def _harmless(error: Exception) -> str:
    """Return a message without secrets: redis-py's for a wrong option, ours for a wrong form, or a general one."""
    text = str(error)
    if isinstance(error, redis.RedisError) or text.startswith(("write ", "Invalid value for ")):
        return text
    return "write scheme://user:password@host:port/db, with special characters of the password as %XX"
