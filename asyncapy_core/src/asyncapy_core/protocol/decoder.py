"""`StreamDecoder`: the received bytes of a stream, from which the decoders of both versions cut frames.

It knows the length of a packet, and not the rest of its header.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from typing import NoReturn

from asyncapy_core.errors import ProtocolError
from asyncapy_core.protocol.wire import WireFormat


class StreamDecoder:
    """Holds bytes until they are decoded, and the error that ends the stream.

    Args:
        wire: the wire format.
        encodings: the wire ids of the installed codecs.

    Attributes:
        buffered: the number of bytes fed and not returned yet; not 0 at the end of the stream if a packet was cut.
    """

    __slots__ = ("_buffer", "_byteorder", "_encodings", "_error", "_header_size", "buffered")

    def __init__(self, wire: WireFormat, encodings: Container[int]) -> None:
        self._header_size = wire.header_size
        self._byteorder = wire.byteorder
        self._encodings = encodings
        self._buffer: bytes | bytearray = b""  # the bytes to decode are its last ones
        self.buffered: int = 0
        self._error: Callable[[], ProtocolError] | None = None

    @property
    def missing(self) -> int:
        """The number of bytes that the current packet lacks, as far as its header is known; at least 1."""
        have = self.buffered
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
            del self._buffer[: -self.buffered]
            self._buffer += data
        else:
            self._buffer = bytearray(memoryview(self._buffer)[-self.buffered :])
            self._buffer += data
        self.buffered += len(data)

    def clear(self) -> None:
        """Drop the buffered bytes; the stream cannot be decoded further."""
        self._buffer = b""
        self.buffered = 0

    def _length(self) -> int:
        start = len(self._buffer) - self.buffered
        return int.from_bytes(self._buffer[start : start + self._header_size], self._byteorder)

    def _fail(self, kind: type[ProtocolError], message: str, number: int = 0, wire_id: int = 0) -> NoReturn:
        """Raise an error now and in later calls: a new exception each time, as a kept one would keep its traceback."""
        self._error = functools.partial(kind, message, number=number, wire_id=wire_id)
        self.clear()
        raise self._error()
