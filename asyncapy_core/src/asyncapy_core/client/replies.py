"""What a server says to a client, without I/O: bytes to replies (docs/protocol.md, "A packet").

Knows no socket and no clock.
"""

from __future__ import annotations

from typing import Any

from asyncapy_core.errors import BrokenCodec, InvalidReply, MalformedPacket, ProtocolError
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.wire import Frame, FrameDecoder


class ReplyDecoder:
    """Cuts what comes over one connection into replies.

    Args:
        encodings: what may be spoken.
    """

    def __init__(self, encodings: EncodingRegistry) -> None:
        self._encodings = encodings
        self._decoder = FrameDecoder(encodings.wire, encodings.by_id)
        self._heard = False

    @property
    def missing(self) -> int:
        """How many bytes the reply at hand still lacks, as far as its header tells."""
        return self._decoder.missing

    @property
    def state(self) -> str:
        """How far the reply at hand has come, in words, with what may be wrong."""
        if not self._heard:
            return "without a reply; is tls the same on both sides?"
        if not self._decoder.buffered:
            return "without a reply"
        return (
            f"in the middle of a reply: {self._decoder.buffered} bytes have arrived, {self._decoder.missing} are "
            f"missing; {self._hint()}"
        )

    def _hint(self) -> str:
        wire = self._encodings.wire
        return f"do both sides use header_size={wire.header_size} and byteorder={wire.byteorder!r}?"

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        self._heard = True
        self._decoder.feed(data)

    def next_frame(self) -> Frame | None:
        """Return the next whole reply, still encoded, or None when more bytes are needed.

        Raises:
            InvalidReply: what arrived is no packet.
        """
        try:
            return next(iter(self._decoder.frames(1)), None)
        except ProtocolError as error:
            raise InvalidReply(
                f"the server sent what is no AsyncAProto packet: {error}; {self._hint()} Is tls the same on both?"
            ) from error

    def raw(self, frame: Frame) -> bytes:
        """Return a reply as it was on the wire, headers included."""
        return self._encodings.wire.encode(*frame)

    def fields(self, frame: Frame) -> dict[str, Any]:
        """Return the fields of a reply.

        Raises:
            InvalidReply: its payload is not what its header says.
        """
        wire_id, payload = frame
        encoding = self._encodings.by_id[wire_id]
        try:
            return encoding.unpack(payload).fields
        except BrokenCodec as error:
            raise InvalidReply(str(error)) from error
        except MalformedPacket as error:
            raise InvalidReply(f"the server sent a payload that is not {encoding.name}: {error}") from error
