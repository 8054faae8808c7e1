"""Strict models: they take the form that a packet has for a type, and convert nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import pathlib
import uuid
from decimal import Decimal
from typing import Any

import pytest
from pydantic import AnyUrl, Base64Bytes, BaseModel, ConfigDict, Field, SecretStr

from asyncapy import Server
from asyncapy.typed import Binary, Request
from asyncapy_core.testing import serving


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Part(BaseModel):
    model_config = ConfigDict(strict=True)
    id: uuid.UUID


class Order(Request[Part], op="order", strict=True):
    id: uuid.UUID
    at: dt.datetime
    day: dt.date
    during: dt.timedelta
    price: Decimal
    colour: Colour
    tags: set[str]
    pair: tuple[int, str]
    point: Point
    part: Part = Field(strict=True)
    address: ipaddress.IPv4Address
    path: pathlib.Path
    url: AnyUrl
    password: SecretStr
    data: Binary
    text: Base64Bytes
    count: int = 1
    ratio: float = 1.5
    name: str = "x"


class OneStrictField(Request[Part], op="one"):
    id: uuid.UUID = Field(strict=True)


def order() -> Order:
    return Order(
        id=uuid.uuid4(),
        at=dt.datetime.now(dt.UTC),
        day=dt.date(2026, 1, 31),
        during=dt.timedelta(minutes=5),
        price=Decimal("1.50"),
        colour=Colour.RED,
        tags={"a"},
        pair=(1, "x"),
        point=Point(1),
        part=Part(id=uuid.uuid4()),
        address=ipaddress.IPv4Address("192.0.2.7"),
        path=pathlib.Path("/tmp"),
        url=AnyUrl("https://example.org/"),
        password=SecretStr("secret"),
        data=b"\xff",
        text=b"eA==",
    )


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_a_strict_request_is_called(encoding: str) -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.operation(Order)
    async def take(request: Order) -> Part:
        seen.append(request)
        return Part(id=request.id)

    @server.operation(OneStrictField)
    async def one(request: OneStrictField) -> Part:
        return Part(id=request.id)

    sent = order()
    async with serving(server) as running, running.client(encoding=encoding) as client:
        assert await client.call(sent) == Part(id=sent.id)
        assert await client.call(OneStrictField(id=sent.id)) == Part(id=sent.id)
        assert seen == [sent]
        fields = {"op": "order", **sent.__asyncapy_fields__()}
        for name, value in (("count", "1"), ("count", True), ("ratio", "1.5"), ("name", b"x"), ("colour", "blue")):
            if encoding == "ziproto" or not isinstance(value, bytes):
                answer = await client.request({**fields, name: value})
                assert [each["loc"] for each in answer["fields"]] == [[name]]
        answer = await client.request({**fields, "point": {"x": "1"}})
        assert answer["fields"][0]["loc"] == ["point", "x"]
