"""The contract suite of `asyncapy_core.testing`, over the codecs of this project."""

from __future__ import annotations

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_core import Codec
from asyncapy_core.testing import CodecContract


class TestJson(CodecContract):
    lowest_id = 0
    no_maps = (b"[1, 2]", b"12345", b"null", b'"{\\"uni\\": 1}"')
    too_deep = (b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)

    def codec(self) -> Codec:
        return JsonCodec()


class TestZiProto(CodecContract):
    lowest_id = 1
    no_maps = (b"\x93\x01\x02\x03", b"\xcd\x00\x01", b"\xc0", b"\xa1a")
    too_deep = (b"\x91" * 100_000, b"\x81\xa1a" * 100_000 + b"\x01")

    def codec(self) -> Codec:
        return ZiProtoCodec()
