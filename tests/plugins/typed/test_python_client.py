"""Python modules for clients: they pass mypy, need no server to be imported, and are sent to a real one."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from plugins.typed.described import key, server
from pydantic import Field, ValidationError, create_model

from asyncapy import Server
from asyncapy.errors import FailureReply
from asyncapy.filters import Filters
from asyncapy_core.testing import serving
from asyncapy_typed.describe import describe_server
from asyncapy_typed.python_client import python_client

CODE = python_client(describe_server(server, title='Books "quoted" \\ """\n', version="1"))


Import = Callable[[str, str], Any]
"""Imports a module from its text and under a name."""


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Modules that are imported for one test."""

    def load(code: str, name: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(code, encoding="utf-8")
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, module)  # pydantic looks there for the names in annotations
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The generated module."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "generated_api.py").write_text(CODE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("generated_api")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["generated_api"]


async def sent(request: Any) -> Any:
    async with serving(server) as running, running.client(version=23) as client:
        return await client.call(request, extra={"key": key})


async def test_a_request_is_sent_and_its_answer_is_a_model(api: Any) -> None:
    book = await sent(api.Read(id=7))
    assert type(book) is api.Book
    assert (book.id, book.title, book.data, book.class_) == (7, "none", b"\xff", "x")
    assert book.at == dt.timedelta(1)
    with pytest.raises(FailureReply, match="ERR_NOT_FOUND"):
        await sent(api.Read(id=1))


async def test_the_answers_of_a_stream_are_models(api: Any) -> None:
    async with serving(server) as running, running.client(version=23) as client:
        request = api.ListBooks(prefix="b")
        books = [book async for book in client.stream_call(request, extra={"key": key})]
    assert [type(book) for book in books] == [api.Book] * 3
    assert [book.title for book in books] == ["b0", "b1", "b2"]


async def test_models_in_requests_have_the_same_fields_under_legal_names(api: Any) -> None:
    sent_book = api.BookRequest(id=3, class_="c", odd_name_=4, under=5, json_="k", int_=6, data=b"\xfe", color="green")
    other = api.Book2(isbn="1")
    book = await sent(api.Add(book=sent_book, other=other, tree=api.TreeRequest(value=1)))
    assert (book.id, book.class_, book.odd_name_, book.under, book.json_, book.int_) == (3, "c", 4, 5, "k", 6)
    assert (book.data, book.color) == (b"\xfe", "green")
    nothing = api.Add(book=api.BookRequest(id=0), other=other, tree=api.TreeRequest(value=1))
    assert await sent(nothing) is None


async def test_requests_that_are_one_of_several_models(api: Any) -> None:
    dog = await sent(api.PetsAddDogRequest(tree=api.TreeRequest(value=1)))
    assert type(dog) is api.Dog
    cat = await sent(api.PetsAddCatRequest(friend=api.DogRequest(tree=api.TreeRequest(value=2))))
    assert cat.friend.tree.value == 2


async def test_requests_of_all_other_kinds(api: Any) -> None:
    assert (await sent(api.BoxRequest(item=3))).item.value == 3
    node = await sent(api.NodesRequest(a=1, b=[api.Node(a=2)], e=b"\xff"))
    assert (node.b[0].a, node.b[0].d, node.e) == (2, None, b"\xff")
    shape = await sent(api.ShapesRequest(points=[api.PointRequest(x=1)], unit="mm", scale=3))
    assert (shape.points[0].y, shape.label) == (0, None)
    extra = await sent(api.OtherRequest(isbn="1"))
    assert extra.model_extra == {"more": 1}
    assert await sent(api.OriginRequest(x=1)) is None
    assert await sent(api.OddName1XRequest()) == {"a": 1}
    assert await sent(api.EitherRequest2(b=1)) == {"a": 1}
    assert await sent(api.Find(text="x")) == {"found": "x"}
    assert await sent(api.StartRequest()) == {"started": True}


def test_secrets_are_no_fields_of_a_request(api: Any) -> None:
    assert list(api.Read.model_fields) == ["id"]
    assert list(api.StartRequest.model_fields) == []


def test_a_field_without_a_value_is_left_out(api: Any) -> None:
    fields = api.NodesRequest(a=1).__asyncapy_fields__()
    assert fields == {"op": "nodes", "a": 1, "b": [], "c": None, "f": 1}
    assert api.ListBooks().__asyncapy_fields__() == {"op": "books.list", "prefix": ""}


def test_values_of_other_types_are_refused(api: Any) -> None:
    with pytest.raises(ValidationError):
        api.Read(id="seven")
    with pytest.raises(ValidationError):
        api.PetsAddCatRequest(kind="dog")


def test_an_operation_without_a_name_in_its_packets_is_a_comment() -> None:
    assert "# nameless has no name in a field of its packets" in CODE


USER = """
from generated_api import Add, Book, ListBooks, Read, StartRequest
from asyncapy.client import AsyncClient


async def use(client: AsyncClient) -> int:
    book: Book = await client.call(Read(id=7))
    async for each in client.stream_call(ListBooks(prefix="a")):
        book = each
    await client.call(Read(id="7"))  # wrong
    wrong: str = book.id  # wrong
    StartRequest(more=1)  # wrong
    added = await client.call(Add.model_construct())
    added.id  # wrong
    return book.id
"""


def test_the_module_and_its_users_pass_mypy(tmp_path: Path) -> None:
    (tmp_path / "generated_api.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--output", "json", "--cache-dir", ".cache", "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    wrong = [number for number, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")]
    assert sorted((each["file"], each["line"]) for each in found if each["severity"] == "error") == [
        ("user.py", line) for line in wrong
    ], done.stdout


def test_the_module_is_imported_without_the_server_and_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "generated_api.py").write_text(CODE, encoding="utf-8")
    program = (
        "import sys, generated_api; print(sorted({'described', 'plugins', 'tests'} & sys.modules.keys())); "
        "print(generated_api.Read(id=1).id, generated_api.Book.model_fields['pair'].annotation is not None)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n1 True\n", "")


NAMES = [
    "class", "def", "None", "_private", "__dunder__", "1st", "a-b", "a b", "a_b", "é", "", "self", "cls",
    "model_config", "model_fields", "model_dump_it", "model_validate_it", "copy", "schema", "json", "dict", "list",
    "str", "int", "float", "bool", "datetime", "Any", "Literal", "Field", "BaseModel", "Request", "Fields", "validate",
    "construct", "x\\y", "quote'\"", "line\nbreak", "\u2028", "print", "object", "tuple", "type", "id", "op2", "values",
]  # fmt: skip


async def test_fields_of_any_name(imported: Import) -> None:
    fields: Any = {f"f{index}": (list[int] | None, Field(alias=name)) for index, name in enumerate(NAMES)}
    named: Any = create_model("Fields", **fields)
    described = Server()

    async def echo(fields: Any) -> Any:
        return fields

    echo.__annotations__ = {"fields": named, "return": named}
    described.operation("echo")(echo)
    api = imported(python_client(describe_server(described)), "names_api")
    attributes = list(api.EchoRequest.model_fields)
    assert len(attributes) == len(NAMES)
    request = api.EchoRequest(**{name: [index] for index, name in enumerate(attributes)})
    values = {name: [index] for index, name in enumerate(NAMES)}
    assert request.__asyncapy_fields__() == {"op": "echo", **values}
    async with serving(described) as running, running.client(version=23) as client:
        answer: Any = await client.call(request)
    assert answer.model_dump(by_alias=True) == values


@pytest.mark.parametrize("name", ["Any", "BaseModel", "Request", "list", "print", "class_", "datetime", "Literal"])
async def test_models_of_any_name(name: str, imported: Import) -> None:
    kind: Any = create_model(name, value=(int, 1))
    outer: Any = create_model("Outer", inner=(kind, ...), others=(list[kind], ...))
    described = Server()

    async def echo(fields: Any) -> Any:
        return fields

    echo.__annotations__ = {"fields": outer, "return": outer}
    described.operation("echo")(echo)
    api = imported(python_client(describe_server(described)), "models_api")
    request = api.EchoRequest(inner={"value": 2}, others=[{}])
    async with serving(described) as running, running.client(version=23) as client:
        answer: Any = await client.call(request)
    assert type(answer) is api.Outer
    assert answer.model_dump() == {"inner": {"value": 2}, "others": [{"value": 1}]}


async def test_a_handler_behind_filters_alone_has_a_request_of_the_text_in_its_field(imported: Import) -> None:
    described = Server()

    @described.add_handler(Filters.HasFields(**{"class": r"st\"art\Z", "speed": None}))
    async def start(client: Any, packet: Any) -> Any:
        return {"speed": packet["speed"]}

    api = imported(python_client(describe_server(described)), "start_api")
    async with serving(described) as running, running.client(version=23) as client:
        assert await client.call(api.StartRequest(speed=3)) == {"speed": 3}
