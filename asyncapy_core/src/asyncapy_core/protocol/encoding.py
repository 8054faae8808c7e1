"""From fields to whole packets in one encoding, and from payloads to packets (docs/protocol.md, "A packet").

Brings codecs and a wire format together, and checks what a codec decodes to. Servers and clients speak through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.errors import BrokenCodec, DecodeError, MalformedPacket, PluginError, UnknownCodec
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import describe, safe_str
from asyncapy_core.protocol.codec import INSTALL_HINT, Codec
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.protocol.wire import WireFormat

if TYPE_CHECKING:
    from asyncapy_core.server.session import Client

SHORT: Final = 512
"""The headers of payloads of fewer bytes are kept."""

_new_packet = Packet.__new__


class Encoding:
    """What is said in one encoding on the connections of a server or client.

    Args:
        codec: the encoding.
        wire: the format that both sides agreed on.

    Attributes:
        name: the name of the encoding.
        wire_id: its Content-Encoding byte.
    """

    __slots__ = ("_decode", "_encode", "_headers", "_wire", "name", "wire_id")

    def __init__(self, codec: Codec, wire: WireFormat) -> None:
        self.name = codec.name
        self.wire_id = codec.wire_id
        self._encode = codec.encode
        self._decode = codec.decode
        self._wire = wire
        self._headers: dict[int, bytes] = {}

    def pack(self, fields: Mapping[str, Any]) -> bytes:
        """Return the packet that carries these fields.

        Raises:
            EncodeError: a field cannot be carried, or all of them together do not make a packet.
        """
        encode = self._encode
        payload = encode(fields)
        size = len(payload)
        try:
            header = self._headers[size]
        except KeyError:
            header = b""
        return (header or self._header(size)) + payload

    def unpack(self, payload: bytes, sender: Client | None = None) -> Packet:
        """Return the packet that this payload came in.

        Args:
            payload: as it stood on the wire.
            sender: the client that sent it, on a server.

        Raises:
            MalformedPacket: the payload is not what its header says.
            BrokenCodec: the codec failed.
        """
        decode = self._decode
        try:
            fields = decode(payload)
        except DecodeError as error:
            raise MalformedPacket(safe_str(error)) from error
        except BaseException as error:  # a codec may raise anything
            if is_interrupt(error):
                raise
            raise BrokenCodec(f"the codec {self.name!r} is broken: it raised {describe(error)}") from error
        if not isinstance(fields, dict):
            raise BrokenCodec(f"the codec {self.name!r} is broken: it returned a {type(fields).__name__}, not a map")
        packet: Packet = _new_packet(Packet)  # what a codec returned need not be checked and copied
        packet.fields = fields
        packet.encoding = self.name
        packet.sender = sender
        packet.handler = None
        return packet

    def _header(self, size: int) -> bytes:
        """Return what stands before a payload of this size, and keep it for the next where that is short."""
        header = self._wire.header(self.wire_id, size)
        if size < SHORT:
            self._headers[size] = header
        return header


class EncodingRegistry:
    """All encodings that one server or client speaks, by name and by wire id.

    Args:
        codecs: the encodings.
        wire: the format that both sides agreed on.

    Attributes:
        by_id: what speaks each encoding, by wire id.
        wire: as given.

    Raises:
        PluginError: two codecs share a name or a wire id.
    """

    __slots__ = ("_by_name", "by_id", "wire")

    def __init__(self, codecs: Iterable[Codec], wire: WireFormat) -> None:
        self.wire = wire
        self.by_id: dict[int, Encoding] = {}
        self._by_name: dict[str, Encoding] = {}
        for codec in sorted(codecs, key=lambda codec: codec.wire_id):
            if codec.name in self._by_name or codec.wire_id in self.by_id:
                raise PluginError(f"codec {codec.name!r} (wire id {codec.wire_id}) is there twice")
            self._by_name[codec.name] = self.by_id[codec.wire_id] = Encoding(codec, wire)

    @property
    def default(self) -> Encoding:
        """What is spoken before the peer has chosen: the encoding with the lowest wire id, JSON where it is there.

        Raises:
            UnknownCodec: no codec is installed.
        """
        if not self.by_id:
            raise UnknownCodec(f"no codec is installed; {INSTALL_HINT}")
        return next(iter(self.by_id.values()))

    def named(self, name: str) -> Encoding:
        """Return what speaks the encoding of this name.

        Raises:
            UnknownCodec: there is none; the message lists those that are installed.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise UnknownCodec(f"no codec is called {name!r} (installed: {known}); {INSTALL_HINT}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, lowest wire id first."""
        return iter(self._by_name)
