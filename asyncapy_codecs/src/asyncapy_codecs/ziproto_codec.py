"""ZiProto, wire id 1, on msgspec: the MessagePack format without extensions and timestamps (WIRE.md, "A packet").

The ``ziproto`` package is the reference engine, to compare with: it cannot read maps and arrays of more than 15 items
and takes seconds for some small payloads, so a server that meets strangers uses the default engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

import msgspec

from asyncapy_codecs.trees import find_fault, sendable
from asyncapy_core.errors import DecodeError, EncodeError

Engine = Literal["msgspec", "ziproto"]

_SEARCH: Final = re.compile(rb"[\x80-\x9f\xc7-\xcb\xd4-\xd8\xdc-\xdf]").search
"""Finds what may begin a nested map or array, a float, an extension or a timestamp; a hit may lie within text."""


class ZiProtoCodec:
    """Payloads that are one ZiProto map with string keys, the whole payload and nothing but.

    Args:
        engine: ``"msgspec"``, or ``"ziproto"`` for the reference implementation.
    """

    name = "ziproto"
    wire_id = 1

    def __init__(self, engine: Engine = "msgspec") -> None:
        self.engine = engine
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_no_extensions).decode
        if engine == "ziproto":
            import ziproto  # noqa: PLC0415  # only for those who ask for it

            self._reference = ziproto

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return the ZiProto map that these fields make.

        Raises:
            EncodeError: a field cannot be carried; the message says why.
        """
        plain = sendable(fields)
        try:
            return self._encode(plain) if self.engine == "msgspec" else self._reference_encode(plain)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(f"these fields cannot be sent as ZiProto: {error}") from error

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields of a ZiProto map; of duplicate keys, the last wins.

        Raises:
            DecodeError: the payload is anything else, or nested too deep.
        """
        try:
            fields = self._decode(payload)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not a ZiProto map: {error}") from error
        if _SEARCH(payload, 1) and (fault := find_fault(fields)):
            raise DecodeError(f"not a payload: {fault}")
        return fields if self.engine == "msgspec" else self._reference_decode(payload)

    def _reference_encode(self, fields: Mapping[str, Any]) -> bytes:
        return bytes(self._reference.encode(dict(fields)))

    def _reference_decode(self, payload: bytes) -> dict[str, Any]:
        """Decode a payload that the default engine has found well formed."""
        try:
            fields: dict[str, Any] = self._reference.decode(payload)
        except Exception as error:  # the package raises whatever its slip leads to
            raise DecodeError(f"the reference engine cannot read this: {type(error).__name__}: {error}") from error
        return fields

    def __repr__(self) -> str:
        return f"<ZiProtoCodec engine={self.engine!r}>"


def _no_extensions(code: int, data: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code} is not part of ZiProto")
