"""Properties of the parsers that hold for any bytes; `make fuzz` runs each with atheris."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import costs
import msgpack
from config_target import config
from numbered_target import numbered
from proxy_target import proxy
from strict_msgpack import strict
from tls_target import tls

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_codecs.trees import find_fault
from asyncapy_core.errors import DecodeError, ProtocolError
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.wire import ByteOrder, WireFormat

JSON = JsonCodec()
ZIPROTO = ZiProtoCodec()
MAX_PACKET = 300


def frames(data: bytes) -> None:
    """A stream in any pieces gives the same frames and the same error, and less than a packet stays buffered."""
    if len(data) < 3:
        return
    byteorder: ByteOrder = "little" if data[1] & 1 else "big"
    wire = WireFormat(data[0] % 8 + 1, byteorder, MAX_PACKET)
    stream = data[3:]
    chance = random.Random(data[2])
    cuts: list[bytes] = []
    while sum(map(len, cuts)) < len(stream):
        start = sum(map(len, cuts))
        cuts.append(stream[start : start + chance.randrange(1, 9)])
    whole = _decoded(wire, [stream])
    assert whole == _decoded(wire, cuts) == _decoded(wire, [stream[i : i + 1] for i in range(len(stream))])
    frames, error = whole
    sent = b"".join(wire.encode(*frame) for frame in frames)
    assert stream.startswith(sent)
    assert error is not None or len(stream) - len(sent) < wire.header_size + MAX_PACKET


def _decoded(wire: WireFormat, pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str | None]:
    decoder = FrameDecoder(wire, (0, 1))
    found: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while some := decoder.frames(3):
                found += some
            assert decoder.buffered < wire.header_size + MAX_PACKET
    except ProtocolError as error:
        return found, repr(error)
    return found, None


def json_payload(payload: bytes) -> None:
    """The codec decodes a payload as the standard library does, and its fields survive a round trip."""
    try:
        fields = JSON.decode(payload)
    except DecodeError:
        return
    again = JSON.decode(JSON.encode(fields)) if len(JSON.encode(fields)) < 1_000_000 else fields
    assert repr(again) == repr(fields)
    assert repr(json.loads(payload)) == repr(fields)


def ziproto_payload(payload: bytes) -> None:
    """The codec and the msgpack package decode any bytes to the same fields, or both refuse them.

    The codec does not check the value of a key that occurs again later, as that value is dropped; the package does.
    """
    try:
        expected = repr(strict(payload))
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        expected = ""
    try:
        fields = ZIPROTO.decode(payload)
    except DecodeError as error:
        if expected and "nested" not in str(error):
            raise
        return
    if not expected:
        expected = repr(msgpack.unpackb(payload, strict_map_key=False, object_pairs_hook=_with_any_keys))
        assert find_fault(fields) is None
    assert repr(fields) == expected
    assert repr(ZIPROTO.decode(ZIPROTO.encode(fields))) == repr(fields)


def costly_item(item: bytes) -> None:
    """A payload of many equal items is decoded and sent again, or refused. `costs.py` measures the time."""
    for codec, form in costs.FORMS:
        costs.echo(codec, form(item or b"1", 20_000))


def _with_any_keys(items: list[tuple[Any, Any]]) -> dict[str, Any]:
    return {key if type(key) is str else repr(key): value for key, value in items}


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": config,
    "frames": frames,
    "json": json_payload,
    "numbered": numbered,
    "proxy": proxy,
    "tls": tls,
    "ziproto": ziproto_payload,
    "costs": costly_item,
}
