"""From fields to whole packets in one encoding, and from payloads to packets (WIRE.md, "A packet").

Brings a codec and a wire format together; trusts no codec. Servers and clients both speak through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from asyncapy_core.codec import Codec, CodecRegistry
from asyncapy_core.errors import CodecError, DecodeError, MalformedPacket
from asyncapy_core.logs import describe
from asyncapy_core.packet import Packet
from asyncapy_core.wire import SHORT, WireFormat, short_heads

if TYPE_CHECKING:
    from asyncapy_core.session import Client

_new_packet = Packet.__new__


class BrokenCodec(MalformedPacket, CodecError):
    """A codec raised what no codec may raise, or returned no fields: a fault on this side, not the peer's."""


class Packer:
    """What is said in one encoding on the connections of a server or client.

    Args:
        codec: the encoding.
        wire: the format that both sides agreed on.

    Attributes:
        name: the name of the encoding.
        wire_id: its Content-Encoding byte.
    """

    __slots__ = ("_decode", "_encode", "_heads", "_wire", "name", "wire_id")

    def __init__(self, codec: Codec, wire: WireFormat) -> None:
        self.name = codec.name
        self.wire_id = codec.wire_id
        self._encode = codec.encode
        self._decode = codec.decode
        self._wire = wire
        self._heads = short_heads(wire, codec.wire_id)

    def pack(self, fields: Mapping[str, Any]) -> bytes:
        """Return the packet that carries these fields.

        Raises:
            EncodeError: a field cannot be carried, or all of them together do not make a packet.
        """
        encode = self._encode  # to call what stands in a slot costs CPython 3.11 less in two steps
        payload = encode(fields)
        size = len(payload)
        if size < SHORT and (head := self._heads[size]):
            return head + payload
        return self._wire.encode(self.wire_id, payload)

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
            raise MalformedPacket(str(error)) from error
        except Exception as error:
            raise BrokenCodec(f"the codec {self.name!r} is broken: it raised {describe(error)}") from error
        if not isinstance(fields, dict):
            raise BrokenCodec(f"the codec {self.name!r} is broken: it returned a {type(fields).__name__}, not a map")
        packet: Packet = _new_packet(Packet)  # what a codec returned need not be checked and copied
        packet.fields = fields
        packet.encoding = self.name
        packet.sender = sender
        return packet


class Packers:
    """All encodings that a server or client speaks.

    Args:
        codecs: the encodings.
        wire: the format that both sides agreed on.

    Attributes:
        by_id: what speaks each encoding, by wire id.
    """

    __slots__ = ("_codecs", "by_id", "wire")

    def __init__(self, codecs: CodecRegistry, wire: WireFormat) -> None:
        self._codecs = codecs
        self.wire = wire
        self.by_id = {wire_id: Packer(codec, wire) for wire_id, codec in codecs.by_id.items()}

    @property
    def default(self) -> Packer:
        """What is spoken before the peer has chosen.

        Raises:
            UnknownCodec: no codec is installed.
        """
        return self.by_id[self._codecs.default.wire_id]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the encodings, lowest wire id first."""
        return iter(self._codecs)

    def named(self, name: str) -> Packer:
        """Return what speaks the encoding of this name.

        Raises:
            UnknownCodec: there is none; the message lists those that are installed.
        """
        return self.by_id[self._codecs.named(name).wire_id]
