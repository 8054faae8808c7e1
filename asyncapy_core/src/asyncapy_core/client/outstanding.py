"""`Outstanding`: the packets of a synchronous client that have no reply yet, without I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from asyncapy_core.client.idle import IdleTime

KEPT: Final = 1024 * 1024
"""The most bytes of packets that are kept to be sent again, unless it is a single packet."""


class Outstanding:
    """Counts the packets without a reply on one connection, and keeps those that may have to be sent again.

    If the server sends a packet without a request, packets and replies can no longer be counted: the connection never
    counts as idle again, and no packet is sent again.

    Args:
        clock: returns the time in seconds, which does not run backwards.

    Attributes:
        repeatable: the packets since the connection was idle, until the first of them has its reply.
    """

    __slots__ = ("_count", "_idle_time", "_size", "repeatable")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._idle_time = IdleTime(clock)
        self._idle_time.begin()
        self._count: float = 0
        self._size = 0
        self.repeatable: list[bytes] = []

    def idle_for(self, seconds: float) -> bool:
        """Return True if each sent packet has its reply, and the last reply was received this time ago."""
        return self._count == 0 and self._idle_time.lasts(seconds)

    def sending(self, packet: bytes) -> None:
        """Note that a packet is about to be sent."""
        if self._count == 0:
            self._idle_time.end()
            self.repeatable = [packet]
            self._size = len(packet)
        elif self.repeatable:
            self.repeatable.append(packet)
            self._size += len(packet)
            if self._size > KEPT:
                self.repeatable = []
        self._count += 1

    def repeating(self, packets: int) -> None:
        """Note that this number of packets is about to be sent for the second time."""
        self._count += packets

    def unread_until_now(self) -> bool:
        """Return True if the server had not read `repeatable`, given that it has just sent ERR_TIMED_OUT."""
        return self._idle_time.unread_until_now()

    def received(self) -> None:
        """Note that a packet was received."""
        self.repeatable = []
        self._count -= 1
        if self._count == 0:
            self._idle_time.begin()
        elif self._count < 0:
            self.stop_counting()

    def stop_counting(self) -> None:
        """Note that the server has sent a packet without a request, or has left."""
        self._count = -math.inf
