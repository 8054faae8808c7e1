"""AsyncAProto framing without I/O: bytes in, frames out, and back (WIRE.md, "A packet" and "What a parser may do").

Knows no codec, no socket, no clock: a `FrameDecoder` is fed whatever arrived and is asked for frames.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final, Literal

from asyncapy_core.errors import EncodeError, InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError

ByteOrder = Literal["big", "little"]

PROTOCOL_VERSION: Final = 22
DEFAULT_HEADER_SIZE: Final = 4
DEFAULT_MAX_PACKET: Final = 1024 * 1024
MINIMUM_LENGTH: Final = 5
"""The least Content-Length: version, encoding and three bytes of payload."""

_AFTER_LENGTH: Final = 2
"""Bytes of header that Content-Length counts: version and encoding."""

_AFTER_HEADER: Final = tuple(bytes((PROTOCOL_VERSION, encoding)) for encoding in range(256))
"""Version and encoding, by encoding."""


class Frame:
    """One packet as it stood on the wire, its payload still encoded.

    Attributes:
        encoding: the wire id of the codec that made the payload, 0..255.
        payload: Content-Length - 2 bytes.
    """

    __slots__ = ("encoding", "payload")

    def __init__(self, encoding: int, payload: bytes) -> None:
        self.encoding = encoding
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and (self.encoding, self.payload) == (other.encoding, other.payload)

    def __hash__(self) -> int:
        return hash((self.encoding, self.payload))

    def __repr__(self) -> str:
        return f"Frame(encoding={self.encoding}, payload=<{len(self.payload)} bytes>)"


@dataclass(frozen=True, slots=True)
class WireFormat:
    """What the two sides of a connection must agree on, and the largest packet this side accepts.

    Attributes:
        header_size: bytes of the Content-Length header, 1..8.
        byteorder: the order of these bytes.
        max_packet: the largest Content-Length accepted, in bytes.
    """

    header_size: int = DEFAULT_HEADER_SIZE
    byteorder: ByteOrder = "big"
    max_packet: int = DEFAULT_MAX_PACKET

    def __post_init__(self) -> None:
        if self.byteorder not in ("big", "little"):
            raise ValueError(f"byteorder is {self.byteorder!r}; it must be 'big' or 'little'")
        if not 1 <= self.header_size <= 8:
            raise ValueError(f"header_size is {self.header_size!r}; it must be 1 to 8 bytes")
        if self.max_packet < MINIMUM_LENGTH:
            raise ValueError(f"max_packet is {self.max_packet!r}; no packet is shorter than {MINIMUM_LENGTH} bytes")

    def encode(self, encoding: int, payload: bytes) -> bytes:
        """Return the packet that carries this payload (WIRE.md, "A packet").

        Raises:
            EncodeError: the payload is shorter than a packet's may be, or its length does not fit into the header.
        """
        length = len(payload) + _AFTER_LENGTH
        if length < MINIMUM_LENGTH:
            raise EncodeError(
                f"a payload of {len(payload)} bytes is too short for a packet, which carries at least "
                f"{MINIMUM_LENGTH - _AFTER_LENGTH}; send at least one field"
            )
        try:
            header = length.to_bytes(self.header_size, self.byteorder)
        except OverflowError:
            raise EncodeError(
                f"a payload of {len(payload)} bytes does not fit into a packet with a {self.header_size}-byte "
                f"Content-Length; send less, or give both sides a larger header_size"
            ) from None
        return header + _AFTER_HEADER[encoding] + payload


class FrameDecoder:
    """Cuts a stream of bytes into frames, however it arrives.

    The same bytes give the same frames and the same error, whole or in pieces. An error is final: it is raised again
    by every later call. Memory is bounded by one packet plus what was fed last; the cost is linear.

    Args:
        wire: the format that both sides agreed on.
        encodings: the wire ids that some codec claims; any other is an `InvalidHeader`.
    """

    __slots__ = ("_buffer", "_byteorder", "_encodings", "_error", "_header", "_max_packet", "_start")

    def __init__(self, wire: WireFormat, encodings: Container[int]) -> None:
        self._header = wire.header_size
        self._byteorder = wire.byteorder
        self._max_packet = wire.max_packet
        self._encodings = encodings
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._error: ProtocolError | None = None

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not yet given out: not 0 at the end of a stream means a packet was cut."""
        return len(self._buffer) - self._start

    @property
    def missing(self) -> int:
        """How many bytes the packet at hand still lacks, as far as its header tells; at least 1."""
        have = len(self._buffer) - self._start
        if have < self._header:
            return self._header - have
        return max(1, self._header + self._length() - have)

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if self._error is not None:
            return
        if not self._buffer:
            self._buffer = data
        elif type(self._buffer) is bytearray:
            del self._buffer[: self._start]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._buffer += data
        self._start = 0

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None when more bytes are needed.

        Raises:
            PacketTooLarge: judged on the length alone, before anything else.
            MalformedPacket: the length is below the minimum.
            InvalidHeader: wrong version or unknown encoding, judged as soon as these bytes are here.
        """
        buffer = self._buffer
        body = self._start + self._header
        have = len(buffer) - body
        if have < 0:
            if self._error is not None:
                raise self._error
            return None
        length = int.from_bytes(buffer[self._start : body], self._byteorder)
        if not MINIMUM_LENGTH <= length <= self._max_packet:
            raise self._fail(self._length_error(length))
        if have < 1:
            return None
        if buffer[body] != PROTOCOL_VERSION:
            raise self._fail(InvalidHeader(f"protocol version {buffer[body]}; this is version {PROTOCOL_VERSION}"))
        if have < _AFTER_LENGTH:
            return None
        encoding = buffer[body + 1]
        if encoding not in self._encodings:
            raise self._fail(InvalidHeader(f"no codec claims encoding {encoding}"))
        if have < length:
            return None
        end = body + length
        if type(buffer) is bytes:
            payload = buffer[body + _AFTER_LENGTH : end]
        else:
            payload = bytes(memoryview(buffer)[body + _AFTER_LENGTH : end])
        if end == len(buffer):
            self._buffer = b""
            end = 0
        self._start = end
        return Frame(encoding, payload)

    def _length(self) -> int:
        return int.from_bytes(self._buffer[self._start : self._start + self._header], self._byteorder)

    def _length_error(self, length: int) -> ProtocolError:
        if length < MINIMUM_LENGTH:
            return MalformedPacket(f"Content-Length is {length}; a packet has at least {MINIMUM_LENGTH}")
        return PacketTooLarge(f"Content-Length is {length}; at most {self._max_packet} are accepted")

    def _fail(self, error: ProtocolError) -> ProtocolError:
        self._error = error
        self._buffer = b""
        self._start = 0
        return error
