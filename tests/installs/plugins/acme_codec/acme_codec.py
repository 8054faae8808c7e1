"""A codec of a third party, wire id 77: ``key=value;key=value`` in UTF-8, where all values are text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncapy_core import Codec, hookimpl
from asyncapy_core.errors import DecodeError, EncodeError


class AcmeCodec:
    name = "acme"
    wire_id = 77

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        pairs = [(str(name), str(value)) for name, value in fields.items()]
        if any(mark in text for pair in pairs for text in pair for mark in "=;"):
            raise EncodeError(f"acme packets have no way to write '=' or ';' in {pairs!r}")
        return ";".join(f"{name}={value}" for name, value in pairs).encode()

    def decode(self, payload: bytes) -> dict[str, Any]:
        try:
            return dict(pair.split("=") for pair in payload.decode().split(";"))
        except ValueError as error:
            raise DecodeError(f"not key=value pairs: {error}") from error


@hookimpl
def asyncapy_codecs() -> list[Codec]:
    return [AcmeCodec()]
