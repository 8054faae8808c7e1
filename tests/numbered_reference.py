"""A decoder of version 23 that is written to docs/protocol.md alone and takes whole streams, to compare others with."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

SERVER_KINDS = {0: "map", 6: "none", 7: "none", 8: "any"}
CLIENT_KINDS = {1: "map", 2: "map", 3: "none", 4: "map", 5: "map", 7: "none", 8: "any", 9: "none"}

HEADER_INVALID = "ERR_HEADER_INVALID"
REQUEST_MALFORMED = "ERR_REQUEST_MALFORMED"
PACKET_TOO_LARGE = "ERR_PACKET_TOO_LARGE"


@dataclass(frozen=True)
class Settings:
    """The settings of a receiver; `server` is its side."""

    header_size: int = 4
    byteorder: Literal["big", "little"] = "big"
    max_packet: int = 300
    encodings: Container[int] = (0, 1)
    server: bool = True


@dataclass(frozen=True)
class Outcome:
    """The result of a stream.

    Attributes:
        frames: kind, number, encoding and payload of each packet.
        error: the code and the number of the error, or None.
        rest: the number of bytes of an incomplete packet at the end; 0 after an error.
    """

    frames: list[tuple[int, int, int, bytes]]
    error: tuple[str, int] | None
    rest: int


class _Incomplete(Exception):
    pass


class _Wrong(Exception):
    pass


class _Packet:
    """One packet, read field by field from the beginning of some bytes."""

    def __init__(self, data: bytes, settings: Settings, last: int) -> None:
        self.data, self.settings, self.last = data, settings, last
        self.at = settings.header_size

    def field(self, offset: int, size: int) -> int:
        """Return an integer of the header."""
        if len(self.data) < offset + size:
            raise _Incomplete
        return int.from_bytes(self.data[offset : offset + size], self.settings.byteorder)

    def read(self) -> tuple[int, int, int, bytes] | None:
        """Return the frame, or None if the packet is skipped."""
        settings, at = self.settings, self.at
        length = self.field(0, at)
        self.end = at + length
        if length < 7:
            raise _Wrong(REQUEST_MALFORMED, 0)
        if length > settings.max_packet + 5:
            raise _Wrong(PACKET_TOO_LARGE, self.number_of_request())
        if self.field(at, 1) != 23:
            raise _Wrong(HEADER_INVALID, 0)
        encoding, kind = self.field(at + 1, 1), self.field(at + 2, 1)
        if kind >= 128:
            self.payload()
            return None
        if length > 7 and encoding not in settings.encodings:
            raise _Wrong(HEADER_INVALID, self.number_of_request())
        payload = (SERVER_KINDS if settings.server else CLIENT_KINDS).get(kind)
        if payload is None:
            raise _Wrong(HEADER_INVALID, 0)
        if payload == "none" and length > 7:
            raise _Wrong(REQUEST_MALFORMED, 0)
        number = self.field(at + 3, 4)
        if (kind == 0 and number <= self.last) or (kind == 5 and number != 0):
            raise _Wrong(HEADER_INVALID, 0)
        return kind, number, encoding, self.payload()

    def payload(self) -> bytes:
        if len(self.data) < self.end:
            raise _Incomplete
        return self.data[self.at + 7 : self.end]

    def number_of_request(self) -> int:
        """Return the number if this is a REQUEST of a valid number, otherwise 0."""
        if not self.settings.server or self.field(self.at, 1) != 23 or self.field(self.at + 2, 1) != 0:
            return 0
        number = self.field(self.at + 3, 4)
        return number if number > self.last else 0


def decode(stream: bytes, settings: Settings) -> Outcome:
    """Decode a stream whose version is 23."""
    frames: list[tuple[int, int, int, bytes]] = []
    last = 0
    while stream:
        packet = _Packet(stream, settings, last)
        try:
            frame = packet.read()
        except _Incomplete:
            break
        except _Wrong as wrong:
            return Outcome(frames, wrong.args, 0)
        if frame is not None:
            frames.append(frame)
            if frame[0] == 0:
                last = frame[1]
        stream = stream[packet.end :]
    return Outcome(frames, None, len(stream))


def first_version(stream: bytes, settings: Settings) -> int | str | None:
    """Return the version that a server finds in the first header, the code of an error, or None for lack of bytes."""
    size, most = settings.header_size, settings.max_packet
    if len(stream) < size:
        return None
    length = int.from_bytes(stream[:size], settings.byteorder)
    if length < 5:
        return REQUEST_MALFORMED
    if length > most + 5:
        return PACKET_TOO_LARGE
    if len(stream) == size:
        return None
    version = stream[size]
    if version == 23:
        return 23 if length >= 7 else REQUEST_MALFORMED
    if length > most:
        return PACKET_TOO_LARGE
    return 22 if version == 22 else HEADER_INVALID
