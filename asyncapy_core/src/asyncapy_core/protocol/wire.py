"""`WireFormat`: the settings of the wire format, and payloads to packets of both versions (docs/protocol.md).

Payloads are not encoded here, and packets are not decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from asyncapy_core.defaults import BYTEORDER, HEADER_SIZE, MAX_PACKET, MIN_PACKET
from asyncapy_core.errors import EncodeError
from asyncapy_core.protocol.kinds import MAX_NUMBER, WITH_PAYLOAD, WITHOUT_PAYLOAD, Kind

ByteOrder = Literal["big", "little"]

PROTOCOL_VERSION: Final = 22
NUMBERED_VERSION: Final = 23

AFTER_LENGTH: Final = 2
"""Bytes of header that Content-Length counts in version 22: version and encoding."""

NUMBERED_AFTER_LENGTH: Final = 7
"""Bytes of header that Content-Length counts in version 23: version, encoding, kind and number."""

_MIN_PAYLOAD: Final = MIN_PACKET - AFTER_LENGTH
"""Bytes of the smallest payload of version 22."""

_LENGTH_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The format character of `struct` for a Content-Length, by its size in bytes."""

_VERSION_AND_ENCODING: Final = tuple(bytes((PROTOCOL_VERSION, encoding)) for encoding in range(256))
"""The version and encoding bytes of a header of version 22, by encoding."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The settings that both sides of a connection must share, and the largest packet that this side accepts.

    Attributes:
        header_size: bytes of the Content-Length header, 1..8.
        byteorder: the byte order of Content-Length, and of the number in version 23.
        max_packet: the largest Content-Length accepted, in bytes; 5 more in version 23, whose header is longer.
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

    @property
    def max_numbered(self) -> int:
        """The largest Content-Length accepted in version 23: that of the largest payload of version 22."""
        return self.max_packet - AFTER_LENGTH + NUMBERED_AFTER_LENGTH

    def encode(self, encoding: int, payload: bytes) -> bytes:
        """Return the packet of version 22 with this payload (docs/protocol.md, "A packet").

        Args:
            encoding: the wire id of the codec.
            payload: the encoded fields.

        Raises:
            EncodeError: the payload is too short for a packet, or its length does not fit into the header.
        """
        return self.header(encoding, len(payload)) + payload

    def header(self, encoding: int, size: int) -> bytes:
        """Return the header of version 22 for a payload of ``size`` bytes.

        Raises:
            EncodeError: see `encode`.
        """
        if size < _MIN_PAYLOAD:
            raise EncodeError(
                f"a payload of {size} bytes is too short for a packet, which carries at least {_MIN_PAYLOAD}; "
                "send at least one field"
            )
        try:
            length = (size + AFTER_LENGTH).to_bytes(self.header_size, self.byteorder)
        except OverflowError:
            raise self._too_long(size) from None
        return length + _VERSION_AND_ENCODING[encoding]

    def encode_numbered(self, kind: Kind, number: int, encoding: int = 0, payload: bytes = b"") -> bytes:
        """Return a packet of version 23 (docs/protocol.md, "Version 23").

        Args:
            kind: the kind.
            number: the number, 0..4294967295.
            encoding: the wire id of the codec; without a payload, that of the request that the packet belongs to, or 0.
            payload: the encoded fields; empty for a packet without a payload.

        Raises:
            EncodeError: the number is out of range, the kind needs a payload or has none, or the length of the payload
                does not fit into the header.
        """
        return self.numbered_header(kind, number, encoding, len(payload)) + payload

    def numbered_header(self, kind: Kind, number: int, encoding: int, size: int) -> bytes:
        """Return the header of version 23 for a payload of ``size`` bytes, 0 for a packet without a payload.

        Raises:
            EncodeError: see `encode_numbered`.
        """
        if size == 0 and kind in WITH_PAYLOAD:
            raise EncodeError(f"the payload of {kind.name} is empty; it must be a map, such as {{}} in JSON")
        if size > 0 and kind in WITHOUT_PAYLOAD:
            raise EncodeError(f"{kind.name} has no payload; got one of {size} bytes")
        if not 0 <= number <= MAX_NUMBER:
            raise EncodeError(f"number is {number}; it must be 0 to {MAX_NUMBER}; then use another connection")
        try:
            length = (size + NUMBERED_AFTER_LENGTH).to_bytes(self.header_size, self.byteorder)
        except OverflowError:
            raise self._too_long(size) from None
        return length + bytes((NUMBERED_VERSION, encoding, kind)) + number.to_bytes(4, self.byteorder)

    def _too_long(self, size: int) -> EncodeError:
        return EncodeError(
            f"a payload of {size} bytes does not fit into a packet with a {self.header_size}-byte "
            f"Content-Length; send less, or give both sides a larger header_size"
        )


def header_struct(wire: WireFormat, fields: str) -> struct.Struct | None:
    """Return the struct of a header, or None if `struct` has no integer of the size of Content-Length.

    Args:
        wire: the wire format.
        fields: the format characters of `struct` for the fields after Content-Length.
    """
    code = _LENGTH_CODES.get(wire.header_size)
    return None if code is None else struct.Struct(f"{'>' if wire.byteorder == 'big' else '<'}{code}{fields}")


def numbered_header_writer(wire: WireFormat) -> Callable[[int, int, int, int, int], bytes]:
    """Return a function that writes Content-Length, version, encoding, kind and number; `numbered_header` is slower.

    The function raises `struct.error` or OverflowError if one of them is out of range.
    """
    if (header := header_struct(wire, "BBBI")) is not None:
        return header.pack
    size, order = wire.header_size, wire.byteorder
    rest = struct.Struct(f"{'>' if order == 'big' else '<'}BBBI").pack

    def write(length: int, version: int, encoding: int, kind: int, number: int) -> bytes:
        return length.to_bytes(size, order) + rest(version, encoding, kind, number)

    return write
