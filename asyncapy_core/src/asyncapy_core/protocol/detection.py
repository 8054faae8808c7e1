"""`DetectingDecoder`: the version of a session from its first header (docs/protocol.md, "Versions")."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NoReturn

from asyncapy_core.defaults import MIN_PACKET
from asyncapy_core.errors import MalformedPacket, PacketTooLarge
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.kinds import Role
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.wire import NUMBERED_AFTER_LENGTH, NUMBERED_VERSION, PROTOCOL_VERSION, WireFormat

_NO_HEADER: Final = (0, 0, 0)


class DetectingDecoder(FrameDecoder):
    """The decoder with which a server begins: decodes version 22, and notices a session of version 23.

    The first readable header decides: a length that its version allows, and byte 22 or 23. In version 22 this decoder
    goes on as a `FrameDecoder`, and a later packet of version 23 is an error. In version 23, `frames` returns nothing,
    and `numbered` returns the decoder that goes on. Errors before that are those of version 22.

    Args:
        wire: the wire format.
        encodings: the wire ids of the installed codecs.

    Attributes:
        version: the version of the session, 22 or 23; None as long as it is not known.
    """

    __slots__ = ("_read_known_header", "_wire", "version")

    def __init__(self, wire: WireFormat, encodings: Container[int]) -> None:
        super().__init__(wire, encodings)
        self._wire = wire
        self._read_known_header = self._read_header
        self._read_header = _read_nothing  # so that `frames` calls `_judge`, and later packets pay nothing for this
        self.version: int | None = None

    @property
    def lacks_version(self) -> bool:
        """Whether the length is too large for version 22, and would be allowed in version 23: the next byte decides."""
        if self.version is not None or len(self._buffer) != self._header_size:
            return False
        return self._max_packet < self._length() <= self._wire.max_numbered

    def assume_ordered(self) -> NoReturn:
        """Raise the error of the first header in version 22, as the byte that decides does not come.

        Raises:
            PacketTooLarge: its Content-Length exceeds ``max_packet``.
        """
        self._fail(PacketTooLarge, f"Content-Length is {self._length()}; at most {self._max_packet} are accepted")

    def numbered(self) -> NumberedDecoder:
        """Return the decoder of a session of version 23, and move the buffered bytes to it.

        Raises:
            ValueError: the version of the session is not 23.
        """
        if self.version != NUMBERED_VERSION:
            raise ValueError(f"the version of this session is {self.version}, not {NUMBERED_VERSION}")
        decoder = NumberedDecoder(self._wire, self._encodings, Role.SERVER)
        decoder.feed(bytes(self._buffer))
        self.clear()
        return decoder

    def _judge(self) -> bool:
        """As in `FrameDecoder`; but find the version first.

        Returns:
            Whether the version has just become 22.
        """
        if self.version is None:
            self._detect()
            if self.version == PROTOCOL_VERSION:
                self._read_header = self._read_known_header
                return True
        return self.version == PROTOCOL_VERSION and super()._judge()

    def _detect(self) -> None:
        """Set the version, or raise the error of the first header, if its bytes so far suffice for that."""
        have = len(self._buffer) - self._header_size
        if have < 0:
            return
        length = self._length()
        if MIN_PACKET <= length <= self._wire.max_numbered:
            if have == 0:
                return  # the bounds of the length depend on the version
            version = self._buffer[self._header_size]
            if version == NUMBERED_VERSION:
                if length < NUMBERED_AFTER_LENGTH:
                    least = f"in version {NUMBERED_VERSION} it is at least {NUMBERED_AFTER_LENGTH}"
                    self._fail(MalformedPacket, f"Content-Length is {length}; {least}")
                self.version = version
                return
            if version == PROTOCOL_VERSION and length <= self._max_packet:
                self.version = version
                return
        super()._judge()


def _read_nothing(buffer: bytes | bytearray, start: int) -> tuple[int, ...]:
    """Return a header that is no packet of any version."""
    return _NO_HEADER
