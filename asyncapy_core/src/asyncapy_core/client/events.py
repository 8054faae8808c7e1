"""`EventStream`: the events of a server, one after the other; `Listeners`: the event streams of one connection."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from typing import Any, Final

import trio

from asyncapy_core.client.streaming import ClosingIterator, Signal
from asyncapy_core.errors import RemoteError

MAX_EVENTS: Final = 10_000
"""The most events that are held for a loop that does not take them."""


class EventStream(ClosingIterator):
    """The events of a server: ``async for event in client.events()``.

    At most 10,000 events, or ``limit`` bytes of them, are held. When more arrive, the oldest ones are dropped.

    Args:
        limit: the most bytes of events that are held, unless it is one event.

    Attributes:
        lost: the number of events that were dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._events: deque[tuple[dict[str, Any], int]] = deque()
        self._changed = Signal()
        self._error: RemoteError | None = None
        self._closed = False
        self.lost: int = 0

    @property
    def ended(self) -> bool:
        """Whether no further events are received."""
        return self._closed or self._error is not None

    async def __anext__(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        while not self._ready:
            await self._changed.wait()
        return self._take()

    def add(self, fields: dict[str, Any], size: int) -> None:
        """Hold an event whose payload has ``size`` bytes; called by the client."""
        if self.ended:
            return
        while self._events and (len(self._events) == MAX_EVENTS or self._size + size > self._limit):
            self._size -= self._events.popleft()[1]
            self.lost += 1
        self._events.append((fields, size))
        self._size += size
        self._changed.set()

    def fail(self, error: RemoteError) -> None:
        """Raise an exception behind the held events, as the client receives no more; called by the client."""
        if not self.ended:
            self._error = error
            self._changed.set()

    def end_session(self, error: RemoteError) -> None:
        """Do as `fail`, as the session has ended; called by the client."""
        self.fail(error)

    @property
    def _ready(self) -> bool:
        """Whether the consumer need not wait."""
        return bool(self._events) or self.ended

    def _take(self) -> dict[str, Any]:
        """Return the oldest event, or raise the exception at the end of the stream."""
        if self._events:
            fields, size = self._events.popleft()
            self._size -= size
            return fields
        if self._error is not None:
            raise copy.copy(self._error) from self._error.__cause__
        raise StopAsyncIteration

    def _close(self) -> None:
        self._closed = True
        self._events.clear()
        self._changed.set()


class JoinedEvents(EventStream):
    """The events of several clients, each with one connection after the other.

    The end of a session is raised once, before the held events. The loop may go on then, with the sessions that remain,
    and with the next one of the same client.

    Args:
        limit: as for `EventStream`.
        clients: the number of clients.
    """

    def __init__(self, limit: int, clients: int) -> None:
        super().__init__(limit)
        self._clients = clients
        self._notice: RemoteError | None = None

    def fail(self, error: RemoteError) -> None:
        """Raise an exception once, as one client receives no more; the last one ends the stream."""
        self._clients -= 1
        if self._clients:
            self.end_session(error)
        else:
            super().fail(error)

    def end_session(self, error: RemoteError) -> None:
        """Raise an exception once, as events may be missing."""
        self._notice = error
        self._changed.set()

    def check(self) -> None:
        """Raise the exception of the last client if none receives events."""
        if self._error is not None:
            raise self._error

    @property
    def _ready(self) -> bool:
        return self._notice is not None or super()._ready

    def _take(self) -> dict[str, Any]:
        notice, self._notice = self._notice, None
        if notice is not None and not self.ended:
            raise notice
        return super()._take()


class Listeners:
    """The event streams of one connection, as long as they are used."""

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    def __bool__(self) -> bool:
        return any(not stream.ended for stream in tuple(self._streams))

    def add(self, stream: EventStream) -> None:
        """Add an event stream."""
        self._streams.add(stream)

    def receive(self, fields: dict[str, Any], size: int) -> None:
        """Give a copy of an event to each stream."""
        for stream in tuple(self._streams):
            stream.add(copy.deepcopy(fields), size)

    def successors(self) -> Listeners:
        """Return the streams that are also those of the next connection."""
        listeners = Listeners()
        for stream in tuple(self._streams):
            if isinstance(stream, JoinedEvents):
                listeners.add(stream)
        return listeners

    def end_session(self, error: RemoteError) -> None:
        """End the streams with an exception, or raise it in those that go on."""
        for stream in tuple(self._streams):
            stream.end_session(error)
        self._streams.clear()

    def fail(self, error: RemoteError) -> None:
        """End all streams with an exception, as the client receives no more events."""
        for stream in tuple(self._streams):
            stream.fail(error)
        self._streams.clear()
