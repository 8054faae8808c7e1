"""ZiProto, wire id 1, on msgspec: MessagePack without extensions and timestamps (docs/protocol.md, "A packet")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import msgspec

from asyncapy_codecs.large import LARGE, LargeDecoder
from asyncapy_codecs.reference import Reference
from asyncapy_codecs.trees import PATIENCE, find_fault, plain_form, sendable, usual_payload
from asyncapy_core.errors import DecodeError, EncodeError


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
        self._decode_any = LargeDecoder(msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_no_extensions).decode)
        self._reference = Reference(self._decode_any) if engine == "ziproto" else None

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
            try:
                decode(payload)  # fields that decode to the usual type have no fault
            except msgspec.ValidationError:
                plain = sendable(fields)
                return payload if plain is fields else self._encode(plain)
        except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
            raise EncodeError(f"these fields cannot be sent as ZiProto: {error}") from error
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a ZiProto map; of duplicate keys, the last wins.

        Raises:
            DecodeError: the payload is not exactly one ZiProto map, or is nested too deep.
        """
        try:
            decode = self._decode if len(payload) < LARGE else self._decode_large
            fields = decode(payload)
        except msgspec.ValidationError:
            fields = self._decode_unusual(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a ZiProto map: {error}") from error
        return fields if self._reference is None else self._reference.decode(payload)

    def _decode_unusual(self, payload: bytes) -> dict[str, Any]:
        try:
            fields = self._decode_any(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a ZiProto map: {error}") from error
        if fault := find_fault(fields, PATIENCE):
            raise DecodeError(f"not a payload: {fault}")
        return fields

    def __repr__(self) -> str:
        return f"<ZiProtoCodec engine={self.engine!r}>"


def _no_extensions(code: int, data: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code} is not part of ZiProto")
