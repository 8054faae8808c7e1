"""Bounds on costly payloads that need no clock: memory, and the number of calls in Python."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest
from costs import CORPUS, FORMS

from asyncapy_core.errors import DecodeError
from asyncapy_core.protocol.codec import Codec

ITEMS = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())} | {
    "maps in maps": b"\x81\xa0\x81\xa0\x81\xa0\x80",
    "maps of null": b"\x81\xa0\xc0",
    "arrays of arrays": b"\x9f" + b"\x90" * 15,
    "short text": b'"\xf0\x9f\x98\x80"',
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize(("codec", "form"), FORMS, ids=["json", "ziproto"])
def test_a_decoded_payload_takes_at_most_100_times_its_bytes(
    codec: Codec, form: Callable[..., bytes], item: bytes
) -> None:
    payload = form(item, 100_000)
    tracemalloc.start()
    try:
        with suppress(DecodeError):
            codec.decode(payload)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(payload)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize(("codec", "form"), FORMS, ids=["json", "ziproto"])
def test_python_code_runs_less_than_once_for_each_byte(codec: Codec, form: Callable[..., bytes], item: bytes) -> None:
    payload = form(item, 100_000)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        with suppress(DecodeError):
            codec.decode(payload)
    finally:
        sys.setprofile(None)
    assert calls < len(payload)
