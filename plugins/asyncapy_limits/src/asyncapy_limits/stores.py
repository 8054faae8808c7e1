"""The stores of this process by their URLs, and the store of each server that has one in its options.

It does not import redis-py before there is a store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from asyncapy_core.errors import AsyncAPYError, ConfigError

if TYPE_CHECKING:
    from asyncapy_limits.store import Store


class StoreUnavailable(AsyncAPYError):
    """A store does not answer in time, or answers with an error."""


_by_url: WeakValueDictionary[str, Store] = WeakValueDictionary()
_of_servers: WeakKeyDictionary[Any, Store] = WeakKeyDictionary()


def open_store(url: str) -> Store:
    """Return the store of a URL, the same one each time, so that all limits share its connection.

    Raises:
        ConfigError: the URL is wrong, or redis-py is not installed.
    """
    try:
        from asyncapy_limits.store import Store  # noqa: PLC0415  # it imports redis-py
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ConfigError("rate limits in a store need redis-py: pip install 'asyncapy-limits[redis]'") from error
    store = _by_url.get(url)
    if store is None:
        store = _by_url[url] = Store(url)
    return store


def set_store(server: object, store: Store) -> None:
    """Have the shared limits of a server counted in a store."""
    _of_servers[server] = store


def store_of(server: object) -> Store | None:
    """Return the store of a server."""
    return _of_servers.get(server)
