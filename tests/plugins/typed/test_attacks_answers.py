"""Answers to hostile packets can be sent: they are small, and have only values that can be encoded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from asyncapy import Client, Failure, Packet, Server
from asyncapy.errors import ErrorCode, InvalidFields
from asyncapy.typed import Request, invalid
from asyncapy_core.testing import serving

Nested = dict[str, dict[str, dict[str, dict[str, dict[str, int]]]]]


class Deep(Request[None], op="deep"):
    values: Nested = Field(default={})


@pytest.mark.parametrize("character", ["x", "\0", "\N{PILE OF POO}", "\\"])
@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_an_answer_about_long_names_has_room_in_the_shortest_header(encoding: str, character: str) -> None:
    server = Server(port=0, header_size=2)

    @server.operation(Deep)
    async def deep(request: Deep) -> None: ...

    fields: Any = {f"{number:02}{198 * character}": "x" for number in range(25)}
    for _ in range(4):
        fields = {200 * character: fields}
    async with serving(server) as running, running.client(encoding=encoding) as client:
        answer = await client.request({"op": "deep", "values": fields})
        assert answer["error"] == ErrorCode.INVALID
        assert len(answer["fields"][0]["loc"]) == 6
        assert answer["fields"][-1]["loc"] == []


def test_long_problems_are_counted_and_not_listed() -> None:
    problems: list[Any] = [(("x" * 150,), "y" * 150) for _ in range(30)]
    listed = invalid(*problems).fields["fields"]
    assert len(listed) == 14
    assert listed[-1] == {"loc": [], "msg": "17 more"}
    assert len(invalid(*problems[:13]).fields["fields"]) == 13
    longest: list[Any] = [(["x" * 500] * 20, "y" * 500)]
    assert len(invalid(*longest).fields["fields"]) == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([{"loc": ["a", 0, "b"], "msg": "Field required"}, {"loc": [], "msg": "x"}], "a.0.b: Field required"),
        ([{"loc": [], "msg": "too many"}], "too many"),
        ([{"loc": ["\n"], "msg": "\x1b[2J"}], r"\\n: \\x1b\[2J"),
        ([{"loc": [{"a": [None]}], "msg": "x"}], "{'a': .None.}: x"),
        ([], "the fields of the packet are wrong"),
        ([7], "the fields of the packet are wrong"),
        ({}, "the fields of the packet are wrong"),
        ([{"loc": "x", "msg": "y"}], "the fields of the packet are wrong"),
        ([{"loc": [], "msg": ""}], "the fields of the packet are wrong"),
        ([{"loc": [], "msg": 7}], "the fields of the packet are wrong"),
    ],
)
async def test_the_exception_of_a_client_names_the_first_wrong_field(fields: Any, text: str) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def refuse(client: Client, packet: Packet) -> None:
        raise Failure("ERR_INVALID", fields=fields)

    async with serving(server) as running, running.client() as client:
        with pytest.raises(InvalidFields, match=f"^ERR_INVALID: {text}$"):
            await client.call(Deep())
