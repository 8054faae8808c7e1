"""`Sharing`: counts the packets of one `Rate` in the store of each server."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import trio

from asyncapy_core.errors import ConfigError
from asyncapy_limits.batching import batcher_of
from asyncapy_limits.leases import SharedWindow
from asyncapy_limits.limit import Limit
from asyncapy_limits.stores import open_store, store_of

if TYPE_CHECKING:
    from asyncapy_limits.store import Store


class Sharing:
    """The windows of one `Rate`, one for each store and run of trio.

    Args:
        limits: the limits.
        name: the name under which servers count together.
        most: the most subjects.
        url: the URL of the store; None for the store of each server.

    Raises:
        ConfigError: the URL is wrong, or redis-py is not installed.
    """

    def __init__(self, limits: Sequence[Limit], name: str, most: int, url: str | None) -> None:
        self._limits = limits
        self._shown = name
        self._name = ":".join([name, *(f"{limit.count}/{limit.period}" for limit in limits)])
        self._most = most
        self._store = None if url is None else open_store(url)
        self._windows: trio.lowlevel.RunVar[dict[Store, SharedWindow] | None] = trio.lowlevel.RunVar("windows")

    @property
    def needs_store(self) -> bool:
        """Whether it depends on the store of a server."""
        return self._store is None

    async def take(self, server: object, subject: Hashable) -> float:
        """Count a packet, and return 0; or count nothing, and return the seconds until a packet may pass.

        Raises:
            StoreUnavailable: the store does not answer.
            ConfigError: the server has no store.
        """
        store = self._store or store_of(server)
        if store is None:
            raise ConfigError(
                f"no store for Rate(shared={self._shown!r}): set store = redis://... in [plugin:limits], or give store="
            )
        windows = self._windows.get(None)
        if windows is None:
            self._windows.set(windows := {})
        window = windows.get(store)
        if window is None:
            window = windows[store] = self._window(store)
        return await window.take(subject)

    def _window(self, store: Store) -> SharedWindow:
        return SharedWindow(self._limits, self._name, self._most, batcher_of(store))
