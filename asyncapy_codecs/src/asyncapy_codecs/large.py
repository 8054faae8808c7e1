"""Decoding large payloads while the garbage collector is off.

This module is independent of the encoding.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

LARGE: Final = 16 * 1024
"""Bytes of the smallest payload that is decoded without garbage collection."""

DENSE: Final = 100_000
"""New objects that are left to the collector. More are moved to the oldest generation, as their collection would block
the server for 10 ms."""

FEW: Final = 1_000
"""Frozen objects from which on `gc.unfreeze` is not called: the program has frozen them itself. CPython 3.12 counts a
few hundred immortal objects as frozen."""

OWED: Final = 20
"""Moves after which a full collection runs, to free the garbage among the moved objects."""


class LargeDecoder:
    """Decodes large payloads with the garbage collector off.

    Decoding creates many containers and no garbage. With the collector on, it takes ten times as long.

    Args:
        decode: decodes a payload.
        max_containers: the maps and arrays that a large payload may hold, or one for each five bytes if that is more;
            None for any number.
    """

    __slots__ = ("_decode", "_max_containers", "_owed")

    def __init__(self, decode: Callable[[bytes], dict[str, Any]], max_containers: int | None = None) -> None:
        self._decode = decode
        self._max_containers = max_containers
        self._owed = 0

    def __call__(self, payload: bytes) -> dict[str, Any]:
        """Decode a payload; exceptions of the decoder are not caught.

        Raises:
            ValueError: the payload holds too many maps and arrays.
        """
        if len(payload) < LARGE:
            return self._decode(payload)
        enabled = gc.isenabled()
        gc.disable()
        before = gc.get_count()[0]
        try:
            fields = self._decode(payload)
            self._require_few(gc.get_count()[0] - before, len(payload))
            return fields
        finally:
            if enabled:
                gc.enable()
                if gc.get_count()[0] > DENSE:
                    self._make_old()

    def _require_few(self, containers: int, size: int) -> None:
        if self._max_containers is None:
            return
        most = max(self._max_containers, size // 5)
        if containers > most:
            raise ValueError(f"it holds more than {most} maps and arrays, the limit for {size} bytes")

    def _make_old(self) -> None:
        """Move all new objects to the oldest generation, which is rarely collected."""
        self._owed += 1
        if self._owed == OWED:
            self._owed = 0
            gc.collect()
        elif gc.get_freeze_count() < FEW:
            gc.freeze()
            gc.unfreeze()
