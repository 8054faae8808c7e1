from __future__ import annotations

import enum
import math
import subprocess
import sys
import textwrap
import uuid
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncapy_codecs import JsonCodec, ZiProtoCodec
from asyncapy_codecs.trees import MAX_DEPTH, find_fault, sendable
from asyncapy_core.errors import EncodeError

PLAIN: list[Any] = [
    None,
    True,
    1,
    -1,
    1.5,
    "text",
    b"bytes",
    bytearray(b"x"),
    [],
    {},
    (),
    [1, [2]],
    {"b": {"c": [1.5]}},
]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


def nested(depth: int, *, inner: Any = None, maps: bool = False) -> dict[str, Any]:
    """Return fields nested this deep; the outermost map counts."""
    value: Any = {} if maps else []
    if inner is not None:
        value = {"x": inner} if maps else [inner]
    for _ in range(depth - 2):
        value = {"x": value} if maps else [value]
    return {"a": value}


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_what_both_encodings_know_has_no_fault(value: Any) -> None:
    assert find_fault({"a": value}) is None
    assert find_fault({"a": [{"b": value}]}) is None


def test_no_fields_have_no_fault() -> None:
    assert find_fault({}) is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (math.nan, "a number is not finite"),
        (-math.inf, "a number is not finite"),
        pytest.param(object(), "a value is of type object", id="an object"),
        (Colour.RED, "a value is of type Colour"),
        ({1}, "a value is of type set"),
        ({1: 2}, "a key is of type int, and keys are strings"),
        ({b"a": 2}, "a key is of type bytes, and keys are strings"),
        ({None: 2}, "a key is of type NoneType, and keys are strings"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "place", [lambda value: value, lambda value: [value], lambda value: (1, value), lambda value: {"b": value}]
)
def test_a_fault_is_found_wherever_it_is(value: Any, fault: str, place: Any) -> None:
    assert find_fault({"a": 1, "b": place(value), "c": []}) == fault


def test_a_key_of_the_payload_itself_may_be_at_fault() -> None:
    assert find_fault({1: 2}) == "a key is of type int, and keys are strings"


@pytest.mark.parametrize("maps", [False, True])
def test_maps_and_arrays_are_nested_at_most_128_deep(maps: bool) -> None:
    assert MAX_DEPTH == 128
    assert find_fault(nested(128, maps=maps)) is None
    assert find_fault(nested(129, maps=maps)) == "it is nested more than 128 deep"
    assert find_fault(nested(128, inner=1, maps=maps)) is None
    assert find_fault(nested(128, inner=math.nan, maps=maps)) == "a number is not finite"


def test_plain_fields_are_sent_as_they_are() -> None:
    fields = {"a": [1, {"b": b"x"}]}
    assert sendable(fields) is fields


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (Name("spam"), "spam"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (OrderedDict(b=1), {"b": 1}),
        ({1: 2}, {"1": 2}),
        ({Colour.RED: 2}, {"red": 2}),
        ({Level.LOW: 2}, {"1": 2}),
        (frozenset({1}), [1]),
        ([b"x", {1}], [b"x", [1]]),
    ],
    ids=repr,
)
def test_other_fields_are_sent_in_their_usual_form(value: Any, sent: Any) -> None:
    plain = sendable({"a": value})
    assert plain == {"a": sent}
    assert find_fault(plain) is None


@pytest.mark.parametrize(
    "value",
    [object(), 1j, math.nan, [math.inf, {1}], {(1, 2): 3}, {None: 1}, nested(200), lambda: 1, ValueError("x")],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_an_encode_error(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"these fields cannot be sent: ."):
        sendable({"a": value})


@pytest.mark.parametrize("codec", [JsonCodec(), ZiProtoCodec()], ids=repr)
def test_any_mapping_may_be_encoded(codec: JsonCodec | ZiProtoCodec) -> None:
    assert codec.encode(MappingProxyType({"a": 1})) == codec.encode({"a": 1})


def test_objects_that_refer_to_each_other_twice_are_an_encode_error_and_not_the_end_of_the_server() -> None:
    program = """
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, 400 * 2**20))
    from asyncapy_codecs.trees import sendable
    from asyncapy_core.errors import EncodeError

    parent = {"children": []}
    parent["children"] = [{"parent": parent}, {"parent": parent}, {"parent": parent}]
    try:
        sendable(parent)
    except EncodeError as error:
        print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("refused: these fields cannot be sent"), done.stderr[-500:]


def expected_fault(value: Any, depth: int = 1) -> str | None:
    """Return the kind of the first fault: the rules of find_fault, one value at a time."""
    if depth > MAX_DEPTH:
        return "deep"
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            return "key"
        faults = [expected_fault(each, depth + 1) for each in value.values()]
    elif type(value) in (list, tuple):
        faults = [expected_fault(each, depth + 1) for each in value]
    elif type(value) is float:
        return None if math.isfinite(value) else "number"
    else:
        return None if type(value) in (type(None), bool, int, str, bytes) else "type"
    return next(filter(None, faults), None)


anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3) | st.just(1j),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 2), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=2), anything, max_size=4))
def test_a_fault_is_found_exactly_when_one_is_there(fields: dict[str, Any]) -> None:
    assert (find_fault(fields) is None) == (expected_fault(fields) is None)
