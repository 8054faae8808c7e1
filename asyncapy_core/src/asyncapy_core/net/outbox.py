"""What is on its way to one peer: bytes queued, written by one task at a time, bounded, with a deadline.

Knows nothing of packets. A write that fails or is cancelled poisons the connection: not one more byte is sent.
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
"""Bytes handed over under one deadline; also the most that is held back while corked."""
PER_PUT: Final = 64
"""Bytes that a packet counts for besides its own, when tasks take turns."""


class Outbox:
    """The output of one connection.

    While it is ``corked``, output may be held back, to be sent in one piece.

    Args:
        transport: where the bytes go.
        deadlines: how long a peer may take to accept a chunk; the one who made it aborts the transport.
        limit: bytes that may be queued behind a write under way before `put` waits.
        spawn: starts a task that outlives the caller.
    """

    __slots__ = (
        "_deadlines",
        "_limit",
        "_parked",
        "_queue",
        "_queued",
        "_spawn",
        "_transport",
        "_turn",
        "_waiting",
        "_writing",
        "corked",
        "poisoned",
    )

    def __init__(
        self, transport: Transport, deadlines: Deadlines[Outbox], limit: int, spawn: Callable[..., None]
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
        self._parked: trio.lowlevel.ParkingLot | None = None
        self.corked: bool = False
        self.poisoned: bool = False

    def hold(self, data: bytes) -> bool:
        """Hold back bytes, to be sent by the next `uncork` or `flush`; say no where they may not be held back."""
        queued = self._queued + len(data)
        if not self.corked or queued > CHUNK:
            return False
        self._queue.append(data)
        self._queued = queued
        return True

    def cork(self) -> None:
        """Hold back from now on, unless something is being sent already, or nothing can be sent any more."""
        self.corked = not (self.poisoned or self._writing)

    async def put(self, data: bytes) -> None:
        """Send bytes behind those held back, or queue them where another task is sending, when there is room for them.

        Other tasks get their turn after each `CHUNK` of bytes, even when nothing has to be waited for.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        if self._is_full(len(data)):
            self._waiting += 1
            try:
                while self._is_full(len(data)):
                    await self._park()
            finally:
                self._waiting -= 1
                self._unpark()  # whoever flushes looks again, after this has been put in
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

    def flush_now(self) -> bool:
        """Send what was held back, as far as it is taken without waiting; say whether nothing is left to be sent.

        Raises:
            ConnectionLost: the connection broke, now or before.
        """
        if self._writing or self.poisoned:
            return False
        if self._queue and (rest := self._send_now()):
            self._queue.append(bytes(rest))
            self._queued = len(rest)
            return False
        return True

    async def flush(self) -> None:
        """Return when everything that was put in has been sent, and what waits to be put in as well.

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
        """Say whether there is no room for so many bytes behind a write under way."""
        return self._writing and self._queued + more > self._limit

    async def _park(self) -> None:
        """Wait until the task that is sending has taken what was queued, or is done."""
        if self._parked is None:
            self._parked = trio.lowlevel.ParkingLot()
        await self._parked.park()

    async def _send_all(self) -> None:
        rest = self._send_now()
        if rest:
            await self._send(rest)

    def uncork(self) -> None:
        """Send what was held back, without waiting, and hold back nothing more until corked again."""
        self.corked = False
        if self._queue and not self._writing:
            try:
                rest = self._send_now()
            except ConnectionLost:
                return  # whoever sends next is told
            if rest:
                self._writing = True
                self._spawn(self._send_quietly, rest)

    def poison(self) -> None:
        """Give up: nothing more is sent, who waits is told."""
        self.poisoned = True
        self.corked = False
        self._queue.clear()
        self._queued = 0
        self._transport.abort()
        self._unpark()

    def _send_now(self) -> bytes | memoryview:
        """Send what is taken at once; return the rest."""
        data = self._queue[0] if len(self._queue) == 1 else b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        try:
            sent = self._transport.send_now(data)
        except ConnectionLost:
            self.poison()
            raise
        return memoryview(data)[sent:] if sent < len(data) else b""

    async def _send(self, data: bytes | memoryview) -> None:
        """Send this, waiting as long as it takes; what others queue meanwhile is left to a task of its own."""
        self._writing = True
        await self._write(data)
        if self._queue:
            self._spawn(self._send_quietly, self._taken())
        else:
            self._writing = False
        self._unpark()

    async def _send_quietly(self, data: bytes | memoryview) -> None:
        """Send this and whatever is queued meanwhile; whoever sends next is told when that fails."""
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
        """Hand all of this to the transport, each chunk within its deadline."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), CHUNK):
                self._deadlines.start(self)
                await self._transport.send(view[start : start + CHUNK])
                self._deadlines.stop(self)
        except BaseException:  # a cancelled write as well: nobody knows how much of it is out
            self._deadlines.stop(self)
            self._writing = False
            self.poison()
            raise

    def _taken(self) -> bytes:
        """Take out what is queued."""
        data = b"".join(self._queue)
        self._queue.clear()
        self._queued = 0
        return data

    def _unpark(self) -> None:
        if self._parked is not None:
            self._parked.unpark_all()
