"""Models with fields of types that JSON Schema cannot express."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

from asyncapy import Server
from asyncapy_core.testing import serving
from asyncapy_typed.models import model_type


class Colour:
    """A class without a schema."""

    def __init__(self, name: str = "red") -> None:
        self.name = name


class Paint(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    colour: Annotated[Colour, PlainValidator(Colour), PlainSerializer(lambda colour: colour.name)]
    second: Any = Field(default_factory=Colour)
    third: Any = Colour()


class Painted(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour | None = None
    price: Decimal = Decimal(1)


@pytest.mark.parametrize("kind", [Paint, Painted])
@pytest.mark.parametrize("of_answer", [True, False])
def test_such_a_field_may_have_any_value_in_the_schema(kind: type, of_answer: bool) -> None:
    found = model_type(kind)
    assert found is not None
    schema, definitions = found.schema(of_answer=of_answer, reference="{model}")
    described = definitions[schema["$ref"]] if "$ref" in schema else schema
    assert not {"type", "$ref", "properties"} & described["properties"]["colour"].keys()


async def test_a_model_with_such_a_field_may_refuse_other_fields() -> None:
    server = Server(port=0)

    @server.operation("paint")
    async def paint(paint: Paint) -> None:
        assert paint.colour.name == "blue"

    async with serving(server) as running, running.client(version=23) as client:
        assert await client.request({"op": "paint", "colour": "blue"}) == {"status": "success"}
        wrong: Any = await client.request({"op": "paint", "colour": "blue", "size": 1})
        assert [field["loc"] for field in wrong["fields"]] == [["size"]]
