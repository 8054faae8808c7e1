from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from asyncapy_core.codec import Codec, CodecRegistry
from asyncapy_core.errors import PluginError, UnknownCodec


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


def test_codecs_are_found_by_name_and_by_wire_id() -> None:
    a, b = Tiny("a", 9), Tiny("b", 4)
    codecs = CodecRegistry([a, b])
    assert codecs.named("a") is a
    assert codecs.by_id == {9: a, 4: b}
    assert len(codecs) == 2


def test_names_and_the_default_go_by_the_lowest_wire_id() -> None:
    codecs = CodecRegistry([Tiny("a", 9), Tiny("b", 4)])
    assert list(codecs) == ["b", "a"]
    assert codecs.default.name == "b"


def test_an_unknown_name_lists_those_there_are_and_says_what_to_install() -> None:
    with pytest.raises(UnknownCodec, match=r"no codec is called 'c' \(installed: b, a\); pip install asyncapy-codecs"):
        CodecRegistry([Tiny("a", 9), Tiny("b", 4)]).named("c")


def test_without_any_codec_there_is_no_default() -> None:
    codecs = CodecRegistry([])
    assert not codecs
    with pytest.raises(UnknownCodec, match="no codec is installed; pip install asyncapy-codecs"):
        _ = codecs.default
    with pytest.raises(UnknownCodec, match="installed: none"):
        codecs.named("json")


@pytest.mark.parametrize("second", [Tiny("a", 2), Tiny("b", 1)])
def test_two_codecs_share_neither_name_nor_id(second: Tiny) -> None:
    with pytest.raises(PluginError, match="is there twice"):
        CodecRegistry([Tiny("a", 1), second])
