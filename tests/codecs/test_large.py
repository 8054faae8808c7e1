from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_codecs.large import DENSE, FEW, LARGE, OWED
from asyncapy_core.errors import DecodeError

TEXT = b'{"text":"' + b"x" * LARGE + b'"}'
CONTAINERS = b'{"a":[' + b"[]," * (DENSE + 10_000) + b"[]]}"


class Node:
    """A reference cycle, which only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.collect()
    yield
    assert gc.isenabled()
    assert gc.get_freeze_count() < FEW


@pytest.mark.parametrize(("payload", "count"), [(TEXT, 3_000), (CONTAINERS, OWED + 2)], ids=["text", "containers"])
def test_garbage_does_not_stay_however_many_large_payloads_are_decoded(payload: bytes, count: int) -> None:
    codec = JsonCodec()
    alive: list[weakref.ref[Node]] = []
    for _ in range(count):
        alive.append(weakref.ref(Node()))
        codec.decode(payload)
    assert sum(node() is not None for node in alive) < count * 0.9


def test_a_dense_payload_is_not_looked_through_soon() -> None:
    fields = JsonCodec().decode(CONTAINERS)
    assert gc.get_count()[0] < DENSE
    assert len(fields["a"]) > DENSE


def test_objects_that_a_program_has_frozen_stay_so() -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        JsonCodec().decode(CONTAINERS)
        assert gc.get_freeze_count() > count / 2 > 0  # pytest may free a few objects meanwhile
    finally:
        gc.unfreeze()


def test_a_program_that_does_without_the_collector_is_left_alone() -> None:
    gc.disable()
    try:
        JsonCodec().decode(CONTAINERS)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("codec", [JsonCodec(), ZiProtoCodec()], ids=repr)
def test_a_large_payload_that_is_none_leaves_the_collector_on(codec: Any) -> None:
    with pytest.raises(DecodeError):
        codec.decode(b"\x81" + bytes(LARGE * 2))
    assert gc.isenabled()
