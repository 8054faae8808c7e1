"""ZiProto, wire id 1, on msgspec: MessagePack without extensions and timestamps (docs/protocol.md, "A packet").

msgspec decodes usual payloads. ormsgpack decodes those that hold bytes or are nested deep, as it accepts only strings
as keys. msgspec would decode arrays as keys to tuples, and a peer can choose tuples that all have the same hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
import ormsgpack

from asyncapy_codecs.large import LARGE, LargeDecoder
from asyncapy_codecs.reference import Reference
from asyncapy_codecs.trees import MAX_CONTAINERS, MAX_DEEP, find_fault, plain_form, sendable, usual_payload
from asyncapy_core.errors import DecodeError, EncodeError

EXAMINED: Final = 64 * 1024
DENSE: Final = 0.1
"""msgspec does not decode a payload of so many bytes first if such a part of them may begin a map or an array, as it
would take too long to decode it twice."""

_OPENERS: Final = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_SIGNS_OF_BYTES: Final = (b"\xc4", b"\xc5", b"\xc6")


class ZiProtoCodec:
    """Payloads that are exactly one ZiProto map with string keys.

    Args:
        engine: ``"msgspec"``, or ``"ziproto"`` for the reference implementation, which is for comparison.

    Raises:
        ValueError: there is no such engine.
    """

    name = "ziproto"
    wire_id = 1

    def __init__(self, engine: Literal["msgspec", "ziproto"] = "msgspec") -> None:
        if engine not in {"msgspec", "ziproto"}:
            raise ValueError(f"engine is {engine!r}; it must be 'msgspec' or 'ziproto'")
        self.engine = engine
        self._encode = msgspec.msgpack.Encoder(enc_hook=plain_form).encode
        self._decode = msgspec.msgpack.Decoder(usual_payload()).decode
        self._decode_large = LargeDecoder(self._decode)
        self._decode_strict = LargeDecoder(ormsgpack.unpackb, MAX_CONTAINERS)
        self._require_one_map = msgspec.msgpack.Decoder(_AnyMap).decode
        self._reference = Reference(self._decode_unusual) if engine == "ziproto" else None

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return these fields as a ZiProto map.

        Raises:
            EncodeError: a field cannot be encoded; the message gives the reason.
        """
        try:
            if self._reference is not None:
                return self._reference.encode(dict(sendable(fields)))
            encode, decode = self._encode, self._decode
            payload = encode(fields)
            if len(payload) >= LARGE:
                return self._checked(payload, fields)
            try:
                decode(payload)  # fields that decode to the usual type have no fault
            except msgspec.ValidationError:
                plain = sendable(fields)
                return payload if plain is fields else encode(plain)
        except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
            raise EncodeError(f"these fields cannot be sent as ZiProto: {error}") from error
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a ZiProto map; of duplicate keys, the last wins.

        Raises:
            DecodeError: the payload is not exactly one ZiProto map, or is nested too deep.
        """
        try:
            if len(payload) < LARGE:
                decode = self._decode
                fields = decode(payload)
            elif _is_usual(payload):
                fields = self._decode_large(payload)
            else:
                fields = self._decode_unusual(payload)
        except msgspec.ValidationError:
            fields = self._decode_unusual(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a ZiProto map: {error}") from error
        return fields if self._reference is None else self._reference.decode(payload)

    def _checked(self, payload: bytes, fields: Mapping[str, Any]) -> bytes:
        """Return a large payload, or another one if these fields have to be converted first."""
        if _is_usual(payload):
            with suppress(msgspec.ValidationError):
                self._decode_large(payload)
                return payload
        plain = sendable(fields)
        return payload if plain is fields else self._encode(plain)

    def _decode_unusual(self, payload: bytes) -> dict[str, Any]:
        try:
            self._require_one_map(payload)
            fields: dict[str, Any] = self._decode_strict(payload)
        except (ValueError, RecursionError) as error:
            reason = "it holds an extension type" if "ext_hook" in str(error) else error
            raise DecodeError(f"not a ZiProto map: {reason}") from error
        if fault := find_fault(fields, max(MAX_DEEP, len(payload) // 20)):
            raise DecodeError(f"not a payload: {fault}")
        return fields

    def __repr__(self) -> str:
        return f"<ZiProtoCodec engine={self.engine!r}>"


class _AnyMap(msgspec.Struct):
    """The type for a map whose values msgspec skips. It checks that nothing follows the map."""


def _is_usual(payload: bytes) -> bool:
    """Return whether a large payload has few maps and arrays and seems to hold no bytes."""
    if any(sign in payload for sign in _SIGNS_OF_BYTES):
        return False
    size = len(payload)
    return size < EXAMINED or len(payload.translate(None, _OPENERS)) >= size * (1 - DENSE)
