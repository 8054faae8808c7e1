"""`ServerVersion`: the version of the protocol of a server, as far as a client knows it, without I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION

REMEMBERED: Final = 3600.0
"""The seconds for which the version of a server is remembered (docs/protocol.md, "Versions")."""


class ServerVersion:
    """A version that the user has set, or that the server has shown.

    Args:
        fixed: 22 or 23; None to find it out.
        clock: returns the time in seconds, which does not run backwards.

    Raises:
        ValueError: ``fixed`` is another number.
    """

    __slots__ = ("_clock", "_fixed", "_known", "_until")

    def __init__(self, fixed: int | None, clock: Callable[[], float]) -> None:
        if isinstance(fixed, bool) or fixed not in (None, PROTOCOL_VERSION, NUMBERED_VERSION):
            raise ValueError(
                f"version is {fixed!r}; it must be {PROTOCOL_VERSION} or {NUMBERED_VERSION}, or None to ask the server"
            )
        self._fixed = fixed
        self._clock = clock
        self._known: int | None = None
        self._until = -math.inf

    @property
    def known(self) -> int | None:
        """The version, or None if the server has to be asked."""
        if self._fixed is not None:
            return self._fixed
        return self._known if self._clock() < self._until else None

    def learn(self, version: int) -> None:
        """Note that the server has shown its version."""
        self._known, self._until = version, self._clock() + REMEMBERED

    def forget(self) -> None:
        """Note that the server may have another version now."""
        self._known = None
