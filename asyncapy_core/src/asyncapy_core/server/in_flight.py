"""`InFlight`: the requests of a session of version 23 that are handled, and those that wait for their turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import trio

from asyncapy_core.server.numbered_request import NumberedRequest, Progress

MAX_WAITING: Final = 1000
"""Requests that may wait for their turn before the session is read no further; their payloads have a bound as well."""


class InFlight:
    """The requests of one session.

    Args:
        most: ``max_in_flight``, the requests that are handled at a time.
        size: ``max_packet``, the bytes of their payloads, and of the payloads that wait.

    Attributes:
        requests: those that are handled, by number.
    """

    __slots__ = ("_bytes", "_bytes_waiting", "_changed", "_most", "_size", "_waiting", "requests")

    def __init__(self, most: int, size: int) -> None:
        self._most = most
        self._size = size
        self._bytes = 0
        self._waiting: OrderedDict[int, tuple[int, bytes]] = OrderedDict()  # by number: encoding and payload
        self._bytes_waiting = 0
        self._changed: trio.Event | None = None
        self.requests: dict[int, NumberedRequest] = {}

    @property
    def last_waiting(self) -> int:
        """The number of the last request that waits; 0 if none does."""
        return next(reversed(self._waiting)) if self._waiting else 0

    @property
    def may_wait(self) -> bool:
        """Whether a further request may be read, to wait for its turn."""
        return self._bytes_waiting <= self._size and len(self._waiting) <= MAX_WAITING

    def has_place(self, size: int) -> bool:
        """Return True if a request with a payload of this size is to be handled now, before all that wait."""
        if not self.requests:
            return True
        return not self._waiting and self._has_room(size)

    def add(self, request: NumberedRequest) -> None:
        """Count a request as one that is handled, unless it is counted."""
        if request.number not in self.requests:
            self.requests[request.number] = request
            self._bytes += request.size

    def remove(self, request: NumberedRequest) -> None:
        """Remove a request that has ended; see `begin_waiting` and `note_change` for what is to follow."""
        if self.requests.pop(request.number, None) is not None:
            self._bytes -= request.size

    def wait(self, number: int, wire_id: int, payload: bytes) -> None:
        """Let a request wait for its turn."""
        self._waiting[number] = wire_id, payload
        self._bytes_waiting += len(payload)

    def cancel(self, number: int) -> int | None:
        """Cancel a request whose client no longer waits.

        Returns:
            The wire id of its encoding, for an END; or None if its last answer was sent before.
        """
        if (waiting := self._waiting.pop(number, None)) is not None:
            wire_id, payload = waiting
            self._bytes_waiting -= len(payload)
            return wire_id
        request = self.requests.get(number)
        if request is None or request.progress is not Progress.OPEN:
            return None
        request.cancel()
        return request.encoding.wire_id

    def cancel_all(self) -> None:
        """Cancel all requests, as the connection broke."""
        self.drop_waiting()
        for request in tuple(self.requests.values()):
            request.cancel()
            if request.returned:  # `Client.answering` keeps it open, for a task that nobody awaits
                self.remove(request)

    def begin_waiting(self, begin: Callable[[int, int, bytes], object]) -> None:
        """Begin the requests that wait, as far as there are places.

        Args:
            begin: called with the number, the wire id of the encoding and the payload; it calls `add`.
        """
        while self._waiting:
            number, (wire_id, payload) = next(iter(self._waiting.items()))
            if self.requests and not self._has_room(len(payload)):
                return
            del self._waiting[number]
            self._bytes_waiting -= len(payload)
            begin(number, wire_id, payload)

    def drop_waiting(self) -> None:
        """Drop the requests that wait."""
        self._waiting.clear()
        self._bytes_waiting = 0

    async def wait_for_change(self) -> None:
        """Wait until `note_change` is called."""
        self._changed = trio.Event()
        await self._changed.wait()
        self._changed = None

    def note_change(self) -> None:
        """End the wait for a change: a request has ended, or the session is to end."""
        if self._changed is not None:
            self._changed.set()

    def _has_room(self, size: int) -> bool:
        return len(self.requests) < self._most and self._bytes + size <= self._size
