"""TypeScript for clients: its text. `make web` compiles it."""

from __future__ import annotations

from typing import Any

import pytest
from plugins.typed.described import server
from pydantic import create_model

from asyncapy import Client, Packet, Server
from asyncapy_typed.describe import describe_server
from asyncapy_typed.typescript import comment, property_name, typescript

CODE = typescript(describe_server(server, title="Books\n*/", version="1"))


def declared(name: str, code: str = CODE) -> list[str]:
    """Return the lines of an interface."""
    _, _, rest = code.partition(f"export interface {name} {{\n")
    return [
        line.strip() for line in rest.partition("\n}\n")[0].splitlines() if not line.strip().startswith(("/*", "*"))
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Book", "title: string;"),
        ("Book", "authors: Author[];"),
        ("Book", "color: Color;"),
        ("Book", "level: Level | null;"),
        ("Book", "size: [number, string];"),
        ("Book", "more: number[];"),
        ("Book", "counts: Record<string, number>;"),
        ("Book", "class: string;"),
        ("Book", '"odd-name \\"\'": number;'),
        ("Book", "_under: number;"),
        ("Book", "anything: unknown;"),
        ("Book", 'kind: "book" | 1 | true | null;'),
        ("Book", "weights: ((number | null)[] | null)[];"),
        ("Book", "nothing: null;"),
        ("BookRequest", "title?: string;"),
        ("Read", 'op: "books.read";'),
        ("Read", "id: number;"),
        ("Read", "key: string;"),
        ("Node", "c?: [number, string] | null;"),
        ("ShapesRequest", 'unit: "mm";'),
        ("Extra", "[key: string]: unknown;"),
        ("Find", 'call: "find";'),
        ("BooksReadFailure", 'error: "ERR_INVALID" | "ERR_UNAVAILABLE" | "ERR_UNAUTHORIZED" | "ERR_NOT_FOUND";'),
    ],
)
def test_a_property_has_the_type_of_its_schema(name: str, line: str) -> None:
    assert line in declared(name)


@pytest.mark.parametrize(
    "declaration",
    [
        'export type Color = "red" | "green";',
        "export type Level = 1 | 2;",
        "export type Pair = [number, string?];",
        "export type Nested = Nested[] | number;",
        "export type JsonValue = unknown;",
        "export type Words = string[];",
    ],
)
def test_a_schema_that_is_no_object_is_a_type(declaration: str) -> None:
    assert f"\n{declaration}\n" in CODE


def test_operations_map_names_to_the_types_of_their_packets() -> None:
    operations = "\n".join(declared("Operations"))
    assert "request: PetsAddCatRequest | PetsAddDogRequest;\nanswer: Cat | Dog | Success;" in operations
    assert '"odd/name ~1 {x}": {' in operations
    assert (
        "request: ListBooks;\nanswer: Book;\nfailure: BooksListFailure | ServerFailure;\nstreams: true;" in operations
    )


def test_two_operations_of_one_name_have_two_entries() -> None:
    described = Server()
    for _ in range(2):

        @described.operation("same")
        async def handler(client: Client, packet: Packet) -> None:
            pass

    operations = declared("Operations", typescript(describe_server(described)))
    assert [line for line in operations if line.endswith("{")] == ["same: {", "same_2: {"]


def test_comments_are_those_of_docstrings_and_end_where_they_should() -> None:
    assert CODE.startswith("// The types of Books */ 1. Written by")
    assert '/**\n * A book.\n *\n * It has "quotes"' in CODE
    assert comment("an end */ and\nmore", "  ") == "  /**\n   * an end *\\/ and\n   * more\n   */\n"
    assert comment("", "  ") == ""
    assert comment("one", "") == "/** one */\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [("a", "a"), ("class", "class"), ("a-b", '"a-b"'), ("1a", '"1a"'), ("", '""'), ('"', '"\\""'), ("é", '"\\u00e9"')],
)
def test_a_name_that_is_no_identifier_is_quoted(name: str, written: str) -> None:
    assert property_name(name) == written


@pytest.mark.parametrize("name", ["any", "string", "Record", "Operations", "class", "Array"])
def test_a_reserved_name_of_a_model_is_changed(name: str) -> None:
    inner: Any = create_model(name, value=(int, 1))
    described = Server()

    async def echo(fields: Any) -> None:
        pass

    echo.__annotations__ = {"fields": create_model("Outer", inner=(inner, ...)), "return": None}
    described.operation("echo")(echo)
    code = typescript(describe_server(described))
    assert f"export interface {name}_ {{" in code
    assert f"  inner: {name}_;" in code
