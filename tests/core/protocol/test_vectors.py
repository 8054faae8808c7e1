"""The vectors of version 23, each in one piece, in two, byte by byte, and with further bytes behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from numbered_reference import Settings, decode, first_version

from asyncapy_core.errors import EncodeError, ProtocolError
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.frames import FrameDecoder
from asyncapy_core.protocol.kinds import Kind, Role
from asyncapy_core.protocol.numbered import NumberedDecoder
from asyncapy_core.protocol.wire import WireFormat

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "version-23.json").read_text("utf-8"))
DECODE, DETECT, ENCODE = VECTORS["decode"], VECTORS["detect"], VECTORS["encode"]


def name(vector: dict[str, Any]) -> str:
    text: str = vector["name"]
    return text


@dataclass
class Found:
    """The result of a stream, in the form of the vectors; ``fed`` counts the bytes before the error or the end."""

    version: int | None = None
    frames: list[dict[str, Any]] = field(default_factory=list)
    error: tuple[str, int] | None = None
    fed: int = 0
    rest: int = 0


def found(vector: dict[str, Any], *pieces: bytes) -> Found:
    """Decode the pieces as the receiver of a vector does."""
    wire, encodings = wire_of(vector), vector["settings"]["encodings"]
    decoder: FrameDecoder | NumberedDecoder
    if "receiver" in vector:
        decoder = NumberedDecoder(wire, encodings, Role[vector["receiver"].upper()])
    else:
        decoder = DetectingDecoder(wire, encodings)
    result = Found()
    try:
        for piece in pieces:
            decoder.feed(piece)
            result.fed += len(piece)
            result.frames.extend(frames_of(decoder))  # one by one: an error may follow
            if isinstance(decoder, DetectingDecoder) and decoder.version == 23:
                decoder = decoder.numbered()
                result.frames.extend(frames_of(decoder))
    except ProtocolError as error:
        result.error = (error.code.value, error.number)
    result.version = decoder.version if isinstance(decoder, DetectingDecoder) else 23
    result.rest = decoder.buffered
    return result


def frames_of(decoder: FrameDecoder | NumberedDecoder) -> Iterator[dict[str, Any]]:
    """Yield the frames in the form of the vectors."""
    if isinstance(decoder, FrameDecoder):
        while packets := decoder.frames(2):
            for encoding, payload in packets:
                yield {"encoding": encoding, "payload": payload.hex()}
    else:
        while frames := decoder.frames(2):
            for kind, number, encoding, payload in frames:
                assert type(kind) is Kind
                assert type(payload) is bytes
                numbers = {"kind": int(kind), "name": kind.name, "number": number}
                yield {**numbers, "encoding": encoding, "payload": payload.hex()}


def wire_of(vector: dict[str, Any]) -> WireFormat:
    settings = vector["settings"]
    return WireFormat(settings["header_size"], settings["byteorder"], settings["max_packet"])


def check(vector: dict[str, Any], result: Found, frames: list[dict[str, Any]] | None = None) -> None:
    """Compare a result with a vector, and with other frames if they are given."""
    expected = vector["error"]
    assert result.frames == (vector["frames"] if frames is None else frames)
    assert result.error == (None if expected is None else (expected["code"], expected["number"]))
    assert result.version == vector.get("version", 23)


@pytest.mark.parametrize("vector", DECODE + DETECT, ids=name)
def test_a_stream_gives_its_frames_and_its_error(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["input"])
    whole = found(vector, stream)
    check(vector, whole)
    assert whole.rest == vector["rest"]


@pytest.mark.parametrize("vector", DECODE + DETECT, ids=name)
def test_a_stream_cut_in_two_anywhere_gives_the_same(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["input"])
    for cut in range(len(stream) + 1):
        result = found(vector, stream[:cut], stream[cut:])
        check(vector, result)
        assert result.rest == vector["rest"], cut


@pytest.mark.parametrize("vector", DECODE + DETECT, ids=name)
def test_an_error_is_raised_with_the_byte_that_decides_it(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["input"])
    result = found(vector, *(stream[index : index + 1] for index in range(len(stream))))
    check(vector, result)
    assert result.fed == (vector["error"] or {"after": len(stream)})["after"]


@pytest.mark.parametrize("vector", [each for each in DECODE + DETECT if each["error"]], ids=name)
def test_bytes_after_an_error_change_nothing(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["input"])[: vector["error"]["after"]]
    for behind in (b"\0" * 20, b"\xff" * 20, bytes.fromhex(DECODE[0]["input"])):
        result = found(vector, stream + behind)
        check(vector, result)
        assert result.rest == 0
        check(vector, found(vector, stream, behind))


@pytest.mark.parametrize("vector", [each for each in DECODE if not each["error"] and not each["rest"]], ids=name)
def test_a_packet_behind_the_last_one_is_a_frame_of_its_own(vector: dict[str, Any]) -> None:
    stream, ping = bytes.fromhex(vector["input"]), wire_of(vector).encode_numbered(Kind.PING, 77)
    more = [*vector["frames"], {"kind": 7, "name": "PING", "number": 77, "encoding": 0, "payload": ""}]
    check(vector, found(vector, stream + ping), more)
    cut = found(vector, stream + ping[:-1])
    check(vector, cut)
    assert cut.rest == len(ping) - 1


@pytest.mark.parametrize("vector", ENCODE, ids=name)
def test_a_packet_is_encoded_to_its_bytes_or_refused(vector: dict[str, Any]) -> None:
    wire, kind = WireFormat(vector["header_size"], vector["byteorder"]), Kind(vector["kind"])
    assert kind.name == vector["kind_name"]
    payload = bytes(vector["payload_size"])
    if vector["header"] is None:
        with pytest.raises(EncodeError):
            wire.encode_numbered(kind, vector["number"], vector["encoding"], payload)
    else:
        packet = wire.encode_numbered(kind, vector["number"], vector["encoding"], payload)
        assert packet == bytes.fromhex(vector["header"]) + payload


@pytest.mark.parametrize("vector", DECODE, ids=name)
def test_the_reference_decoder_agrees(vector: dict[str, Any]) -> None:
    settings = Settings(**vector["settings"], server=vector["receiver"] == "server")
    outcome = decode(bytes.fromhex(vector["input"]), settings)
    assert outcome.frames == [
        (each["kind"], each["number"], each["encoding"], bytes.fromhex(each["payload"])) for each in vector["frames"]
    ]
    error = vector["error"]
    assert outcome.error == (error and (error["code"], error["number"]))
    assert outcome.rest == vector["rest"]


@pytest.mark.parametrize("vector", DETECT, ids=name)
def test_the_reference_detection_agrees(vector: dict[str, Any]) -> None:
    version = first_version(bytes.fromhex(vector["input"]), Settings(**vector["settings"]))
    assert version == (vector["version"] or (vector["error"] or {"code": None})["code"])


def test_each_vector_has_a_name_of_its_own() -> None:
    for vectors in (DECODE, DETECT, ENCODE):
        names = [name(vector) for vector in vectors]
        assert len(set(names)) == len(names)


def test_the_description_of_the_vectors_has_each_of_their_keys() -> None:
    described = set(re.findall(r"`(\w+)`", (FOLDER / "README.md").read_text("utf-8")))
    for vector in DECODE + DETECT + ENCODE:
        inner = [vector.get("settings"), vector.get("error"), *vector.get("frames", [])]
        keys = {*vector, *(key for part in inner if part for key in part)}
        assert keys <= described, keys - described
