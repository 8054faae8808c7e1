"""Answers to hostile packets can be sent: they are small, and have only values that can be encoded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

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


def test_a_place_may_be_the_name_of_a_field() -> None:
    assert invalid(("id", "too small")).fields["fields"] == [{"loc": ["id"], "msg": "too small"}]


@pytest.mark.parametrize("problems", [(["id"], "too small"), ("id", "too small"), (("id",),), (("id", 7),), (7,)])
def test_a_problem_is_a_pair(problems: Any) -> None:
    with pytest.raises(TypeError, match=r"invalid takes pairs of a place and a reason, such as invalid\(\(\['id'\], "):
        invalid(*problems)


class Note(BaseModel):
    value: float = 0
    anything: Any = None


class Store(Request[Note], op="store"):
    value: float = 0
    anything: Any = None
    open: float = Field(default=0, allow_inf_nan=True)


class Settings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=True)
    value: float


async def test_a_float_of_a_model_is_finite_unless_its_settings_allow_others() -> None:
    server = Server(port=0)

    @server.operation(Store)
    async def store(request: Store) -> Note:
        return Note(value=request.value)

    @server.operation("settings")
    async def settings(request: Settings) -> None: ...

    async with serving(server) as running, running.client() as client:
        for text in ("NaN", "Infinity", "-inf", "1e999", "9" * 400):
            answer = await client.request({"op": "store", "value": text})
            assert answer["fields"] == [{"loc": ["value"], "msg": "Input should be a finite number"}]
            assert await client.request({"op": "store", "open": text}) == {"value": 0.0, "anything": None}
            assert await client.request({"op": "settings", "value": text}) == {"status": "success"}
        assert await client.request({"op": "store", "value": "1.5"}) == {"value": 1.5, "anything": None}


@pytest.mark.parametrize("value", [b"\xff", {"a": [b"\xff", 1, None]}, [b"\xff"]])
async def test_bytes_in_a_field_of_any_type_may_be_sent_back(value: Any) -> None:
    server = Server(port=0)

    @server.operation(Store)
    async def store(request: Store) -> Note:
        return Note(anything=request.anything)

    async with serving(server) as running, running.client(encoding="ziproto") as client:
        assert (await client.request({"op": "store", "anything": value}))["anything"] == value
        assert (await client.call(Store(anything=value))).anything == value
