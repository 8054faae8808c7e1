"""`ByNetwork`: items of peers in the order of their arrival, counted by network.

A network is one IPv4 address, or the /64 of an IPv6 address.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from asyncapy_core.addresses import network_of

T = TypeVar("T")


class ByNetwork(Generic[T]):
    """A set of items, each of a peer."""

    __slots__ = ("_groups", "_networks")

    def __init__(self) -> None:
        self._networks: dict[T, str] = {}
        self._groups: dict[str, dict[T, None]] = {}

    def add(self, item: T, address: str) -> None:
        """Add an item of the peer with this address."""
        network = self._networks[item] = network_of(address)
        self._groups.setdefault(network, {})[item] = None

    def discard(self, item: T) -> None:
        """Remove an item, if it is in the set."""
        network = self._networks.pop(item, None)
        if network is not None:
            group = self._groups[network]
            del group[item]
            if not group:
                del self._groups[network]

    def count(self, address: str) -> int:
        """Return the number of items in the network of an address."""
        return len(self._groups.get(network_of(address), ()))

    def oldest(self) -> T | None:
        """Return the oldest item, or None."""
        return next(iter(self._networks), None)

    def oldest_of(self, address: str) -> T | None:
        """Return the oldest item in the network of an address, or None."""
        return next(iter(self._groups.get(network_of(address), ())), None)

    def __contains__(self, item: T) -> bool:
        return item in self._networks

    def __iter__(self) -> Iterator[T]:
        """Iterate over the items, the oldest first."""
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)
