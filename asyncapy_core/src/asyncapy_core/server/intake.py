"""`Intake`: the bytes that a connection receives, and the bounds on their time and number.

It does not know what the packets are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import ErrorCode, ProtocolError
from asyncapy_core.net.transport import Transport, Woken
from asyncapy_core.protocol.frames import FrameDecoder

if TYPE_CHECKING:
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

    Attributes:
        decoder: cuts the bytes into packets.
        received: the number of bytes received.
        closed: whether the connection was closed, so that `receive` waits no more; the connection sets it.
    """

    __slots__ = ("_expired", "_overflowed", "_partial", "_state", "_transport", "closed", "decoder", "received")

    def __init__(self, state: ServerState, transport: Transport) -> None:
        self._state = state
        self._transport = transport
        self._expired = False
        self._overflowed = False
        self._partial = 0
        self.decoder: FrameDecoder = FrameDecoder(state.encodings.wire, state.encodings.by_id)
        self.closed: bool = False
        self.received: int = 0

    async def receive(self, connection: ConnectionInterface) -> bytes:
        """Yield to other tasks, then return received bytes; ``b""`` at the end of the stream, after a close or a stop.

        The deadline runs from the first wait for a packet until the packet is complete.

        Raises:
            TimedOut: the deadline has passed.
            BufferFull: this packet is the largest incomplete one, and all together exceed ``max_buffered``.
            ConnectionLost: the connection broke.
        """
        await trio.lowlevel.checkpoint()
        state = self._state
        if state.draining:
            return b""
        size = state.config.buf
        if buffered := self.decoder.buffered:
            size = max(size, min(self.decoder.missing, MAX_READ))
        data = self._transport.receive_now(size)
        while data is None and not (self.closed or state.draining):
            if self._expired:
                raise TimedOut(f"no whole packet within {state.config.timeout:g} s")
            if buffered != self._partial:
                self._partial = buffered
                state.hold_partial(connection, buffered)
            if self._overflowed:
                raise BufferFull(f"{self._partial} bytes of an incomplete packet, while max_buffered is exceeded")
            state.reading.start(connection)
            try:
                data = await self._transport.receive(size)
            except Woken:
                continue
        if not data:
            return b""
        self.received += len(data)
        if buffered:
            state.heap.count(len(data))
        return data

    def complete(self, connection: ConnectionInterface) -> None:
        """Stop the deadline, as a packet is complete, and forget that it was incomplete."""
        self._state.reading.stop(connection)
        self._expired = False
        if self._partial:
            self._partial = 0
            self._overflowed = False
            self._state.hold_partial(connection, 0)

    def expire(self) -> None:
        """End the current wait: its deadline has passed."""
        self._expired = True
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
        self._expired = False  # the next deadline is that of `skip`

    async def skip(self, most: int) -> None:
        """Read and drop bytes until the peer has closed, the deadline for this has passed, or ``most`` are read."""
        while most > 0 and not self._expired:
            try:
                data = await self._transport.receive(min(most, MAX_READ))
            except Woken:
                continue
            if not data:
                return
            most -= len(data)
