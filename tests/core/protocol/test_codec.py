from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncapy_core.protocol.codec import Codec


class Tiny:
    def __init__(self, name: str, wire_id: int) -> None:
        self.name = name
        self.wire_id = wire_id

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        return repr(dict(fields)).encode()

    def decode(self, payload: bytes) -> dict[str, Any]:
        return {"length": len(payload)}


def test_what_has_a_name_an_id_and_both_ways_is_a_codec() -> None:
    assert isinstance(Tiny("a", 1), Codec)
    assert not isinstance(object(), Codec)
