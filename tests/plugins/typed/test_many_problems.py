"""A packet with any number of wrong values has few errors, and a model accepts the same as without this bound."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypeAliasType, TypedDict

from asyncapy import Server
from asyncapy.typed import Request
from asyncapy_core.testing import serving
from asyncapy_typed.core_schemas import MAX_OTHERS
from asyncapy_typed.model_types import InvalidFields
from asyncapy_typed.pydantic_models import MANY, MAX_ERRORS, PydanticType, has_few_values


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int = 0


class Typed(TypedDict, total=False):
    n: int


@dataclasses.dataclass
class Plain:
    numbers: list[int]


class Inner(BaseModel):
    numbers: list[int] = []
    names: set[str] = set()
    pairs: tuple[int, ...] = ()
    by_name: dict[str, int] = {}
    strict: Strict | None = None
    typed: Typed | None = None


class Outer(BaseModel):
    inner: list[Inner] = []
    plain: Plain | None = None
    again: Outer | None = None
    either: list[int] | Strict | None = None


class Send(Request[None], op="send"):
    outer: Outer


WRONG: list[Any] = [
    {"inner": [{"numbers": ["x"] * 10_000}]},
    {"inner": [{"names": [1.5] * 10_000}]},
    {"inner": [{"pairs": ["x"] * 10_000}]},
    {"inner": [{"by_name": {str(number): "x" for number in range(10_000)}}]},
    {"inner": ["x"] * 10_000},
    {"plain": {"numbers": ["x"] * 10_000}},
    {"again": {"again": {"inner": ["x"] * 10_000}}},
    {"inner": [{"strict": {str(number): 1 for number in range(10_000)}}]},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: str(fields)[:30])
def test_the_number_of_errors_does_not_grow_with_the_packet(fields: Any) -> None:
    kind = PydanticType(Outer)
    with pytest.raises(ValidationError) as caught:
        kind.validate(fields)
    assert caught.value.error_count() <= 3
    assert len(kind.problems(caught.value, fields)) <= 3


def test_a_small_packet_has_all_its_problems_named() -> None:
    kind = PydanticType(Outer)
    fields = {"inner": [{"numbers": ["x"] * 5}], "either": ["x"] * 5}
    with pytest.raises(ValidationError) as caught:
        kind.validate(fields)
    assert len(kind.problems(caught.value, fields)) == 11


async def test_a_server_answers_a_large_wrong_packet_with_its_first_problem() -> None:
    server = Server(port=0)

    @server.operation(Send)
    async def send(request: Send) -> None: ...

    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "send", "outer": {"inner": [{"numbers": ["x"] * 100_000}]}})
        assert answer["fields"] == [
            {
                "loc": ["outer", "inner", 0, "numbers", 0],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
            }
        ]


@pytest.mark.parametrize("others", [1, MAX_OTHERS - 1, MAX_OTHERS, MAX_OTHERS + 1])
def test_other_fields_are_named_one_by_one_up_to_a_limit(others: int) -> None:
    with pytest.raises(ValidationError) as caught:
        PydanticType(Strict).validate({"n": 1, **{f"x{number}": 1 for number in range(others)}})
    assert caught.value.error_count() == (others if others <= MAX_OTHERS else 1)


@pytest.mark.parametrize(
    ("value", "few"),
    [
        ({}, True),
        ({"a": [0] * (MANY - 1)}, True),
        ({"a": [0] * MANY}, False),
        ([[[0] * (MANY // 2)], [[0] * (MANY // 2)]], False),
        ({"a": "x" * 10 * MANY}, True),
    ],
)
def test_values_at_any_depth_count(value: Any, few: bool) -> None:
    assert has_few_values(value) is few


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "x"])
FIELDS = st.sampled_from(["inner", "plain", "again", "either", "numbers", "names", "pairs", "by_name", "strict", "n"])
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(FIELDS, each, max_size=3))


@given(st.dictionaries(FIELDS, VALUES, max_size=4))
def test_the_same_is_accepted_with_the_same_result(fields: dict[str, Any]) -> None:
    def outcome(validate: Any) -> Any:
        try:
            return validate(fields)
        except ValidationError as error:
            return type(error)

    for kind in (Outer, Inner):
        assert outcome(PYDANTIC[kind].validate) == outcome(ADAPTERS[kind].validate_python)


PYDANTIC = {kind: PydanticType(kind) for kind in (Outer, Inner)}
ADAPTERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Outer, Inner)}


class Span(NamedTuple):
    first: int
    last: int = 0


class Defaults(BaseModel):
    span: Span = Span(1)
    schema_: dict[str, Any] = {"type": "list", "items_schema": {"type": "int"}}
    metadata: list[int] = []
    default: list[int] = []
    type: list[int] = []
    config: list[int] = []


def test_defaults_are_left_as_they_are_and_fields_may_have_any_name() -> None:
    found = PydanticType(Defaults)
    model = found.validate({})
    assert (model.span, type(model.span)) == (Span(1), Span)
    assert model.schema_ == {"type": "list", "items_schema": {"type": "int"}}
    for name in ("metadata", "default", "type", "config"):
        with pytest.raises(ValidationError) as raised:
            found.validate({name: ["a", "b"]})
        assert raised.value.error_count() == 1


class Metadata(BaseModel):
    metadata: bytes


class Described(BaseModel):
    schema_: dict[str, Any] = {"type": "bytes"}


def test_bytes_are_found_in_fields_of_any_name_and_not_in_defaults() -> None:
    with pytest.raises(TypeError, match="a field of Metadata is bytes"):
        PydanticType(Metadata)
    assert PydanticType(Described).validate({}).schema_ == {"type": "bytes"}


class Alternatives(BaseModel):
    values: list[int] | list[float] | list[bool] | tuple[int, ...] | set[int]


@pytest.mark.parametrize(
    ("count", "listed"),
    [(10, 50), (MAX_ERRORS // 5, MAX_ERRORS), (MAX_ERRORS // 5 + 1, 5), (MANY + 1, 5)],
)
def test_a_union_has_no_more_problems_than_are_worth_their_time(count: int, listed: int) -> None:
    with pytest.raises(InvalidFields) as caught:
        PydanticType(Alternatives).read({"values": ["x"] * count})
    assert len(caught.value.problems) == listed


ALTERNATIVES = {f"field{number}": Alternatives for number in range(150)}
Wide: Any = type("Wide", (BaseModel,), {"__annotations__": ALTERNATIVES})


def test_a_model_with_very_many_wrong_fields_has_one_problem() -> None:
    fields = {f"field{number}": {"values": ["x"]} for number in range(150)}
    with pytest.raises(InvalidFields) as caught:
        PydanticType(Wide).read(fields)
    assert caught.value.problems == [((), "It has 750 problems, too many to list any")]


Nested = TypeAliasType("Nested", "list[Nested] | int")


class Folder(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # it is no field
    inside: list[Folder]


class Recursive(BaseModel):
    numbers: Nested = 0
    folder: Folder | None = None


def test_a_union_and_a_typed_dictionary_may_contain_themselves() -> None:
    found = PydanticType(Recursive)
    model = found.validate({"numbers": [1, [2]], "folder": {"inside": [{"inside": []}]}})
    assert model.numbers == [1, [2]]
    with pytest.raises(ValidationError):
        found.validate({"folder": {"inside": [{"inside": [], "more": 1}]}})


class Closed(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # as pydantic documents it
    n: int


class Twice(BaseModel):
    first: Closed
    second: Closed


def test_a_type_that_is_used_twice_is_bounded_in_both_places() -> None:
    kind = PydanticType(Twice)
    assert kind.validate({"first": {"n": 1}, "second": {"n": 2}}).second == {"n": 2}
    others = {str(number): 1 for number in range(10_000)}
    with pytest.raises(ValidationError) as caught:
        kind.validate({"first": others, "second": others})
    assert caught.value.error_count() == 2
