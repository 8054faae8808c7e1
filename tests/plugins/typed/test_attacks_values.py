"""No value of a packet is in an answer about wrong fields, whatever the type of the field is."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from pydantic import AnyUrl, BaseModel, ByteSize, Field, FilePath, ImportString, IPvAnyAddress, Json, create_model

from asyncapy import Server
from asyncapy_core.testing import serving
from asyncapy_typed.model_types import InvalidFields, ModelType
from asyncapy_typed.models import model_type


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class StructCat(msgspec.Struct, tag="cat"):
    pass


class StructDog(msgspec.Struct, tag="dog"):
    pass


OF_PYDANTIC: list[Any] = [
    Annotated[Cat | Dog, Field(discriminator="kind")],
    Annotated[str, Field(pattern="^a$")],
    *(Cat | Dog, Colour, Level, Literal["x"], dict[Colour, int], ZoneInfo, ByteSize, ImportString, uuid.UUID),
    *(
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
        Decimal,
        AnyUrl,
        FilePath,
        IPvAnyAddress,
        Json,
        bool,
        float,
        int,
    ),
]
OF_MSGSPEC: list[Any] = [
    *(StructCat | StructDog, Colour, Level, Literal["x"], Literal[1], dict[Colour, int], list[Colour], uuid.UUID),
    *(dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, bool, float, int),
    Annotated[str, msgspec.Meta(pattern="^a$")],
]
SECRETS: list[Any] = [
    "5 sEcReT - at `$.y`",
    "sEcReT\"'",
    "sEcReT",
    -7351846351,
    {"kind": "sEcReT", "type": "sEcReT"},
    ["sEcReT"],
]


def problems_of(kind: ModelType, value: Any) -> str:
    try:
        kind.read({"field": value})
    except InvalidFields as error:
        return "; ".join(reason for _, reason in error.problems)
    return ""


@pytest.mark.parametrize("kind", OF_PYDANTIC, ids=str)
@pytest.mark.parametrize("secret", SECRETS, ids=str)
def test_an_error_of_pydantic_has_no_value(kind: Any, secret: Any) -> None:
    model = model_type(create_model("Made", field=(kind, ...)))
    assert model is not None
    problems = problems_of(model, secret)
    assert "sEcReT" not in problems
    assert "735184635" not in problems


@pytest.mark.parametrize("kind", OF_MSGSPEC, ids=str)
@pytest.mark.parametrize("secret", SECRETS, ids=str)
def test_an_error_of_msgspec_has_no_value(kind: Any, secret: Any) -> None:
    model = model_type(msgspec.defstruct("Made", [("field", kind)]))
    assert model is not None
    problems = problems_of(model, secret)
    assert "sEcReT" not in problems
    assert "735184635" not in problems


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    number: uuid.UUID | None = None


class Coloured(msgspec.Struct):
    colours: list[Colour]
    pet: StructCat | StructDog | None = None


async def test_the_expected_values_are_named() -> None:
    server = Server(port=0)

    @server.operation("pets")
    async def pets(request: Pets) -> None: ...

    @server.operation("coloured")
    async def coloured(request: Coloured) -> None: ...

    async with serving(server) as running, running.client() as client:
        for fields, place, reason in (
            (
                {"op": "pets", "pet": {"kind": "fish"}},
                ["pet"],
                "Input tag found using 'kind' does not match any of: 'cat', 'dog'",
            ),
            ({"op": "pets", "pet": {"kind": "cat"}, "number": "x"}, ["number"], "Input should be a valid UUID"),
            ({"op": "coloured", "colours": ["red", "blue"]}, ["colours", 1], "Invalid enum value"),
            ({"op": "coloured", "colours": [], "pet": {"type": "fish"}}, ["pet", "type"], "Invalid value"),
        ):
            assert (await client.request(fields))["fields"] == [{"loc": place, "msg": reason}]
