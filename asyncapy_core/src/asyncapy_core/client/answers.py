"""`AnswerDecoder`: received bytes to the packets of version 23, without I/O (docs/protocol.md, "Version 23").

Until the version of a session is fixed, a server sends packets of version 22. So the first packet decides.
"""

from __future__ import annotations

from typing import Any, Final

from asyncapy_core.client.replies import ReplyDecoder, invalid_reply, wire_hint
from asyncapy_core.defaults import MIN_PACKET
from asyncapy_core.errors import BrokenCodec, InvalidReply, MalformedPacket, ProtocolError
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.kinds import Role
from asyncapy_core.protocol.numbered import NumberedDecoder, NumberedFrame
from asyncapy_core.protocol.wire import PROTOCOL_VERSION

TURN: Final = 100
"""The most packets that are decoded at a time."""


class AnswerDecoder:
    """Decodes the packets on one connection.

    Args:
        encodings: the encodings of the client.

    Attributes:
        numbered: whether a packet of version 23 has arrived.
    """

    def __init__(self, encodings: EncodingRegistry) -> None:
        self._encodings = encodings
        self._decoder = NumberedDecoder(encodings.wire, encodings.by_id, Role.CLIENT)
        self._ordered: ReplyDecoder | None = None
        self._head = b""
        self._version_known = False
        self._received = False
        self.numbered: bool = False

    @property
    def state(self) -> str:
        """The state of the current packet in words, with a possible cause, for error messages."""
        if not self._received:
            return "without an answer; is tls the same on both sides?"
        if self._ordered is not None:
            return self._ordered.state
        buffered = self._decoder.buffered + len(self._head)
        if not buffered:
            return "without an answer"
        return f"in the middle of a packet: {buffered} bytes of it have arrived; {wire_hint(self._encodings.wire)}"

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._received = True
        if not self._version_known:
            data = self._head + data
            if self._lacks_version(data):
                self._head = data
                return
            self._head, self._version_known = b"", True
            at = self._encodings.wire.header_size
            if data[at : at + 1] == bytes((PROTOCOL_VERSION,)):
                self._ordered = ReplyDecoder(self._encodings)
        if self._ordered is not None:
            self._ordered.feed(data)
        else:
            self._decoder.feed(data)

    def _lacks_version(self, data: bytes) -> bool:
        """Return whether the version of the first packet has not arrived, and its length is that of a packet."""
        wire = self._encodings.wire
        if len(data) != wire.header_size:
            return len(data) < wire.header_size
        return MIN_PACKET <= int.from_bytes(data, wire.byteorder) <= wire.max_numbered

    def ordered_reply(self) -> dict[str, Any] | None:
        """Return the fields of the first packet if it is whole and has version 22, or None.

        Raises:
            InvalidReply: it is not valid.
        """
        if self._ordered is None or (frame := self._ordered.next_frame()) is None:
            return None
        return self._ordered.fields(frame)

    def frames(self) -> list[NumberedFrame]:
        """Return the next whole packets, still encoded; none if more bytes are needed.

        Raises:
            InvalidReply: the bytes are not a packet, or announce a larger one than the client accepts.
        """
        try:
            frames = self._decoder.frames(TURN)
        except ProtocolError as error:
            raise invalid_reply(error, self._encodings.wire) from error
        self.numbered = self.numbered or bool(frames)
        return frames

    def fields(self, wire_id: int, payload: bytes) -> dict[str, Any]:
        """Return the fields of a packet.

        Raises:
            InvalidReply: its payload is not valid in its encoding.
        """
        encoding = self._encodings.by_id.get(wire_id)
        if encoding is None:  # the encoding of an empty payload is not checked
            raise InvalidReply("the server sent a packet without a payload; its kind needs one")
        try:
            return encoding.unpack_numbered(payload).fields
        except BrokenCodec as error:
            raise InvalidReply(str(error)) from error
        except MalformedPacket as error:
            raise InvalidReply(f"the server sent a payload that is not {encoding.name}: {error}") from error
