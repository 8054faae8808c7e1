"""`Intake`: the bytes that a connection receives, and the bounds on their time and number.

It does not know what the packets are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import ErrorCode, ProtocolError
from asyncapy_core.net.transport import Transport, Woken

if TYPE_CHECKING:
    from asyncapy_core.protocol.decoder import StreamDecoder
    from asyncapy_core.server.state import ConnectionInterface, ServerState

MAX_READ: Final = 256 * 1024
"""The most bytes of one read."""


class TimedOut(ProtocolError):
    """No whole packet came within ``timeout``."""

    code = ErrorCode.TIMED_OUT


class BufferFull(ProtocolError):
    """The incomplete packets of all connections exceed ``max_buffered``, and this one is the largest."""

    code = ErrorCode.SERVER_BUSY


class Intake:
    """Receives the bytes of one connection.

    Methods that register the connection with the state of the server get it as an argument: a reference here would be a
    cycle.

    Args:
        state: the state of the server.
        transport: the connection.
        decoder: cuts the bytes into packets.

    Attributes:
        decoder: cuts the bytes into packets.
        received: the number of bytes received.
        expired: whether the deadline has passed.
    """

    __slots__ = ("_overflowed", "_partial", "_state", "_transport", "_woken", "decoder", "expired", "received")

    def __init__(self, state: ServerState, transport: Transport, decoder: StreamDecoder) -> None:
        self._state = state
        self._transport = transport
        self.expired: bool = False
        self._overflowed = False
        self._partial = 0
        self._woken = False
        self.decoder: StreamDecoder = decoder
        self.received: int = 0

    async def receive(self, connection: ConnectionInterface) -> bool | None:
        """Yield to other tasks, then wait for bytes, and feed them to the decoder.

        The deadline runs from the first wait for a packet until the packet is complete.

        Returns:
            False at the end of the stream. None after a wake-up, as the deadline has passed (`expired`) or on `wake`.

        Raises:
            BufferFull: this packet is the largest incomplete one, and all together exceed ``max_buffered``.
            ConnectionLost: the connection broke.
        """
        await trio.lowlevel.checkpoint()
        state, decoder = self._state, self.decoder
        size = state.config.buf
        if buffered := decoder.buffered:
            size = self._wanted(size)
        data = self._transport.receive_now(size)
        if data is None and not self.expired and not self._woken:
            self._begin_waiting(connection, buffered)
            try:
                data = await self._transport.receive(size)  # without a coroutine between: it would take 200 bytes
            except Woken:
                data = None
        self._woken = False
        if not data:
            return None if data is None else False
        self.received += len(data)
        if buffered:
            state.heap.count(len(data))
        decoder.feed(data)
        return True

    def take(self) -> bool:
        """Feed the bytes that have arrived to the decoder, without a wait; return whether there are any.

        Raises:
            ConnectionLost: the connection broke.
        """
        data = self._transport.receive_now(self._state.config.buf)
        if not data:
            return False
        self.received += len(data)
        self.decoder.feed(data)
        return True

    def check_deadline(self) -> None:
        """Raise TimedOut if the deadline has passed."""
        if self.expired:
            raise TimedOut(f"no whole packet within {self._state.config.timeout:g} s")

    def wake(self) -> None:
        """Make the current or the next call of `receive` return; no wake-up is lost between two calls."""
        self._woken = True
        self._transport.wake()

    def _wanted(self, size: int) -> int:
        """Return the most bytes to read next, for the rest of an incomplete packet: ``size`` or more."""
        return max(size, min(self.decoder.missing, MAX_READ))

    def _begin_waiting(self, connection: ConnectionInterface, buffered: int) -> None:
        """Start the deadline, and count the bytes of an incomplete packet."""
        if buffered != self._partial:
            self._partial = buffered
            self._state.hold_partial(connection, buffered)
        if self._overflowed:
            raise BufferFull(f"{self._partial} bytes of an incomplete packet, while max_buffered is exceeded")
        self._state.reading.start(connection)

    def complete(self, connection: ConnectionInterface) -> None:
        """Stop the deadline, as a packet is complete, and forget that it was incomplete."""
        self._state.reading.stop(connection)
        self.expired = False
        if self._partial:
            self._partial = 0
            self._overflowed = False
            self._state.hold_partial(connection, 0)

    def expire(self) -> None:
        """End the current wait: its deadline has passed."""
        self.expired = True
        self._transport.wake()

    def overflow(self) -> None:
        """Refuse the incomplete packet; see `BufferFull`."""
        self._overflowed = True
        self._transport.wake()

    def end(self, connection: ConnectionInterface) -> None:
        """Drop the bytes of an incomplete packet: no further packet is wanted."""
        self._state.reading.stop(connection)
        self._state.hold_partial(connection, 0)
        self._state.heap.count(self.decoder.buffered)
        self.decoder.clear()
        self.expired = False  # the next deadline is that of `skip`

    async def skip(self, most: int) -> None:
        """Read and drop bytes until the peer has closed, the deadline for this has passed, or ``most`` are read."""
        while most > 0 and not self.expired:
            try:
                data = await self._transport.receive(min(most, MAX_READ))
            except Woken:
                continue
            if not data:
                return
            most -= len(data)
