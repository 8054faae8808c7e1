"""`BlockingConnection`: one connection of the synchronous client, from its socket to whole replies.

It does not connect, and repeats no packet: `Client` does, after asking `ended_while_idle` and `unread_before`.
"""

from __future__ import annotations

import os
import ssl
import time
from typing import TYPE_CHECKING, Final

from asyncapy_core.client.idle import END_WITHIN
from asyncapy_core.client.outstanding import Outstanding
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.client.sockets import has_expired, remaining
from asyncapy_core.errors import InvalidReply, ServerDisconnected

if TYPE_CHECKING:
    import socket

    from asyncapy_core.protocol.encoding import EncodingRegistry
    from asyncapy_core.protocol.frames import Frame

MAX_READ: Final = 256 * 1024
MIN_READ: Final = 4096
IDLE: Final = 0.01
"""The seconds without a packet after which a connection is checked before the next packet. The check takes two system
calls, which would slow down a program that sends one request after the other."""


class BlockingConnection:
    """Sends packets and reads replies, and keeps account of the packets that have no reply yet.

    All deadlines are times of `time.monotonic`; None for no deadline.

    Args:
        connected: the socket.
        encodings: the encodings of the client.

    Attributes:
        socket: the socket.
        decoder: the decoder of its bytes.
        outstanding: the packets without a reply.
        process: the id of the process that has connected.
        fault: the error that has broken the connection.
    """

    def __init__(self, connected: socket.socket, encodings: EncodingRegistry) -> None:
        self.socket: socket.socket = connected
        self.decoder: ReplyDecoder = ReplyDecoder(encodings)
        self.outstanding: Outstanding = Outstanding(time.monotonic)
        self.process: int = os.getpid()
        self.fault: OSError | None = None
        self._early: Frame | None = None

    def send(self, packet: bytes, deadline: float | None) -> None:
        """Send a packet; if the server has left, and its reply has arrived, the packet counts as sent.

        Raises:
            TimeoutError: the server did not accept the packet in time.
            ServerDisconnected: the server has left.
        """
        data = memoryview(packet)
        try:
            while data:
                self.socket.settimeout(remaining(deadline))
                data = data[self.socket.send(data) :]
        except OSError as error:
            if has_expired(error):
                raise
            self.fault = error
            self._read_early()
            if self._early is None:
                raise ServerDisconnected(f"the server has left: {error}") from error

    def next_frame(self, deadline: float | None) -> Frame | None:
        """Read until a reply is complete; return None if the server closes the connection before.

        Raises:
            TimeoutError: no whole reply arrived in time.
            InvalidReply: the bytes are not a packet.
        """
        decoder = self.decoder
        frame, self._early = self._early, None
        while frame is None and (frame := decoder.next_frame()) is None:
            try:
                self.socket.settimeout(remaining(deadline))
                data = self.socket.recv(min(max(decoder.missing, MIN_READ), MAX_READ))
            except OSError as error:
                if has_expired(error):
                    raise
                self.fault = error
                return None
            if not data:
                return None
            decoder.feed(data)
        return frame

    def ended_while_idle(self) -> bool:
        """Return True if each packet has its reply, and the server has closed the connection.

        It may have sent ERR_TIMED_OUT before. Another packet is kept for `next_frame`. This does not wait, and does not
        read from a connection that has been idle for less than `IDLE`.
        """
        if not self.outstanding.idle_for(IDLE):
            return False
        try:
            ended = self._read_early()
        except InvalidReply:  # `next_frame` raises it again
            return False
        if self._early is None:
            return ended and not self.decoder.buffered
        if self.decoder.is_time_out(self._early):
            return self._ends_within(0)
        self.outstanding.stop_counting()
        return False

    def unread_before(self, frame: Frame, deadline: float | None) -> list[bytes]:
        """Return the packets that the server had not read when it closed the connection with this reply."""
        outstanding = self.outstanding
        if not (outstanding.repeatable and self.decoder.is_time_out(frame) and outstanding.unread_until_now()):
            return []
        seconds = END_WITHIN if deadline is None else min(END_WITHIN, max(0.0, deadline - time.monotonic()))
        return outstanding.repeatable if self._ends_within(seconds) else []

    def _read_early(self) -> bool:
        """Read without waiting until a reply is complete, and keep it; return True if the connection has ended."""
        while self._early is None:
            self._early = self.decoder.next_frame()
            if self._early is None:
                data = self._receive_within(0)
                if not data:
                    return data is not None
                self.decoder.feed(data)
        return False

    def _ends_within(self, seconds: float) -> bool:
        """Return True if the connection ends in this time, and no further bytes arrive."""
        if self.decoder.buffered:
            return False
        data = self._receive_within(seconds)
        if data:
            self.decoder.feed(data)
        return data == b""

    def _receive_within(self, seconds: float) -> bytes | None:
        """Receive bytes; return ``b""`` if the connection has ended, and None if nothing arrives in time."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(MIN_READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError as error:  # a reset of the connection ends it, too
            return None if has_expired(error) else b""
