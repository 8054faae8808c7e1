"""The target ``numbered``: streams of version 23 for a server, a client, or a server that detects the version."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from numbered_reference import Settings, decode, first_version

from asyncapy_core.errors import ProtocolError
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.kinds import Role
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.wire import WireFormat

MAX_PACKET = 60

Result = tuple[list[Any], tuple[str, int] | None]


def numbered(data: bytes) -> None:
    """A stream in any pieces gives the result of the reference decoder, and less than a packet stays buffered."""
    if len(data) < 3:
        return
    mode = data[1] // 2 % 3
    settings = Settings(data[0] % 8 + 1, "little" if data[1] & 1 else "big", MAX_PACKET, (0, 1), server=mode != 1)
    wire = WireFormat(settings.header_size, settings.byteorder, MAX_PACKET)
    chance, stream = random.Random(data[2]), data[3:]
    expected = _expected(stream, settings, wire, detects=mode == 2)
    for pieces in ([stream], _cut(stream, chance), [stream[i : i + 1] for i in range(len(stream))]):
        decoder: FrameDecoder | NumberedDecoder
        if mode == 2:
            decoder = DetectingDecoder(wire, (0, 1))
        else:
            decoder = NumberedDecoder(wire, (0, 1), Role.SERVER if settings.server else Role.CLIENT)
        assert _decoded(decoder, pieces) == expected


def _cut(stream: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    while stream:
        size = chance.randrange(1, 20)
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def _decoded(decoder: FrameDecoder | NumberedDecoder, pieces: Iterable[bytes]) -> Result:
    """Return the frames and the error of a stream; a `DetectingDecoder` hands over to its successor."""
    found: list[Any] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while some := decoder.frames(3):
                found += some
            if isinstance(decoder, DetectingDecoder) and decoder.version == 23:
                decoder = decoder.numbered()
                while frames := decoder.frames(3):
                    found += frames
            assert decoder.buffered < 8 + MAX_PACKET + 5
            assert decoder.missing >= 1
    except ProtocolError as error:
        assert decoder.buffered == 0
        return found, (error.code.value, error.number)
    return found, None


def _expected(stream: bytes, settings: Settings, wire: WireFormat, *, detects: bool) -> Result:
    version = first_version(stream, settings) if detects else 23
    if version == 22:
        return _decoded(FrameDecoder(wire, (0, 1)), [stream])
    if version == 23:
        outcome = decode(stream, settings)
        return outcome.frames, outcome.error
    return [], None if version is None else (str(version), 0)
