"""Unions of models that contain themselves: the work for a packet is bounded, whatever its depth is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

from asyncapy import Server
from asyncapy.typed import Request
from asyncapy_core.testing import serving
from asyncapy_typed.model_types import InvalidFields
from asyncapy_typed.pydantic_models import PydanticType
from asyncapy_typed.recursive_unions import MAX_UNIONS

validated: list[int] = []


class Add(BaseModel):
    n: int = 0
    inner: Add | Multiply | None = None
    others: list[Add | Multiply] = []

    @field_validator("n")
    @classmethod
    def _note(cls, n: int) -> int:
        validated.append(n)
        return n


class Multiply(BaseModel):
    n: int = 1
    inner: Add | Multiply | None = None

    _note = field_validator("n")(Add._note.__func__)  # type: ignore[attr-defined]


class Compute(Request[None], op="compute"):
    term: Add | Multiply
    more: list[Add | Multiply] = Field(default=[])


@pytest.fixture(autouse=True)
def _none_validated() -> None:
    validated.clear()


def nested(depth: int, innermost: Any = None) -> dict[str, Any]:
    term: dict[str, Any] = {"n": 1, "inner": innermost}
    for _ in range(depth):
        term = {"n": 1, "inner": term}
    return term


@pytest.mark.parametrize("innermost", [None, "wrong"])
async def test_a_packet_of_any_depth_costs_a_bounded_number_of_trials(innermost: Any) -> None:
    server = Server(port=0)

    @server.operation(Compute)
    async def compute(request: Compute) -> None: ...

    async with serving(server) as running, running.client() as client:
        for depth in (11, 12, 50):
            validated.clear()
            answer = await client.request({"op": "compute", "term": nested(depth, innermost)})
            assert answer["fields"] == [
                {"loc": [], "msg": "It is nested too deeply for a union of models without a discriminator"}
            ]
            assert len(validated) <= 2 * MAX_UNIONS
        assert await client.request({"op": "compute", "term": nested(5)}) == {"status": "success"}
        assert len((await client.request({"op": "compute", "term": nested(3, "wrong")}))["fields"]) == 20


def test_a_large_packet_of_little_depth_is_accepted() -> None:
    terms = [nested(1) for _ in range(3 * MAX_UNIONS)]
    assert len(PydanticType(Compute).read({"term": {}, "more": terms}).more) == len(terms)


def test_a_union_that_does_not_contain_itself_is_not_counted() -> None:
    class Leaf(BaseModel):
        n: int = 0

    class Other(BaseModel):
        m: int = 0

    class Many(BaseModel):
        first: Leaf | Other
        leaves: list[Leaf | Other]

    kind = PydanticType(Many)
    assert len(kind.read({"first": {}, "leaves": [{}] * 5 * MAX_UNIONS}).leaves) == 5 * MAX_UNIONS
    with pytest.raises(InvalidFields):
        kind.read({"first": {}, "leaves": [7]})
