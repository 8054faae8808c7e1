"""`FrameDecoder`: bytes to the frames of version 22, without I/O (docs/protocol.md, "A packet" and "Parsers").

Payloads are not decoded here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from typing import TypeAlias

from asyncapy_core.defaults import MIN_PACKET
from asyncapy_core.errors import InvalidHeader, MalformedPacket, PacketTooLarge
from asyncapy_core.protocol.decoder import StreamDecoder
from asyncapy_core.protocol.wire import AFTER_LENGTH, PROTOCOL_VERSION, WireFormat, header_struct

Frame: TypeAlias = tuple[int, bytes]
"""One packet: the wire id of its codec, and its encoded payload."""


class FrameDecoder(StreamDecoder):
    """Splits a stream of bytes into frames.

    The same bytes give the same frames and the same error, in one piece or in several. An error is final: every later
    call raises it again. Memory is bounded by one packet and the last bytes fed; the cost is linear.

    Args:
        wire: the wire format.
        encodings: the wire ids of the installed codecs; any other raises `InvalidHeader`.
    """

    __slots__ = ("_max_packet", "_read_header")

    buffered: int

    def __init__(self, wire: WireFormat, encodings: Container[int]) -> None:
        super().__init__(wire, encodings)
        self._max_packet = wire.max_packet
        self._read_header: Callable[[bytes | bytearray, int], tuple[int, ...]] = header_reader(wire)

    def frames(self, limit: int) -> list[Frame]:
        """Return the next complete frames, at most ``limit``; none if more bytes are needed.

        Frames before an invalid one are returned first; the next call raises the error.

        Raises:
            PacketTooLarge: Content-Length exceeds ``max_packet``; raised before version and encoding are checked.
            MalformedPacket: Content-Length is below the minimum.
            InvalidHeader: the version is wrong or the encoding unknown; raised as soon as that byte has arrived.
        """
        if self._error is not None:
            raise self._error()
        frames: list[Frame] = []
        buffer, read_header = self._buffer, self._read_header
        header, encodings, largest = self._header_size, self._encodings, self._max_packet
        payload_at = header + AFTER_LENGTH
        size = len(buffer)
        start = size - self.buffered
        last = size - payload_at
        whole = buffer if isinstance(buffer, bytes) else None
        while start <= last and limit:
            length, version, encoding = read_header(buffer, start)
            end = start + header + length
            if version != PROTOCOL_VERSION or encoding not in encodings or not MIN_PACKET <= length <= largest:
                break
            if end > size:
                break
            limit -= 1
            if whole is not None:
                payload = whole[start + payload_at : end]
            else:
                payload = bytes(memoryview(buffer)[start + payload_at : end])
            start = end
            frames.append((encoding, payload))
        self.buffered = size - start
        if start == size:
            self._buffer = b""
        elif not frames and self._judge():
            return self.frames(limit)
        return frames

    def _judge(self) -> bool:
        """Raise the error of the current packet, if its bytes so far have one.

        Returns:
            Whether `frames` can now decode bytes that it could not decode before; False unless a subclass overrides it.
        """
        buffer = self._buffer
        body = len(buffer) - self.buffered + self._header_size
        have = len(buffer) - body
        if have < 0:
            return False
        length = self._length()
        if length < MIN_PACKET:
            self._fail(MalformedPacket, f"Content-Length is {length}; a packet has at least {MIN_PACKET}")
        if length > self._max_packet:
            self._fail(PacketTooLarge, f"Content-Length is {length}; at most {self._max_packet} are accepted")
        if have > 0 and buffer[body] != PROTOCOL_VERSION:
            self._fail(InvalidHeader, f"protocol version {buffer[body]}; this is version {PROTOCOL_VERSION}")
        if have > 1 and buffer[body + 1] not in self._encodings:
            self._fail(InvalidHeader, f"no codec claims encoding {buffer[body + 1]}")
        return False


@functools.cache  # a connection needs no copy of its own
def header_reader(wire: WireFormat) -> Callable[[bytes | bytearray, int], tuple[int, ...]]:
    """Return a function that reads Content-Length, version and encoding from a buffer at an offset."""
    if (header := header_struct(wire, "BB")) is not None:
        return header.unpack_from
    size, order = wire.header_size, wire.byteorder

    def read(buffer: bytes | bytearray, start: int) -> tuple[int, ...]:
        body = start + size
        return int.from_bytes(buffer[start:body], order), buffer[body], buffer[body + 1]

    return read
