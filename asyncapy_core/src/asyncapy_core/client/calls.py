"""`Call`: a request of version 23 and its answers; `Unsent`: the calls that wait to be sent. Both are without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from asyncapy_core.client.failures import failure
from asyncapy_core.errors import RemoteError, StreamOverflow

MAX_PARTS: Final = 256
"""The most answers that are held for a loop that does not take them."""

MaybeNone: TypeAlias = Any
"""None is possible in version 23 only; so type checkers do not ask for a check."""


class Call:
    """A request of which only the last answer counts.

    Args:
        packet: the request as a packet of version 23, with any number.
        wire_id: the wire id of its codec.
        on_change: called at the end.

    Attributes:
        number: the number on the connection on which the request was sent last; 0 before.
        answered: whether an answer has arrived, so that the server has handled the request.
        answer: the fields of the last answer; None if there is none.
        failed: whether that answer is a FAILURE.
        error: the reason why the request has no last answer.
        ended: whether no further answer comes.
    """

    __slots__ = ("_on_change", "answer", "answered", "ended", "error", "failed", "number", "packet", "wire_id")

    def __init__(self, packet: bytes, wire_id: int, on_change: Callable[[], object]) -> None:
        self.packet: bytes = packet
        self.wire_id: int = wire_id
        self._on_change = on_change
        self.number: int = 0
        self.answered: bool = False
        self.answer: dict[str, Any] | None = None
        self.failed: bool = False
        self.error: Exception | None = None
        self.ended: bool = False

    @property
    def ready(self) -> bool:
        """Whether the consumer need not wait."""
        return self.ended

    def add(self, fields: dict[str, Any], size: int) -> None:
        """Note an answer whose payload has ``size`` bytes."""
        self.answered = True
        self.answer = fields

    def finish(self) -> None:
        """Note that there are no more answers."""
        if not self.ended:
            self.ended = True
            self._on_change()

    def fail(self, error: Exception) -> None:
        """Note that no answer comes any more, and why."""
        if not self.ended:
            self.error = error
            self.finish()

    def refuse(self, fields: dict[str, Any]) -> None:
        """Note a failure, after which there are no more answers."""
        if not self.ended:
            self.answer, self.failed = fields, True
            self.finish()


class PartsCall(Call):
    """A request all of whose answers count: they are held until the consumer takes them.

    Args:
        packet, wire_id: as for `Call`.
        on_change: called when an answer has arrived, and at the end.
        limit: the most bytes of answers that are held, unless it is one answer.
        most: the most answers that are held.

    Attributes:
        parts: the held answers, and the sizes of their payloads.
    """

    __slots__ = ("_limit", "_most", "_size", "parts")

    def __init__(
        self, packet: bytes, wire_id: int, on_change: Callable[[], object], limit: int, most: int = MAX_PARTS
    ) -> None:
        super().__init__(packet, wire_id, on_change)
        self._most = most
        self._limit = limit
        self._size = 0
        self.parts: deque[tuple[dict[str, Any], int]] = deque()

    @property
    def ready(self) -> bool:
        """Whether the consumer need not wait."""
        return self.ended or bool(self.parts)

    def has_room(self, size: int) -> bool:
        """Return whether an answer whose payload has ``size`` bytes can be held."""
        return not self.parts or (len(self.parts) < self._most and self._size + size <= self._limit)

    def add(self, fields: dict[str, Any], size: int) -> None:
        """Hold an answer, for which there is room."""
        self.answered = True
        self.parts.append((fields, size))
        self._size += size
        self._on_change()

    def take(self) -> dict[str, Any]:
        """Remove the oldest held answer, and return its fields."""
        fields, size = self.parts.popleft()
        self._size -= size
        return fields

    def refuse(self, fields: dict[str, Any]) -> None:
        """Fail with the exception for a failure."""
        self.fail(failure(fields) or RemoteError("the server answered with a FAILURE without a code"))

    def overflow(self, why: str) -> None:
        """Fail with `StreamOverflow`, as there is no room for the next answer."""
        self.fail(
            StreamOverflow(
                f"the stream was cancelled: its loop has not taken {len(self.parts)} parts of {self._size} bytes, and "
                f"{why}; take them more quickly, or ask the server for less at a time"
            )
        )


class Unsent:
    """The calls that wait to be sent, in their order.

    Args:
        on_added: called when there are more.
    """

    __slots__ = ("_calls", "_on_added")

    def __init__(self, on_added: Callable[[], object]) -> None:
        self._calls: dict[Call, None] = {}
        self._on_added = on_added

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, call: Call) -> bool:
        return call in self._calls

    def add(self, call: Call) -> None:
        """Add a call behind all others."""
        self._calls[call] = None
        self._on_added()

    def restore(self, calls: Iterable[Call]) -> None:
        """Add calls in front of all others: they were sent, and the server has not handled them."""
        self._calls = dict.fromkeys(calls) | self._calls
        if self._calls:
            self._on_added()

    def discard(self, call: Call) -> None:
        """Remove a call, if it is there."""
        self._calls.pop(call, None)

    def next(self) -> Call:
        """Remove the first call, and return it."""
        call = next(iter(self._calls))
        del self._calls[call]
        return call

    def refuse(self, fields: dict[str, Any]) -> None:
        """Answer all calls with a failure, and remove them."""
        for call in self._take():
            call.refuse(dict(fields))

    def fail(self, error: Exception) -> None:
        """Fail all calls, and remove them."""
        for call in self._take():
            call.fail(error)

    def _take(self) -> dict[Call, None]:
        calls, self._calls = self._calls, {}
        return calls
