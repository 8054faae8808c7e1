"""Returns freed memory to the operating system after large packets, where the C library keeps it (glibc)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from asyncapy_core.net.deadlines import Deadlines

TRIM_SECONDS: Final = 2.0
"""Seconds between large packets and the return of their memory, which has been freed by then as a rule."""

MIN_COUNTED: Final = 8 * 1024 * 1024
"""The least bytes of incomplete packets after which memory is returned."""


class Heap:
    """Counts the bytes of large packets, and returns freed memory some time after them.

    glibc keeps freed memory that lies between small objects: 250 MB after 5,000 incomplete packets. To return it takes
    up to 20 ms.

    Attributes:
        deadlines: a task has to watch them.
    """

    __slots__ = ("_counted", "deadlines")

    def __init__(self) -> None:
        self._counted = 0
        self.deadlines: Deadlines[Heap] = Deadlines(TRIM_SECONDS, Heap.trim)

    def count(self, size: int) -> None:
        """Count bytes of an incomplete packet, when they arrive and when it no longer is incomplete."""
        self._counted += size
        if self._counted >= MIN_COUNTED:
            self.deadlines.start(self)

    def trim(self) -> None:
        """Return freed memory, and do it again after the same time, for memory that was still in use."""
        if self._counted >= MIN_COUNTED:
            self.deadlines.start(self)
        self._counted = 0
        malloc_trim = _malloc_trim()
        if malloc_trim is not None:
            malloc_trim(0)


def _malloc_trim() -> Callable[[int], object] | None:
    """Return the function of glibc; None if the C library is another one."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415  # few servers need it

    function: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return function
