"""`Encoding`: packets of one codec in one wire format, in both versions (docs/protocol.md); for servers and clients.

Checks that a codec returns a map, and translates the exceptions that a codec raises.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncapy_core.errors import BrokenCodec, DecodeError, EncodeError, MalformedPacket, PluginError, UnknownCodec
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import describe, safe_str
from asyncapy_core.protocol.codec import INSTALL_HINT, Codec
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import Packet
from asyncapy_core.protocol.wire import NUMBERED_AFTER_LENGTH, NUMBERED_VERSION, WireFormat, numbered_header_writer

if TYPE_CHECKING:
    from asyncapy_core.interfaces import ClientInterface

CACHED_SIZES: Final = 512
"""The headers of payloads smaller than this, in bytes, are cached."""

_new_packet = Packet.__new__


class Encoding:
    """Packs fields into packets, and unpacks payloads, with one codec.

    Args:
        codec: the codec.
        wire: the wire format of the server or client.

    Attributes:
        name: the name of the codec.
        wire_id: its Content-Encoding byte.
    """

    __slots__ = (
        "_decode",
        "_encode",
        "_headers",
        "_wire",
        "_write_numbered_header",
        "name",
        "wire_id",
    )

    def __init__(self, codec: Codec, wire: WireFormat) -> None:
        self.name: str = codec.name
        self.wire_id: int = codec.wire_id
        self._encode = codec.encode
        self._decode = codec.decode
        self._wire = wire
        self._headers: dict[int, bytes] = {}
        self._write_numbered_header = numbered_header_writer(wire)

    def pack(self, fields: Mapping[str, Any]) -> bytes:
        """Return a whole packet of version 22 with these fields.

        Raises:
            EncodeError: the codec cannot encode a field, or the payload is too short or too long for a packet.
        """
        encode = self._encode
        try:
            payload = encode(fields)
            size = len(payload)
            try:
                header = self._headers[size]
            except KeyError:
                header = b""
            return (header or self._header(size)) + payload
        except EncodeError:
            raise
        except BaseException as error:  # a codec may raise anything, and return anything
            self._refuse(error, fields)

    def pack_numbered(self, kind: int, number: int, fields: Mapping[str, Any]) -> bytes:
        """Return a whole packet of version 23 with these fields, which may be none.

        Args:
            kind: a kind whose payload is a map.
            number: the number of the request; 0 for an EVENT, and for a FAILURE that answers no request.
            fields: the fields.

        Raises:
            EncodeError: the codec cannot encode a field, or the payload is too long for a packet.
        """
        encode, write_header = self._encode, self._write_numbered_header
        try:
            payload = encode(fields)
            try:
                if payload:
                    size = len(payload) + NUMBERED_AFTER_LENGTH
                    return write_header(size, NUMBERED_VERSION, self.wire_id, kind, number) + payload
            except (struct.error, OverflowError):
                pass
            return self._wire.encode_numbered(Kind(kind), number, self.wire_id, payload)  # it raises the error
        except EncodeError:
            raise
        except BaseException as error:  # a codec may raise anything, and return anything
            self._refuse(error, fields)

    def pack_event(self, fields: Mapping[str, Any]) -> bytes:
        """Return an EVENT of version 23 with these fields; `SharedPacket.packed` takes this method.

        Raises:
            EncodeError: as for `pack_numbered`.
        """
        return self.pack_numbered(Kind.EVENT, 0, fields)

    def unpack(self, payload: bytes, sender: ClientInterface | None = None) -> Packet:
        """Decode a payload.

        Args:
            payload: the payload of a frame.
            sender: the client that sent it, on a server.

        Raises:
            MalformedPacket: the payload is not valid in this encoding.
            BrokenCodec: the codec raised another exception, or returned no map.
        """
        decode = self._decode
        try:
            fields = decode(payload)
        except DecodeError as error:
            raise MalformedPacket(safe_str(error)) from error
        except BaseException as error:  # a codec may raise anything
            if is_interrupt(error):
                raise
            reason = describe(error, {"payload": payload})  # the message of a foreign exception may quote it
            raise BrokenCodec(f"the codec {self.name!r} is broken: it raised {reason}") from error
        if not isinstance(fields, dict):
            raise BrokenCodec(f"the codec {self.name!r} is broken: it returned a {type(fields).__name__}, not a map")
        packet: Packet = _new_packet(Packet)  # Packet() would check and copy the fields
        packet.fields = fields
        packet.encoding = self.name
        packet.sender = sender
        packet.handler = None
        return packet

    def unpack_numbered(self, payload: bytes, sender: ClientInterface | None = None) -> Packet:
        """Decode the payload of a packet of version 23 whose payload is a map.

        Args:
            payload: the payload of a frame; none of them is empty in a valid packet, even if the codec accepts it.
            sender: the client that sent it, on a server.

        Raises:
            MalformedPacket, BrokenCodec: as for `unpack`.
        """
        if not payload:
            raise MalformedPacket("the packet has no payload; its kind needs one")
        return self.unpack(payload, sender)

    def _refuse(self, error: BaseException, fields: Mapping[str, Any]) -> NoReturn:
        """Raise EncodeError for an exception of the codec that is none."""
        if is_interrupt(error):
            raise error
        reason = describe(error, fields)  # the message of a foreign exception may quote a value
        raise EncodeError(f"the codec {self.name!r} raised {reason}") from error

    def _header(self, size: int) -> bytes:
        """Return the header for a payload of ``size`` bytes, and cache it if the payload is short."""
        header = self._wire.header(self.wire_id, size)
        if size < CACHED_SIZES:
            self._headers[size] = header
        return header


class EncodingRegistry:
    """The encodings of one server or client, by name and by wire id.

    Args:
        codecs: the codecs.
        wire: the wire format of the server or client.

    Attributes:
        by_id: the encodings by wire id.
        wire: as given.

    Raises:
        PluginError: two codecs share a name or a wire id.
    """

    __slots__ = ("_by_name", "by_id", "wire")

    def __init__(self, codecs: Iterable[Codec], wire: WireFormat) -> None:
        self.wire: WireFormat = wire
        self.by_id: dict[int, Encoding] = {}
        self._by_name: dict[str, Encoding] = {}
        for codec in sorted(codecs, key=lambda codec: codec.wire_id):
            if codec.name in self._by_name or codec.wire_id in self.by_id:
                raise PluginError(f"two codecs are called {codec.name!r} or have the wire id {codec.wire_id}")
            self._by_name[codec.name] = self.by_id[codec.wire_id] = Encoding(codec, wire)

    @property
    def default(self) -> Encoding:
        """The encoding of replies before the first packet: the lowest wire id, which is JSON's if it is installed.

        Raises:
            UnknownCodec: no codec is installed.
        """
        if not self.by_id:
            raise UnknownCodec(f"no codec is installed; {INSTALL_HINT}")
        return next(iter(self.by_id.values()))

    def by_name(self, name: str) -> Encoding:
        """Return the encoding with this name.

        Raises:
            UnknownCodec: there is none; the message lists the installed ones.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(self) or "none"
            raise UnknownCodec(f"no codec is called {name!r} (installed: {known}); {INSTALL_HINT}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, the lowest wire id first."""
        return iter(self._by_name)
