"""`ReplyDecoder`: received bytes to replies, without I/O (docs/protocol.md, "A packet")."""

from __future__ import annotations

from typing import Any, Final

from asyncapy_core.client.failures import is_time_out
from asyncapy_core.errors import BrokenCodec, ErrorCode, InvalidReply, MalformedPacket, PacketTooLarge, ProtocolError
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.frames import Frame, FrameDecoder
from asyncapy_core.protocol.wire import WireFormat

_TIMED_OUT: Final = ErrorCode.TIMED_OUT.encode()


class ReplyDecoder:
    """Decodes the replies on one connection.

    Args:
        encodings: the encodings of the client.
    """

    def __init__(self, encodings: EncodingRegistry) -> None:
        self._encodings = encodings
        self._decoder = FrameDecoder(encodings.wire, encodings.by_id)
        self._received = False

    @property
    def missing(self) -> int:
        """The number of bytes that the current reply lacks, as far as its header is known."""
        return self._decoder.missing

    @property
    def buffered(self) -> int:
        """The number of received bytes that no returned reply contains."""
        return self._decoder.buffered

    @property
    def state(self) -> str:
        """The state of the current reply in words, with a possible cause, for error messages."""
        if not self._received:
            return "without a reply; is tls the same on both sides?"
        if not self._decoder.buffered:
            return "without a reply"
        return (
            f"in the middle of a reply: {self._decoder.buffered} bytes have arrived, {self._decoder.missing} are "
            f"missing; {wire_hint(self._encodings.wire)}"
        )

    def feed(self, data: bytes) -> None:
        """Append received bytes."""
        self._received = True
        self._decoder.feed(data)

    def next_frame(self) -> Frame | None:
        """Return the next complete reply, still encoded, or None if more bytes are needed.

        Raises:
            InvalidReply: the bytes are not a packet, or announce a larger one than the client accepts.
        """
        try:
            return next(iter(self._decoder.frames(1)), None)
        except ProtocolError as error:
            raise invalid_reply(error, self._encodings.wire) from error

    def raw(self, frame: Frame) -> bytes:
        """Return the bytes of a reply on the wire, with its header."""
        return self._encodings.wire.encode(*frame)

    def fields(self, frame: Frame) -> dict[str, Any]:
        """Return the fields of a reply.

        Raises:
            InvalidReply: its payload is not valid in its encoding.
        """
        wire_id, payload = frame
        encoding = self._encodings.by_id[wire_id]
        try:
            return encoding.unpack(payload).fields
        except BrokenCodec as error:
            raise InvalidReply(str(error)) from error
        except MalformedPacket as error:
            raise InvalidReply(f"the server sent a payload that is not {encoding.name}: {error}") from error

    def is_time_out(self, frame: Frame) -> bool:
        """Return True for ERR_TIMED_OUT in the form in which the server itself sends it.

        Payloads without this text are not decoded, so False is returned for codecs that encode text in another way.
        """
        if _TIMED_OUT not in frame[1]:
            return False
        try:
            return is_time_out(self.fields(frame))
        except InvalidReply:
            return False


def invalid_reply(error: ProtocolError, wire: WireFormat) -> InvalidReply:
    """Return the exception for bytes of a server that are not a packet, or announce one that is too large."""
    if isinstance(error, PacketTooLarge):
        return InvalidReply(
            f"the server announced a reply that is too large: {error} (max_packet of the client); give the client "
            "a larger max_packet if the server sends such replies. If not, this is no AsyncAProto packet: "
            f"{wire_hint(wire)} Is tls the same on both?"
        )
    return InvalidReply(
        f"the server sent bytes that are no AsyncAProto packet: {error}; {wire_hint(wire)} Is tls the same on both?"
    )


def wire_hint(wire: WireFormat) -> str:
    """Return a question about the settings that both sides must share."""
    return f"do both sides use header_size={wire.header_size} and byteorder={wire.byteorder!r}?"
