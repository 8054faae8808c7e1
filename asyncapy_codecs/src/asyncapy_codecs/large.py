"""Decoding large payloads without the garbage collector in the way.

Knows the collector, and no encoding.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

LARGE: Final = 16 * 1024
"""Bytes of a payload from which it is worth to stop collecting garbage while it is decoded."""

DENSE: Final = 100_000
"""So many new objects are kept from the collector, whose next look at them would hold up everybody for 10 ms."""

FEW: Final = 1_000
"""A program that freezes its objects has more; CPython 3.12 keeps a few hundred immortal ones among the frozen."""

OWED: Final = 20
"""After so many of these, everything is looked through: what was garbage among them must not stay."""


class LargeDecoder:
    """A decoder that makes many containers makes no garbage: looking for it meanwhile would take ten times as long.

    Args:
        decode: what decodes a payload.
    """

    __slots__ = ("_decode", "_owed")

    def __init__(self, decode: Callable[[bytes], dict[str, Any]]) -> None:
        self._decode = decode
        self._owed = 0

    def __call__(self, payload: bytes) -> dict[str, Any]:
        """Decode; what the decoder raises comes through."""
        if len(payload) < LARGE or not gc.isenabled():
            return self._decode(payload)
        gc.disable()
        try:
            return self._decode(payload)
        finally:
            gc.enable()
            if gc.get_count()[0] > DENSE:
                self._make_old()

    def _make_old(self) -> None:
        """Put all that is new among the old objects, which are looked through rarely."""
        self._owed += 1
        if self._owed == OWED:
            self._owed = 0
            gc.collect()
        elif gc.get_freeze_count() < FEW:
            gc.freeze()
            gc.unfreeze()
