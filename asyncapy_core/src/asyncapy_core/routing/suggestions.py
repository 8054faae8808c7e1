"""`Suggestions`: names of operations that are close to that of a packet without a handler, for ``describe``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.routing.router import Operation

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.routing.handler import Handler

LONGEST: Final = 64
"""Characters of the longest name that is compared with those of the operations."""

SHARE: Final = 0.02
"""The largest part of the time in which names are compared, as a peer may send any number of wrong ones."""


class Suggestions:
    """Finds the operations that the sender of a packet may have meant.

    Args:
        handlers: returns the handlers of the server by group.
        clock: a time in seconds.
    """

    def __init__(
        self,
        handlers: Callable[[], Mapping[int, Iterable[Handler]]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._handlers = handlers
        self._clock = clock
        self._rests_until = 0.0
        self._known: tuple[Iterable[Handler], ...] = ()
        self._names: dict[str, dict[str, None]] = {}

    def __call__(self, packet: Packet) -> Mapping[str, Any] | None:
        """Return a ``detail`` for the answer to a packet that no handler gets, and names of close ``operations``.

        Names are not compared if that was done a moment ago. None if there is nothing to add.
        """
        names_by_field = self._names_by_field()
        field = next((each for each in names_by_field if each in packet.fields), None)
        if field is None:
            wanted = " or ".join(map(repr, names_by_field))
            return {"detail": f"the packet has no field {wanted}"} if wanted else None
        name = packet.fields[field]
        if not isinstance(name, str):
            return {"detail": f"the field {field!r} is not a string, the name of an operation"}
        names = names_by_field[field]
        if name in names:
            return {"detail": "the filters of this operation do not let the packet pass"}
        close = self._close(name, names) if len(name) <= LONGEST else []
        if not close:
            return {"detail": f"there is no such operation; the field {field!r} has the name of one"}
        return {"detail": f"there is no such operation; did you mean {' or '.join(close)}?", "operations": close}

    def _names_by_field(self) -> dict[str, dict[str, None]]:
        """Return the names of operations by their field, in the order of the handlers."""
        groups = tuple(self._handlers().values())
        if groups != self._known:  # a packet costs no more for many handlers; equal tuples are the same objects
            self._names = {}
            for handler in itertools.chain(*groups):
                for each in handler.filters[:1]:
                    if isinstance(each, Operation):
                        self._names.setdefault(each.field, {})[each.name] = None
            self._known = groups
        return self._names

    def _close(self, name: str, names: Iterable[str]) -> list[str]:
        import difflib  # noqa: PLC0415  # only for a mistake

        began = self._clock()
        if began < self._rests_until:
            return []
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.75)
        ended = self._clock()
        self._rests_until = ended + (ended - began) / SHARE
        return close
