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

    def __call__(self, packet: Packet) -> Mapping[str, Any] | None:
        """Return a ``detail`` for the answer to a packet that no handler gets, and names of close ``operations``.

        Names are not compared if that was done a moment ago. None if there is nothing to add.
        """
        handlers = itertools.chain(*self._handlers().values())
        filters = [each for handler in handlers for each in handler.filters[:1] if isinstance(each, Operation)]
        fields = list(dict.fromkeys(each.field for each in filters))
        field = next((each for each in fields if each in packet.fields), None)
        if field is None:
            return {"detail": f"the packet has no field {' or '.join(map(repr, fields))}"} if fields else None
        name = packet.fields[field]
        if not isinstance(name, str):
            return {"detail": f"the field {field!r} is not a string, the name of an operation"}
        names = list(dict.fromkeys(each.name for each in filters if each.field == field))
        if name in names:
            return {"detail": "the filters of this operation do not let the packet pass"}
        close = self._close(name, names) if len(name) <= LONGEST else []
        if not close:
            return {"detail": f"there is no such operation; the field {field!r} has the name of one"}
        return {"detail": f"there is no such operation; did you mean {' or '.join(close)}?", "operations": close}

    def _close(self, name: str, names: list[str]) -> list[str]:
        import difflib  # noqa: PLC0415  # only for a mistake

        began = self._clock()
        if began < self._rests_until:
            return []
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.75)
        ended = self._clock()
        self._rests_until = ended + (ended - began) / SHARE
        return close
