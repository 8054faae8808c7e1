"""Items that wait, by the network of the client that each is for. The networks take turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def _any(network: str) -> bool:
    return True


class Turns(Generic[T]):
    """A queue in which networks take turns. Within a network, the items come in their order.

    ``len()`` is the number of items.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, network: str) -> bool:
        """Return whether an item of this network waits."""
        return network in self._items

    def add(self, item: T, network: str) -> None:
        """Add an item behind the others of its network; a new network waits behind the others."""
        self._items.setdefault(network, OrderedDict())[item] = None
        self._count += 1

    def remove(self, item: T, network: str) -> None:
        """Remove an item."""
        items = self._items[network]
        del items[item]
        self._count -= 1
        if not items:
            del self._items[network]

    def take(self, allowed: Callable[[str], bool] = _any) -> T | None:
        """Remove and return the first item of the network whose turn it is; None if no item may be taken.

        Args:
            allowed: returns whether a network may have a turn now.
        """
        network = next((network for network in self._items if allowed(network)), None)
        if network is None:
            return None
        item = next(iter(self._items[network]))
        self.remove(item, network)
        if network in self._items:
            self._items.move_to_end(network)
        return item

    def take_newest(self, network: str) -> T | None:
        """Remove and return the newest item of the network with the most; None if that is this network, or as long."""
        largest = max(self._items, key=lambda each: len(self._items[each]))
        if len(self._items.get(network, ())) + 1 >= len(self._items[largest]):
            return None
        newest = next(reversed(self._items[largest]))
        self.remove(newest, largest)
        return newest
