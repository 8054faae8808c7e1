"""`NameRegistry`: the filters, codecs or key stores of plugins, by name.

A name of two plugins belongs to neither. A plugin that is quarantined later loses its names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Generic, TypeVar

from asyncapy_core.errors import PluginCollision
from asyncapy_core.plugins.record import PluginRecord

log: logging.Logger = logging.getLogger("asyncapy.plugins")

T = TypeVar("T")


class NameRegistry(Generic[T]):
    """Values of plugins, by name.

    Args:
        kind: the kind of value, for messages, such as ``"filter"``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._claims: dict[str, list[tuple[PluginRecord, T]]] = {}

    def add(self, record: PluginRecord, name: str, value: T) -> None:
        """Register the value of a plugin under a name."""
        self._claims.setdefault(name, []).append((record, value))

    def __getitem__(self, name: str) -> T:
        """Return the value with this name.

        Raises:
            KeyError: there is none.
            PluginCollision: two plugins have registered the name; the message names both.
        """
        claims = self._valid(name)
        if not claims:
            raise KeyError(name)
        if len(claims) > 1:
            raise PluginCollision(self._complaint(name))
        return claims[0][1]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(filter(self._valid, self._claims)))

    def owners(self, name: str) -> tuple[PluginRecord, ...]:
        """Return the plugins that have registered a name."""
        return tuple(record for record, _ in self._valid(name))

    def unambiguous(self) -> dict[str, T]:
        """Return the values whose name one plugin has registered, and log the other names."""
        self.log_complaints()
        return {name: claims[0][1] for name in self._claims if len(claims := self._valid(name)) == 1}

    @property
    def complaints(self) -> list[str]:
        """A message for each name that two plugins have registered."""
        return [self._complaint(name) for name in self._claims if len(self._valid(name)) > 1]

    def log_complaints(self) -> None:
        """Log these messages."""
        for complaint in self.complaints:
            log.error("%s", complaint)

    def _valid(self, name: str) -> list[tuple[PluginRecord, T]]:
        return [claim for claim in self._claims.get(name, ()) if claim[0].state != "quarantined"]

    def _complaint(self, name: str) -> str:
        owners = " and ".join(dict.fromkeys(record.title for record in self.owners(name)))
        if len(set(self.owners(name))) == 1:
            return f"{self._kind} {name!r} is claimed twice by {owners}, so it is left out"
        return f"{self._kind} {name!r} is claimed by {owners}, so neither gets it; uninstall or deny one of them"
