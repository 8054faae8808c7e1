"""JSON, wire id 0, on msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from asyncapy_codecs.large import LARGE, LargeDecoder
from asyncapy_codecs.trees import MANY, MAX_DEPTH, PATIENCE, find_fault, plain_form, require_finite, usual_payload
from asyncapy_core.errors import DecodeError, EncodeError


class JsonCodec:
    """Payloads that are JSON objects in UTF-8, in strict conformity to RFC 8259: no BOM, no NaN, no lone surrogates.

    Bytes are sent in base64, dates in ISO 8601.
    """

    name = "json"
    wire_id = 0

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=plain_form).encode
        self._decode = msgspec.json.Decoder(usual_payload()).decode
        self._decode_large = LargeDecoder(self._decode)
        self._decode_any = LargeDecoder(msgspec.json.Decoder(dict[str, Any]).decode)

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return these fields as a JSON object in UTF-8.

        Raises:
            EncodeError: a field cannot be encoded; the message gives the reason.
        """
        try:
            encode = self._encode
            payload = encode(fields)
        except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
            raise EncodeError(f"these fields cannot be sent as JSON: {error}") from error
        found = payload.partition(b"null")[1]  # takes half as long as `find` or `in` on CPython 3.11
        if found or (len(payload) > MAX_DEPTH and _may_be_deep(payload)):
            require_finite(fields)  # msgspec writes null for numbers that are not finite
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a JSON object; of duplicate keys, the last wins.

        Raises:
            DecodeError: the payload is not exactly one JSON object, or is nested too deep.
        """
        try:
            decode = self._decode if len(payload) < LARGE else self._decode_large
            return decode(payload)
        except msgspec.ValidationError:
            return self._decode_unusual(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a JSON object: {error}") from error

    def _decode_unusual(self, payload: bytes) -> dict[str, Any]:
        if len(payload) >= LARGE and payload.count(b"[") + payload.count(b"{") > MANY:
            raise DecodeError(
                f"not a payload: it is nested deep and has more than {MANY} [ and {{, including those in strings"
            )
        try:
            fields = self._decode_any(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a JSON object: {error}") from error
        if fault := find_fault(fields, PATIENCE):
            raise DecodeError(f"not a payload: {fault}")
        return fields

    def __repr__(self) -> str:
        return "<JsonCodec>"


def _may_be_deep(payload: bytes) -> bool:
    """Return whether a payload opens more than `MAX_DEPTH` maps and arrays; if not, it cannot be nested too deep."""
    return payload.count(b"[") + payload.count(b"{") > MAX_DEPTH
