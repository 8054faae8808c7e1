"""Models with bytes, and with values that packets have in another form."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from pydantic import Base64Bytes, Base64UrlBytes, BaseModel

from asyncapy import Server
from asyncapy.typed import Binary, Request
from asyncapy_core.testing import serving


class Kind(enum.Enum):
    SMALL = "small"


class Part(BaseModel):
    data: Binary
    kind: Kind = Kind.SMALL


class File(BaseModel):
    id: UUID = UUID(int=7)
    date: dt.date = dt.date(2026, 1, 2)
    parts: Sequence[Part] = ()
    by_number: dict[int, tuple[Binary, dt.date]] = {}
    data: Binary = b"\xff"
    names: frozenset[str] = frozenset({"a"})
    address: IPv4Address = IPv4Address("10.0.0.1")
    missing: Binary | None = None


class Copy(Request[File], op="copy"):
    file: File


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_a_model_may_have_bytes_and_dates(encoding: Any) -> None:
    server = Server(port=0)

    @server.operation(Copy)
    async def copy(request: Copy) -> File:
        return request.file

    file = File(parts=[Part(data=b"\xfe")], by_number={5: (b"\xfd", dt.date(2026, 1, 3))})
    async with serving(server) as running, running.client(version=23, encoding=encoding) as client:
        assert (await client.call(Copy(file=file))).model_dump() == file.model_dump()
        fields: Any = await client.request({"op": "copy", "file": {"parts": [{"data": "/w=="}]}})
    assert fields["parts"] == [{"data": b"\xff" if encoding == "ziproto" else "/w==", "kind": "small"}]
    assert fields["address"] == "10.0.0.1"
    assert fields["date"] == "2026-01-02"


def test_such_a_model_has_a_json_form() -> None:
    assert Part(data=b"\xff").model_dump_json() == '{"data":"/w==","kind":"small"}'


class Encoded(BaseModel):
    data: Binary
    text: Base64Bytes = b"eHk="
    more: Base64UrlBytes = b"_w=="


class Encode(Request[Encoded], op="encode"):
    value: Encoded | None = None
    text: Base64Bytes
    data: Binary = b"\xff"


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
async def test_other_types_of_bytes_have_their_own_text(encoding: Any) -> None:
    server = Server(port=0)
    value = Encoded(data=b"\xfe", text=b"eHk=", more=b"_w==")

    @server.operation(Encode)
    async def encode(request: Encode) -> Encoded:
        assert request == Encode(value=value, text=b"eA==")
        return value

    async with serving(server) as running, running.client(encoding=encoding) as client:
        assert await client.call(Encode(value=value, text=b"eA==")) == value
        fields = await client.request({"op": "encode", **Encode(value=value, text=b"eA==").__asyncapy_fields__()})
    assert fields == {"data": b"\xfe" if encoding == "ziproto" else "/g==", "text": "eHk=", "more": "_w=="}
