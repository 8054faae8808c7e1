"""`Outbox`: the output queue of a connection, bounded, with one writer at a time and a deadline for each chunk.

A write that fails or is cancelled poisons the connection: not one more byte is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import ConnectionLost
from asyncapy_core.net.transport import Transport

if TYPE_CHECKING:
    from asyncapy_core.net.deadlines import Deadlines

CHUNK: Final = 64 * 1024
"""The most bytes under one deadline, and the most that are held back while corked."""
PER_PUT: Final = 64
"""Bytes that each packet counts in addition to its size, when tasks take turns."""


def _spawn_nothing(*_: object) -> None:
    """Start no task: a poisoned outbox has no data to send."""


class Outbox:
    """The output of one connection.

    Args:
        transport: the connection.
        deadlines: the deadlines for a peer to accept a chunk; their owner poisons the outbox.
        limit: bytes that may be queued during a write before `put` waits.
        spawn: starts a task that outlives the caller.

    Attributes:
        corked: whether `hold` may hold back output, to send it in one piece.
        poisoned: whether nothing more is sent.
        sent: the number of bytes sent.
    """

    __slots__ = (
        "_deadlines",
        "_limit",
        "_line",
        "_parked",
        "_queue",
        "_queued",
        "_spawn",
        "_transport",
        "_turn",
        "_unsent",
        "_waiting",
        "_writing",
        "corked",
        "poisoned",
        "sent",
    )

    def __init__(
        self,
        transport: Transport,
        deadlines: Deadlines[Outbox],
        limit: int,
        spawn: Callable[..., None],
    ) -> None:
        self._transport = transport
        self._deadlines = deadlines
        self._limit = limit
        self._spawn = spawn
        self._queue: list[bytes] = []
        self._queued = 0
        self._writing = False
        self._waiting = 0
        self._turn = 0
        self._unsent = 0
        self._line: trio.StrictFIFOLock | None = None
        self._parked: trio.lowlevel.ParkingLot | None = None
        self.corked: bool = False
        self.poisoned: bool = False
        self.sent: int = 0

    @property
    def queued(self) -> int:
        """The bytes that wait for the peer to read them, with those of the current write."""
        return self._queued + self._unsent

    def hold(self, data: bytes) -> bool:
        """Hold back bytes until the next `uncork` or `flush`; return False, without effect, if that is not allowed."""
        queued = self._queued + len(data)
        if not self.corked or queued > CHUNK:
            return False
        self._queue.append(data)
        self._queued = queued
        return True

    def keep(self, data: bytes) -> bool:
        """Queue bytes without sending them; return False, without effect, if they must be sent by `enqueue` instead.

        Before the task waits it calls `rest`; until then it may change the bytes by `replace_last`, or call `release`.
        """
        if self._turn >= CHUNK:
            return False
        if self._queued + len(data) > min(CHUNK, self._limit):
            self.uncork()
        if self.poisoned or not self.has_room(len(data)):
            return False
        self._turn += len(data) + PER_PUT
        self._queue.append(data)
        self._queued += len(data)
        return True

    def replace_last(self, change: Callable[[bytes], bytes]) -> bool:
        """Replace the bytes that were queued last by the result of a function, which has the same length.

        Returns:
            False if they were sent, or dropped.
        """
        if not self._queue:
            return False
        self._queue[-1] = change(self._queue[-1])
        return True

    def release(self) -> None:
        """Send the output that `keep` has queued, unless the output is corked."""
        if not self.corked:
            self.uncork()

    def rest(self) -> None:
        """Send the held-back bytes, as the task is about to wait: other tasks run."""
        self._turn = 0
        self.uncork()

    def cork(self) -> bool:
        """Allow `hold`, unless a write is under way or the connection is poisoned; return whether it is allowed."""
        self.corked = allowed = not (self.poisoned or self._writing)
        return allowed

    async def put(self, data: bytes) -> None:
        """Send bytes after those held back; during the write of another task, queue them when there is room.

        Tasks get room in the order of their calls, a packet of more than ``limit`` bytes when the write is over.

        Yields to other tasks after each `CHUNK` of bytes, even if the peer accepts them without waiting.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        if self._waiting or self._is_full(len(data)):
            await self._wait_for_room(len(data))
        if self.poisoned:
            raise ConnectionLost("the connection broke before")
        self._queue.append(data)
        self._queued += len(data)
        self._turn += self._queued + PER_PUT
        if not self._writing:
            await self._send_all()
        if self._turn >= CHUNK:
            self._turn = 0
            await trio.lowlevel.checkpoint()

    async def enqueue(self, data: bytes) -> None:
        """Do as `put`, but let another task write: a caller that is cancelled does not poison the connection.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        await self.make_room(len(data))
        if not self.poisoned:
            self._turn += len(data) + PER_PUT
            self.queue(data)
        if self.poisoned:
            raise ConnectionLost("the connection broke before")
        if self._turn >= CHUNK:
            self._turn = 0
            await trio.lowlevel.checkpoint()

    async def make_room(self, size: int) -> None:
        """Wait until `queue` may be called with this number of bytes; return at once if that is now."""
        if self._waiting or self._is_full(size):
            await self._wait_for_room(size)

    def put_now(self, data: bytes) -> bool:
        """Hold back, send or queue bytes without waiting; return False, without effect, if there is no room for them.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        if self.corked and self.hold(data):
            return True
        if self._waiting or self._is_full(len(data)):
            return False
        if self.poisoned:
            raise ConnectionLost("the connection broke before")
        if self._queued or self._writing:
            self._queue.append(data)
            self._queued += len(data)
            self.uncork()
        else:
            self.corked = False
            self._begin_sending(data)
        if self.poisoned:
            raise ConnectionLost("the connection broke before")
        return True

    def has_room(self, size: int) -> bool:
        """Return True if `put_now` would accept this number of bytes."""
        return not (self._waiting or self._is_full(size))

    def queue(self, data: bytes) -> None:
        """Queue bytes also where there is no room, and send them as soon as possible; nothing is raised."""
        if not self.poisoned:
            self._queue.append(data)
            self._queued += len(data)
            self.uncork()

    async def wait_for_room(self) -> None:
        """Wait until the queue has room, or the connection is poisoned."""
        while not (self.poisoned or self.has_room(1)):
            await self._park()

    def flush_now(self) -> bool:
        """Send the held-back bytes as far as possible without waiting; return True if none are left.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        if self._writing or self.poisoned:
            return False
        if self._queue and (rest := self._send_now(self._taken())):
            self._queue.append(bytes(rest))
            self._queued = len(rest)
            return False
        return True

    async def flush(self) -> None:
        """Return when all queued bytes are sent, including those of tasks that wait in `put`.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        while self._writing or self._waiting:
            await self._park()
        if self.poisoned:
            raise ConnectionLost("the connection broke before")
        if self._queue:
            await self._send_all()

    def _is_full(self, more: int) -> bool:
        """Return True if a write is under way, and there is no room for ``more`` bytes in the queue."""
        return self._writing and self._queued + more > self._limit

    async def _wait_for_room(self, size: int) -> None:
        """Wait behind the tasks that wait already, then until ``size`` bytes fit into the queue."""
        if self._line is None:
            self._line = trio.StrictFIFOLock()
        self._waiting += 1
        try:
            async with self._line:
                while self._is_full(size):
                    await self._park()
        finally:
            self._waiting -= 1
            self._unpark()  # a task in `flush` checks again, after the bytes are queued

    async def _park(self) -> None:
        """Wait until the writing task has taken the queue, or is done."""
        if self._parked is None:
            self._parked = trio.lowlevel.ParkingLot()
        await self._parked.park()

    async def _send_all(self) -> None:
        rest = self._send_now(self._taken())
        if rest:
            await self._send(rest)

    def uncork(self) -> bool:
        """Send the held-back bytes without waiting, and forbid `hold` until the next `cork`.

        Returns:
            Whether no write is under way: the peer has accepted all bytes.
        """
        self.corked = False
        if self._queue and not self._writing:
            self._begin_sending(self._taken())
        return not self._writing

    def _begin_sending(self, data: bytes) -> None:
        """Send data without waiting as far as possible, and the rest in a task; if that fails, the next sender gets the
        error.
        """
        try:
            rest = self._send_now(data)
        except ConnectionLost:
            return
        if rest:
            self._writing = True
            self._unsent = len(rest)
            self._spawn(self._send_quietly, rest)

    def poison(self) -> None:
        """Abort the connection: nothing more is sent, and waiting tasks get ConnectionLost."""
        self.poisoned = True
        self.corked = False
        self._spawn = _spawn_nothing  # no reference to the connection is left
        self._queue.clear()
        self._queued = self._unsent = 0
        self._transport.abort()
        self._unpark()

    def _send_now(self, data: bytes) -> bytes | memoryview:
        """Send data as far as possible without waiting; return the rest."""
        try:
            sent = self._transport.send_now(data)
        except ConnectionLost:
            self.poison()
            raise
        self.sent += sent
        return memoryview(data)[sent:] if sent < len(data) else b""

    async def _send(self, data: bytes | memoryview) -> None:
        """Send data, however long it takes; bytes that other tasks queue meanwhile get a writer task of their own."""
        self._writing = True
        await self._write(data)
        if self._queue:
            self._spawn(self._send_quietly, self._taken())
        else:
            self._writing = False
        self._unpark()

    async def _send_quietly(self, data: bytes | memoryview) -> None:
        """Send data, and all bytes queued meanwhile. If that fails, the next sender gets the error."""
        try:
            while data:
                await self._write(data)
                data = self._taken()
                self._unpark()
        except ConnectionLost:
            return
        self._writing = False
        self._unpark()

    async def _write(self, data: bytes | memoryview) -> None:
        """Send data through the transport, each chunk within its deadline."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), CHUNK):
                self._unsent = len(view) - start
                self._deadlines.start(self)
                chunk = view[start : start + CHUNK]
                await self._transport.send(chunk)
                self._deadlines.stop(self)
                self.sent += len(chunk)
            self._unsent = 0
        except BaseException:  # also a cancelled write: an unknown part of it was sent
            self._deadlines.stop(self)
            self._writing = False
            self.poison()
            raise

    def _taken(self) -> bytes:
        """Remove the queued bytes, and return them."""
        data = self._queue[0] if len(self._queue) == 1 else b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        return data

    def _unpark(self) -> None:
        if self._parked is not None:
            self._parked.unpark_all()
