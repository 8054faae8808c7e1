"""Typed dictionaries as models, of typing_extensions too, which pydantic needs before Python 3.12."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from asyncapy import Server
from asyncapy_core.testing import serving


class Point(TypedDict, total=False):
    x: int


class Line(TypedDict):
    points: list[Point]


async def test_a_typed_dictionary_is_a_request_and_an_answer() -> None:
    server = Server(port=0)

    @server.operation("double")
    async def double(line: Line) -> Line:
        return {"points": line["points"] * 2}

    async with serving(server) as running, running.client(version=23) as client:
        fields: Any = await client.request({"op": "double", "points": [{"x": "1"}]})
        assert fields == {"points": [{"x": 1}, {"x": 1}]}
        wrong: Any = await client.request({"op": "double", "points": [{"x": "one"}]})
        assert wrong["error"] == "ERR_INVALID"
        assert wrong["fields"][0]["loc"] == ["points", 0, "x"]
