"""`Filter.schema`: the JSON Schemas of packets that pass."""

from __future__ import annotations

from typing import Any

import pytest

from asyncapy import Client, Packet
from asyncapy.filters import Filter, Filters
from asyncapy.util import APIKeyFactory
from asyncapy_core.routing.router import Operation

KEYS = APIKeyFactory()
A: dict[str, Any] = {"properties": {"a": {}}, "required": ["a"]}
KEY = {"type": "string", "writeOnly": True, "description": "an API key"}


class Other(Filter):
    def check(self, c: Client, p: Packet) -> bool:
        return True


@pytest.mark.parametrize(
    ("filter", "schema"),
    [
        (Other(), None),
        (Filters.Ip("10.0.0.1"), None),
        (Operation("op", "read"), {"properties": {"op": {"const": "read"}}, "required": ["op"]}),
        (Filters.HasFields(a=None), A),
        (Filters.Fields(a=None), {**A, "additionalProperties": False}),
        (Filters.HasFields(a=r"x\.y"), {"properties": {"a": {"pattern": r"^x\.y"}}, "required": ["a"]}),
        (Filters.HasFields(a=r"xy\Z"), {"properties": {"a": {"const": "xy"}}, "required": ["a"]}),
        (Filters.HasFields(a=r"5\Z"), {"properties": {"a": {"description": r"matches 5\Z"}}, "required": ["a"]}),
        (Filters.HasFields(a=r"True\Z"), {"properties": {"a": {"description": r"matches True\Z"}}, "required": ["a"]}),
        (
            Filters.HasFields(a=r"\d+$"),
            {"properties": {"a": {"description": r"matches \d+$"}}, "required": ["a"]},
        ),
        (
            Filters.APIFactory(KEYS, "key", tell=True),
            {
                "properties": {"key": KEY},
                "required": ["key"],
                "x-errors": ["ERR_UNAVAILABLE", "ERR_UNAUTHORIZED"],
            },
        ),
        (
            Filters.APIFactory(KEYS, "key", once=True),
            {"properties": {"key": KEY}, "required": [], "x-errors": ["ERR_UNAVAILABLE"]},
        ),
        (Filters.HasFields(a=None) & Other(), {"allOf": [A]}),
        (Other() & Other(), None),
        (Filters.HasFields(a=None) | Filters.HasFields(a=None), {"anyOf": [A, A]}),
        (Filters.HasFields(a=None) | Other(), None),
        (~Filters.HasFields(a=None), {"not": A}),
        (~Other(), None),
    ],
)
def test_a_filter_describes_the_packets_that_pass(filter: Filter, schema: Any) -> None:
    assert filter.schema() == schema
