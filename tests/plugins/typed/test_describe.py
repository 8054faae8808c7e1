"""Descriptions of servers: valid schemas, and packets of real exchanges that they allow."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from plugins.typed.described import key, server
from pydantic import BaseModel, ConfigDict

from asyncapy import Client, Packet, Server
from asyncapy.filters import Filter, Filters
from asyncapy.typed import Request
from asyncapy_core.testing import serving
from asyncapy_typed.describe import describe_server

DOCUMENT = describe_server(server, title="Books", version="1.2")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def validator(payload: Any, document: dict[str, Any] = DOCUMENT) -> Any:
    """Return a validator for the payload of a message."""
    return Draft7Validator({"components": document["components"], "allOf": [payload]})


def payloads(name: str, document: dict[str, Any] = DOCUMENT) -> tuple[Any, Any, Any]:
    """Return the schemas of the request, the answer and the failures of an operation."""
    messages = document["channels"]["packets"]["messages"]
    operation = document["operations"][name]
    (request,) = operation["messages"]
    answer, *failures = operation["reply"]["messages"]
    return (
        messages[request["$ref"].rpartition("/")[2]]["payload"],
        messages[answer["$ref"].rpartition("/")[2]]["payload"],
        {"anyOf": [messages[each["$ref"].rpartition("/")[2]]["payload"] for each in failures]},
    )


def resolved(payload: Any, document: dict[str, Any] = DOCUMENT) -> Any:
    return document["components"]["schemas"][payload["$ref"].rpartition("/")[2]]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_schema_is_one_of_draft_7_and_every_reference_leads_to_something() -> None:
    messages = DOCUMENT["channels"]["packets"]["messages"]
    for schema in [*SCHEMAS.values(), *(message["payload"] for message in messages.values())]:
        Draft7Validator.check_schema(schema)
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert isinstance(found, dict)
    json.dumps(DOCUMENT, allow_nan=False)


def test_each_handler_is_an_operation() -> None:
    assert list(DOCUMENT["operations"]) == [
        "books.read", "books.list", "books.add", "pets.add", "box", "nodes", "shapes", "other", "origin",
        "odd_name_1_x", "either", "find", "start", "nameless",
    ]  # fmt: skip
    named = {each["title"]: each.get("x-asyncapy-operation") for each in DOCUMENT["operations"].values()}
    assert named["odd/name ~1 {x}"] == {"field": "op", "name": "odd/name ~1 {x}"}
    assert named["find"] == {"field": "call", "name": "find"}
    assert named["start"] is None


BOOK = {"id": 7, "size": [2, "b"], "tags": ["a"], "at": "2026-01-02", "level": 2, "nested": [1, [2]], "odd-name \"'": 1}
EXCHANGES: list[tuple[str, dict[str, Any]]] = [
    ("books.read", {"op": "books.read", "id": 7}),
    ("books.list", {"op": "books.list"}),
    ("books.add", {"op": "books.add", "book": BOOK, "other": {"isbn": "1"}, "tree": {"value": 1}}),
    ("books.add", {"op": "books.add", "book": {"id": 0}, "other": {"isbn": "1"}, "tree": {"value": 1}}),
    ("pets.add", {"op": "pets.add", "kind": "cat", "friend": {"kind": "dog", "tree": {"value": 1}}}),
    ("pets.add", {"op": "pets.add", "kind": "dog", "tree": {"value": 1, "children": [{"value": 2}]}}),
    ("box", {"op": "box", "item": 3}),
    ("nodes", {"op": "nodes", "a": 1, "b": [{"a": 2, "c": [1, "x"]}], "e": "/w=="}),
    ("shapes", {"op": "shapes", "points": [{"x": 1}], "unit": "mm", "scale": 12}),
    ("other", {"op": "other", "isbn": "1"}),
    ("origin", {"op": "origin", "x": 1}),
    ("odd_name_1_x", {"op": "odd/name ~1 {x}"}),
    ("either", {"op": "either", "b": 1}),
    ("find", {"call": "find", "text": "x"}),
    ("start", {"command": "start"}),
]


@pytest.mark.parametrize(("name", "fields"), EXCHANGES)
async def test_a_request_and_its_answer_have_the_schemas_of_the_operation(name: str, fields: dict[str, Any]) -> None:
    request, answer, _ = payloads(name)
    fields = {**fields, "key": key}
    validator(request).validate(fields)
    assert not validator(request).is_valid({**fields, "key": 1})
    async with serving(server) as running, running.client(version=23) as client:
        parts = [part async for part in client.stream(fields)]
    assert parts
    for part in parts:
        validator(answer).validate(part)


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("books.read", {"op": "books.read", "id": 1}, "ERR_NOT_FOUND"),
        ("books.read", {"op": "books.read", "id": "one"}, "ERR_INVALID"),
        ("books.read", {"op": "books.read", "id": 7, "key": ""}, "ERR_UNAUTHORIZED"),
        ("pets.add", {"op": "pets.add", "kind": "dog", "tree": {"value": 1}, "more": 1}, "ERR_INVALID"),
        ("pets.add", {"op": "pets.add", "kind": "cow"}, "ERR_INVALID"),
        ("nodes", {"op": "nodes", "a": 1, "f": 0}, "ERR_INVALID"),
        ("shapes", {"op": "shapes", "points": [{"y": 1}], "unit": "mm", "scale": 1}, "ERR_INVALID"),
        ("shapes", {"op": "shapes", "points": [], "unit": "inch", "scale": 1}, "ERR_NO_HANDLER"),
        ("origin", {"op": "origin", "y": 1}, "ERR_INVALID"),
        ("origin", {"op": "origin", "x": 0}, "ERR_HANDLER_FAILED"),
        ("either", {"op": "either", "a": 1, "c": 1}, "ERR_NO_HANDLER"),
    ],
)
async def test_a_failure_has_the_schema_of_the_failures(name: str, fields: dict[str, Any], code: str) -> None:
    request, answer, failures = payloads(name)
    sent = {"key": key, **fields}
    is_wrong = code not in {"ERR_NOT_FOUND", "ERR_HANDLER_FAILED", "ERR_UNAUTHORIZED"}
    assert validator(request).is_valid(sent) is not is_wrong
    async with serving(server) as running, running.client(version=23) as client:
        reply: Any = await client.request(sent)
    assert reply["error"] == code
    validator(failures).validate(reply)
    if name == "books.read":
        assert not validator(answer).is_valid(reply)
        assert not validator(failures).is_valid({**reply, "error": "ERR_OTHER"})


def test_the_codes_are_those_of_the_model_the_filters_and_the_class() -> None:
    messages = DOCUMENT["channels"]["packets"]["messages"]
    codes = resolved(messages["books.read.failure"]["payload"])["properties"]["error"]["enum"]
    assert codes == ["ERR_INVALID", "ERR_UNAVAILABLE", "ERR_UNAUTHORIZED", "ERR_NOT_FOUND"]
    added = resolved(messages["books.add.failure"]["payload"])["properties"]
    assert "ERR_RATE_LIMITED" in added["error"]["enum"]
    assert added["retry_after"]["type"] == "number"
    unknown = resolved(messages["either.failure"]["payload"])["properties"]
    assert "enum" not in unknown["error"]
    assert "fields" not in unknown


def test_a_key_is_a_security_scheme_that_names_its_field() -> None:
    (scheme,) = DOCUMENT["components"]["securitySchemes"].values()
    assert scheme["type"] == "apiKey"
    assert scheme["x-asyncapy-field"] == "key"
    for operation in DOCUMENT["operations"].values():
        assert operation["security"] == [{"$ref": "#/components/securitySchemes/key"}]
    assert SCHEMAS["Read"]["properties"]["key"]["writeOnly"] is True


def test_summaries_are_those_of_docstrings_and_streams_are_marked() -> None:
    operations = DOCUMENT["operations"]
    assert operations["books.read"]["summary"] == "Return a book."
    assert operations["books.read"]["description"] == "If there is one of this id."
    assert "x-asyncapy-stream" not in operations["books.read"]
    assert operations["books.list"]["x-asyncapy-stream"] is True
    assert "any number of answers" in operations["books.list"]["description"]


def test_a_request_without_a_docstring_of_its_handler_has_that_of_its_class() -> None:
    described = Server()

    class Ping(Request[None], op="ping"):
        """Do nothing."""

    @described.operation(Ping)
    async def ping(request: Ping) -> None:
        pass

    operation = describe_server(described)["operations"]["ping"]
    assert operation["summary"] == "Do nothing."
    assert "security" not in operation


def test_two_classes_of_one_name_have_two_names() -> None:
    assert SCHEMAS["Book"]["properties"].keys() == SCHEMAS["BookRequest"]["properties"].keys()
    assert "title" in SCHEMAS["Book"]["required"]
    assert "title" not in SCHEMAS["BookRequest"]["required"]
    assert list(SCHEMAS["Book2"]["properties"]) == ["isbn"]


def test_a_model_that_is_requested_and_answered_alike_has_one_name() -> None:
    described = Server()

    class Name(BaseModel):
        name: str

    class Rename(Request[Name], op="rename"):
        old: Name
        new: Name

    @described.operation(Rename)
    async def rename(request: Rename) -> Name:
        return request.new

    @described.operation("other")
    async def other(name: Name) -> Name:
        return name

    schemas = describe_server(described)["components"]["schemas"]
    assert [name for name in schemas if "Failure" not in name] == ["Name", "Rename", "OtherRequest"]


def test_a_model_that_refuses_other_fields_does_not_refuse_those_of_filters() -> None:
    described = Server()

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

        a: int

    @described.operation("strict", Filters.HasFields(b=None))
    async def strict(model: Strict) -> None:
        pass

    document = describe_server(described)
    request, _, _ = payloads("strict", document)
    check = validator(request, document)
    check.validate({"op": "strict", "a": 1, "b": 1})
    assert not check.is_valid({"op": "strict", "a": 1, "b": 1, "c": 1})
    assert not check.is_valid({"op": "strict", "a": 1})
    assert not check.is_valid({"a": 1, "b": 1})


def test_several_handlers_of_one_operation_have_names_of_their_own() -> None:
    described = Server()
    for name in ("a", "b"):

        @described.operation("same", Filters.HasFields(**{name: None}))
        async def handler(client: Client, packet: Packet) -> None:
            pass

    document = describe_server(described)
    assert list(document["operations"]) == ["same", "same_2"]
    assert validator(payloads("same_2", document)[0], document).is_valid({"op": "same", "b": 1})


@pytest.mark.parametrize(
    ("addr", "hosts"),
    [
        ("127.0.0.1", ["127.0.0.1:1500"]),
        ("0.0.0.0", ["localhost:1500"]),
        ("::, 0.0.0.0", ["localhost:1500"]),
        ("::1, example.org", ["[::1]:1500", "example.org:1500"]),
        ("unix:/run/books.sock", ["unix:/run/books.sock"]),
    ],
)
def test_the_servers_have_the_addresses_of_the_settings(addr: str, hosts: list[str]) -> None:
    described = Server(addr=addr, port=1500, header_size=2)
    servers = describe_server(described)["servers"]
    assert [each["host"] for each in servers.values()] == hosts
    for each in servers.values():
        assert (each["protocol"], each["protocolVersion"]) == ("asyncaproto", "23")
        assert each["x-asyncapy"]["header_size"] == 2
    (only,) = describe_server(described, host="books.example.org:443")["servers"].values()
    assert only["host"] == "books.example.org:443"


def test_title_and_version_are_given() -> None:
    assert DOCUMENT["info"] == {"title": "Books", "version": "1.2"}
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert describe_server(Server())["operations"] == {}


def test_a_description_is_the_same_in_each_process() -> None:
    program = (
        "import json; from plugins.typed.described import server; from asyncapy_typed.describe import describe_server; "
        "print(json.dumps(describe_server(server, title='Books', version='1.2')))"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed}, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == json.dumps(DOCUMENT).replace("tests.plugins", "plugins")


class Faulty(Filter):
    def __init__(self, result: Any) -> None:
        self._result = result

    def check(self, c: Client, p: Packet) -> bool:
        return True

    def schema(self) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def __repr__(self) -> str:
        return "Faulty()"


@pytest.mark.parametrize("result", [ValueError("no"), [], "text"])
def test_a_filter_with_a_wrong_schema_is_named(result: Any) -> None:
    described = Server()

    @described.add_handler(Faulty(result))
    async def handler(client: Client, packet: Packet) -> None:
        pass

    with pytest.raises(TypeError, match=r"schema\(\) of the filter Faulty\(\)"):
        describe_server(described)


def test_a_model_without_a_schema_is_named() -> None:
    described = Server()

    class Odd(BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
            raise RuntimeError("none")

    @described.operation("odd")
    async def odd(model: Odd) -> None:
        pass

    with pytest.raises(TypeError, match=r"no JSON Schema of Odd: RuntimeError"):
        describe_server(described)
