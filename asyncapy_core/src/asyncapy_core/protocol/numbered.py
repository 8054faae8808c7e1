"""`NumberedDecoder`: bytes to the frames of version 23, without I/O (docs/protocol.md, "Version 23").

Payloads are not decoded here; nor is it known which requests are in flight.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Container
from typing import Final, NoReturn, TypeAlias

from asyncapy_core.errors import InvalidHeader, MalformedPacket, PacketTooLarge, ProtocolError
from asyncapy_core.protocol.decoder import StreamDecoder
from asyncapy_core.protocol.kinds import FIRST_SKIPPED, MAX_NUMBER, RECEIVED, WITHOUT_PAYLOAD, Kind, Role
from asyncapy_core.protocol.wire import NUMBERED_AFTER_LENGTH, NUMBERED_VERSION, WireFormat, header_struct

NumberedFrame: TypeAlias = tuple[Kind, int, int, bytes]
"""One packet: its kind, its number, the wire id of its codec, and its encoded payload, empty if it has none."""

_MIN_LENGTH: Final = NUMBERED_AFTER_LENGTH
"""The Content-Length of a packet without a payload."""

_REQUEST: Final = Kind.REQUEST

_MOST: Final = tuple(0 if kind is Kind.EVENT else MAX_NUMBER for kind in Kind)
"""The highest number of a packet of each kind."""


class NumberedDecoder(StreamDecoder):
    """Splits a stream of bytes into frames of version 23.

    As with `FrameDecoder`, the result does not depend on the pieces in which the bytes arrive, an error is final, the
    memory is bounded by one packet and the last bytes fed, and the cost is linear.

    Args:
        wire: the wire format.
        encodings: the wire ids of the installed codecs. They are checked in packets with a payload only.
        role: the side that receives the bytes: a server or a client.
    """

    __slots__ = ("_first", "_kinds", "_lenient", "_max_length", "_read_header", "_role", "_undecoded")

    buffered: int

    def __init__(self, wire: WireFormat, encodings: Container[int], role: Role) -> None:
        super().__init__(wire, encodings)
        self._role = role
        self._kinds = _KINDS[role]
        self._max_length = wire.max_numbered
        self._read_header: Callable[[bytes | bytearray, int], tuple[int, ...]] = _header_reader(wire)
        self._first = 1 if role is Role.SERVER else MAX_NUMBER + 1  # the least number of the next REQUEST
        self._lenient = False
        self._undecoded = b""  # the packet that raised an error, if its length is known, and the bytes behind it

    def frames(self, limit: int) -> list[NumberedFrame]:
        """Return the next complete frames, at most ``limit``; none if more bytes are needed.

        Packets of the kinds 128 to 255 are skipped. A REQUEST without a payload is a frame: that request alone is
        malformed. Frames before an invalid packet are returned first; the next call raises the error.

        Of several faults of a header, the first one counts. It is raised as soon as its byte has arrived, or, if the
        packet may be a REQUEST, as soon as the number has: ``number`` of the error is the number of that REQUEST.

        Raises:
            MalformedPacket: Content-Length is below the minimum, or a packet has a payload that must not have one.
            PacketTooLarge: Content-Length exceeds ``max_packet`` + 5.
            InvalidHeader: the version, the encoding, the kind or the number is wrong.
        """
        if self._error is not None:
            raise self._error()
        frames: list[NumberedFrame] = []
        buffer, read_header = self._buffer, self._read_header
        header, encodings, largest = self._header_size, self._encodings, self._max_length
        first = self._first
        payload_at = header + NUMBERED_AFTER_LENGTH
        size = len(buffer)
        start = size - self.buffered
        last = size - payload_at
        whole = buffer if isinstance(buffer, bytes) else None
        while start <= last and limit:
            length, version, encoding, code, number = read_header(buffer, start)
            if version != NUMBERED_VERSION or not _MIN_LENGTH <= length <= largest:
                break
            end = start + header + length
            if end > size:
                break
            known = length == _MIN_LENGTH or encoding in encodings
            if known and not code and number >= first:
                first = number + 1
                kind = _REQUEST
            elif known and code and (other := self._kinds[length != _MIN_LENGTH][code]) and number <= _MOST[code]:
                kind = other
            elif code >= FIRST_SKIPPED or self._lenient:
                start = end
                continue
            else:
                break
            body = start + payload_at
            payload = whole[body:end] if whole is not None else bytes(memoryview(buffer)[body:end])
            frames.append((kind, number, encoding, payload))
            start = end
            limit -= 1
        self._first = first
        self.buffered = size - start
        if start == size:
            self._buffer = b""
        elif not frames:
            self._judge()
        return frames

    def _judge(self) -> None:
        """Raise the error of the current packet, if its bytes so far have one."""
        body = len(self._buffer) - self.buffered + self._header_size
        if len(self._buffer) < body:
            return
        length = self._length()
        after = bytes(self._buffer[body : body + NUMBERED_AFTER_LENGTH])
        if length < _MIN_LENGTH:
            self._fail(MalformedPacket, f"Content-Length is {length}; in version 23 it is at least {_MIN_LENGTH}")
        if length > self._max_length:
            too_large = f"Content-Length is {length}; at most {self._max_length} are accepted in version 23"
            self._fail_numbered(PacketTooLarge, too_large, after)
            return
        if after and after[0] != NUMBERED_VERSION:
            self._fail(InvalidHeader, f"protocol version {after[0]}; this session has version {NUMBERED_VERSION}")
        if len(after) > 2 and after[2] < FIRST_SKIPPED and not self._lenient:
            self._judge_kind(length - _MIN_LENGTH, after)

    def _judge_kind(self, size: int, after: bytes) -> None:
        """Raise the error of the encoding, the kind, the payload or the number, if they have one.

        Args:
            size: the number of bytes of the payload.
            after: the header after Content-Length, up to the kind or further.
        """
        encoding, code = after[1:3]
        kind = self._kinds[0][code]
        if size and encoding not in self._encodings:
            self._fail_numbered(InvalidHeader, f"no codec claims encoding {encoding}", after, is_whole=True)
        elif kind is None:
            self._fail_whole(InvalidHeader, f"kind {code}, which a {self._role.name.lower()} does not receive")
        elif size and kind in WITHOUT_PAYLOAD:
            self._fail_whole(MalformedPacket, f"{kind.name} has no payload; this one has {size} bytes")
        elif len(after) == NUMBERED_AFTER_LENGTH:
            number, least = self._number(after), self._first if kind is _REQUEST else 0
            if not least <= number <= _MOST[kind]:
                wanted = "0" if kind is Kind.EVENT else f"{least} or more"
                self._fail_whole(InvalidHeader, f"the number of {kind.name} is {number}; it must be {wanted}")

    def _fail_numbered(self, error: type[ProtocolError], message: str, after: bytes, *, is_whole: bool = False) -> None:
        """Raise an error with the number of the current packet, unless more bytes are needed to know the number.

        The number is 0 if the packet is no REQUEST, or if its number is not valid.
        """
        number = 0
        if self._role is Role.SERVER and _may_be_request(after):
            if len(after) < NUMBERED_AFTER_LENGTH:
                return
            number = self._number(after)
        fail = self._fail_whole if is_whole else self._fail
        if number < self._first:
            fail(error, message)
        fail(error, message, number, after[1])

    def _fail_whole(self, error: type[ProtocolError], message: str, number: int = 0, wire_id: int = 0) -> NoReturn:
        """Do as `_fail`, for a packet whose length is known: `resume` may follow."""
        self._undecoded = bytes(memoryview(self._buffer)[-self.buffered :])
        self._fail(error, message, number, wire_id)

    def resume(self) -> bool:
        """After an error, decode further packets, and skip those with a wrong encoding, kind, payload or number.

        Returns:
            Whether that is possible: the length and the version of the packet that raised the error are right.
        """
        undecoded, self._undecoded = self._undecoded, b""
        if undecoded:
            self._error, self._lenient = None, True
            self.feed(undecoded)
        return bool(undecoded)

    def _number(self, after: bytes) -> int:
        return int.from_bytes(after[3:], self._byteorder)


def _may_be_request(after: bytes) -> bool:
    """Return whether a packet of version 23 with this header after Content-Length, whole or not, may be a REQUEST."""
    return after[:1] in (b"", bytes((NUMBERED_VERSION,))) and after[2:3] in (b"", bytes((Kind.REQUEST,)))


_KINDS: Final = {
    role: tuple(
        tuple(Kind(code) if code in kinds else None for code in range(256))
        for kinds in (received, received - WITHOUT_PAYLOAD)
    )
    for role, received in RECEIVED.items()
}
"""Tables by the Kind byte: of the kinds that each side may receive, and of those among them that may have a payload."""


@functools.cache
def _header_reader(wire: WireFormat) -> Callable[[bytes | bytearray, int], tuple[int, ...]]:
    """Return a function that reads Content-Length, version, encoding, kind and number from a buffer at an offset."""
    if (header := header_struct(wire, "BBBI")) is not None:
        return header.unpack_from
    size, order = wire.header_size, wire.byteorder
    rest = struct.Struct(f"{'>' if order == 'big' else '<'}BBBI").unpack_from

    def read(buffer: bytes | bytearray, start: int) -> tuple[int, ...]:
        body = start + size
        return int.from_bytes(buffer[start:body], order), *rest(buffer, body)

    return read
