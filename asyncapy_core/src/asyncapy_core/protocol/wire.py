"""Frames of AsyncAProto, without I/O: `WireFormat` encodes them, `FrameDecoder` decodes them.

docs/protocol.md, "A packet" and "Parsers". Payloads are not decoded here.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeAlias

from asyncapy_core.defaults import BYTEORDER, HEADER_SIZE, MAX_PACKET, MIN_PACKET
from asyncapy_core.errors import EncodeError, InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError

ByteOrder = Literal["big", "little"]

PROTOCOL_VERSION: Final = 22

_AFTER_LENGTH: Final = 2
"""Bytes of header that Content-Length counts: version and encoding."""

_MIN_PAYLOAD: Final = MIN_PACKET - _AFTER_LENGTH
"""Bytes of the smallest payload."""

_LENGTH_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The format character of `struct` for a Content-Length, by its size in bytes."""

_VERSION_AND_ENCODING: Final = tuple(bytes((PROTOCOL_VERSION, encoding)) for encoding in range(256))
"""The version and encoding bytes of a header, by encoding."""


Frame: TypeAlias = tuple[int, bytes]
"""One packet: the wire id of its codec, and its encoded payload."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The settings that both sides of a connection must share, and the largest packet that this side accepts.

    Attributes:
        header_size: bytes of the Content-Length header, 1..8.
        byteorder: the byte order of Content-Length.
        max_packet: the largest Content-Length accepted, in bytes.
    """

    header_size: int = HEADER_SIZE
    byteorder: ByteOrder = BYTEORDER
    max_packet: int = MAX_PACKET

    def __post_init__(self) -> None:
        if self.byteorder not in ("big", "little"):
            raise ValueError(f"byteorder is {self.byteorder!r}; it must be 'big' or 'little'")
        if not 1 <= self.header_size <= 8:
            raise ValueError(f"header_size is {self.header_size!r}; it must be 1 to 8 bytes")
        if self.max_packet < MIN_PACKET:
            raise ValueError(f"max_packet is {self.max_packet!r}; no packet is shorter than {MIN_PACKET} bytes")

    def encode(self, encoding: int, payload: bytes) -> bytes:
        """Return the packet with this payload (docs/protocol.md, "A packet").

        Args:
            encoding: the wire id of the codec.
            payload: the encoded fields.

        Raises:
            EncodeError: the payload is too short for a packet, or its length does not fit into the header.
        """
        return self.header(encoding, len(payload)) + payload

    def header(self, encoding: int, size: int) -> bytes:
        """Return the header for a payload of ``size`` bytes.

        Raises:
            EncodeError: see `encode`.
        """
        if size < _MIN_PAYLOAD:
            raise EncodeError(
                f"a payload of {size} bytes is too short for a packet, which carries at least {_MIN_PAYLOAD}; "
                "send at least one field"
            )
        try:
            length = (size + _AFTER_LENGTH).to_bytes(self.header_size, self.byteorder)
        except OverflowError:
            raise EncodeError(
                f"a payload of {size} bytes does not fit into a packet with a {self.header_size}-byte "
                f"Content-Length; send less, or give both sides a larger header_size"
            ) from None
        return length + _VERSION_AND_ENCODING[encoding]


class FrameDecoder:
    """Splits a stream of bytes into frames.

    The same bytes give the same frames and the same error, in one piece or in several. An error is final: every later
    call raises it again. Memory is bounded by one packet and the last bytes fed; the cost is linear.

    Args:
        wire: the wire format.
        encodings: the wire ids of the installed codecs; any other raises `InvalidHeader`.
    """

    __slots__ = (
        "_buffer",
        "_byteorder",
        "_encodings",
        "_error",
        "_header_size",
        "_max_packet",
        "_read_header",
        "_start",
    )

    def __init__(self, wire: WireFormat, encodings: Container[int]) -> None:
        self._header_size = wire.header_size
        self._byteorder = wire.byteorder
        self._max_packet = wire.max_packet
        self._read_header = _header_reader(wire)
        self._encodings = encodings
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._error: Callable[[], ProtocolError] | None = None

    @property
    def buffered(self) -> int:
        """The number of bytes fed and not returned yet; not 0 at the end of the stream if a packet was cut."""
        return len(self._buffer) - self._start

    @property
    def missing(self) -> int:
        """The number of bytes that the current packet lacks, as far as its header is known; at least 1."""
        have = len(self._buffer) - self._start
        if have < self._header_size:
            return self._header_size - have
        return max(1, self._header_size + self._length() - have)

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        if self._error is not None:
            return
        if not self.buffered:
            self._buffer = data
        elif type(self._buffer) is bytearray:
            del self._buffer[: self._start]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._buffer += data
        self._start = 0

    def clear(self) -> None:
        """Drop the buffered bytes; the stream cannot be decoded further."""
        self._buffer = b""
        self._start = 0

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
        buffer, start, read_header = self._buffer, self._start, self._read_header
        header, encodings, largest = self._header_size, self._encodings, self._max_packet
        payload_at = header + _AFTER_LENGTH
        size = len(buffer)
        last = size - payload_at
        whole = buffer if isinstance(buffer, bytes) else None
        while start <= last and len(frames) < limit:
            length, version, encoding = read_header(buffer, start)
            if version != PROTOCOL_VERSION or encoding not in encodings or not MIN_PACKET <= length <= largest:
                break
            end = start + header + length
            if end > size:
                break
            if whole is not None:
                payload = whole[start + payload_at : end]
            else:
                payload = bytes(memoryview(buffer)[start + payload_at : end])
            start = end
            frames.append((encoding, payload))
        if start == size:
            self._buffer = b""
            self._start = 0
        else:
            self._start = start
            if not frames:
                self._judge()
        return frames

    def _judge(self) -> None:
        """Raise the error of the current packet, if its bytes so far have one."""
        buffer = self._buffer
        body = self._start + self._header_size
        have = len(buffer) - body
        if have < 0:
            return
        length = self._length()
        if length < MIN_PACKET:
            self._fail(MalformedPacket, f"Content-Length is {length}; a packet has at least {MIN_PACKET}")
        if length > self._max_packet:
            self._fail(PacketTooLarge, f"Content-Length is {length}; at most {self._max_packet} are accepted")
        if have > 0 and buffer[body] != PROTOCOL_VERSION:
            self._fail(InvalidHeader, f"protocol version {buffer[body]}; this is version {PROTOCOL_VERSION}")
        if have > 1 and buffer[body + 1] not in self._encodings:
            self._fail(InvalidHeader, f"no codec claims encoding {buffer[body + 1]}")

    def _length(self) -> int:
        return int.from_bytes(self._buffer[self._start : self._start + self._header_size], self._byteorder)

    def _fail(self, kind: type[ProtocolError], message: str) -> NoReturn:
        """Raise an error now and in later calls: a new exception each time, as a kept one would keep its traceback."""
        self._error = functools.partial(kind, message)
        self.clear()
        raise self._error()


def _header_reader(wire: WireFormat) -> Callable[[bytes | bytearray, int], tuple[int, ...]]:
    """Return a function that reads Content-Length, version and encoding from a buffer at an offset."""
    size, order = wire.header_size, wire.byteorder
    if size in _LENGTH_CODES:
        return struct.Struct(f"{'>' if order == 'big' else '<'}{_LENGTH_CODES[size]}BB").unpack_from

    def read(buffer: bytes | bytearray, start: int) -> tuple[int, ...]:
        body = start + size
        return int.from_bytes(buffer[start:body], order), buffer[body], buffer[body + 1]

    return read
