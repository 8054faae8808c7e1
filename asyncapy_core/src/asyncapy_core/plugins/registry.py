"""Names that several plugins may claim: one that two claim belongs to neither."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Generic, TypeVar

from asyncapy_core.errors import PluginCollision
from asyncapy_core.plugins.record import PluginRecord

log: logging.Logger = logging.getLogger("asyncapy.plugins")

T = TypeVar("T")


class NameRegistry(Generic[T]):
    """What plugins provide, by name.

    Args:
        kind: what the names are, for messages: ``"filter"``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._claims: dict[str, list[tuple[PluginRecord, T]]] = {}

    def add(self, record: PluginRecord, name: str, value: T) -> None:
        """Note that a plugin claims a name."""
        self._claims.setdefault(name, []).append((record, value))

    def __getitem__(self, name: str) -> T:
        """Return what is provided under this name.

        Raises:
            KeyError: nothing is.
            PluginCollision: two plugins claim it; the message names both.
        """
        claims = self._claims[name]
        if len(claims) > 1:
            raise PluginCollision(self._complaint(name))
        return claims[0][1]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._claims))

    def agreed(self) -> dict[str, T]:
        """Return what is claimed once; the rest is reported in the log."""
        self.log_complaints()
        return {name: claims[0][1] for name, claims in self._claims.items() if len(claims) == 1}

    @property
    def complaints(self) -> list[str]:
        """What is to be said of each name that is claimed more than once."""
        return [self._complaint(name) for name, claims in self._claims.items() if len(claims) > 1]

    def log_complaints(self) -> None:
        """Log each name that is claimed more than once."""
        for complaint in self.complaints:
            log.error("%s", complaint)

    def _complaint(self, name: str) -> str:
        owners = " and ".join(record.title for record, _ in self._claims[name])
        return f"{self._kind} {name!r} is claimed by {owners}, so neither gets it; uninstall or deny one of them"
