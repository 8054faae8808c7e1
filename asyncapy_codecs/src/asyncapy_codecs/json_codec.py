"""JSON, wire id 0, on msgspec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from asyncapy_codecs import slow_numbers
from asyncapy_codecs.large import LargeDecoder
from asyncapy_codecs.slow_numbers import EXAMINED, has_slow_numbers
from asyncapy_codecs.trees import (
    MAX_CONTAINERS,
    MAX_DEEP,
    MAX_DEPTH,
    find_fault,
    plain_form,
    require_finite,
    usual_payload,
)
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
        self._decode_deep = LargeDecoder(msgspec.json.Decoder(dict[str, Any]).decode)
        self._decode_slow = LargeDecoder(slow_numbers.decode, MAX_CONTAINERS)

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
        if found or (len(payload) > MAX_DEPTH and _containers(payload) > MAX_DEPTH):
            require_finite(fields)  # msgspec writes null for numbers that are not finite
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a JSON object; of duplicate keys, the last wins.

        Raises:
            DecodeError: the payload is not exactly one JSON object, or is nested too deep.
        """
        try:
            if len(payload) < EXAMINED:
                decode = self._decode
                fields: dict[str, Any] = decode(payload)
                return fields
            if not has_slow_numbers(payload):
                return self._decode_large(payload)
        except msgspec.ValidationError:
            return self._decode_unusual(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a JSON object: {error}") from error
        return self._decode_checked(self._decode_slow, payload)

    def _decode_unusual(self, payload: bytes) -> dict[str, Any]:
        most = max(MAX_CONTAINERS, len(payload) // 5)
        if _containers(payload) > most:
            raise DecodeError(
                f"not a payload: it is nested deep, and holds more than {most} [ and {{, including those in strings"
            )
        return self._decode_checked(self._decode_deep, payload)

    @staticmethod
    def _decode_checked(decode: Callable[[bytes], Any], payload: bytes) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = decode(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a JSON object: {error}") from error
        if type(fields) is not dict:
            raise DecodeError(f"not a JSON object: its type is {type(fields).__name__}")
        if fault := find_fault(fields, max(MAX_DEEP, len(payload) // 20)):
            raise DecodeError(f"not a payload: {fault}")
        return fields

    def __repr__(self) -> str:
        return "<JsonCodec>"


def _containers(payload: bytes) -> int:
    """Return the number of maps and arrays in a payload, or more if their signs occur in strings."""
    return payload.count(b"[") + payload.count(b"{")
