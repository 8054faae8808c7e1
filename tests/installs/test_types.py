"""mypy and pyright on the programs of users, with and without the stubs that ``asyncapy plugins stubs`` writes.

A line of a program with ``# complaint`` gets one complaint of each checker, and no other line gets any.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from installs.checkers import Message, mypy, pyright

import asyncapy

if TYPE_CHECKING:
    from installs.conftest import Environment, Install

RIGHT = '''
"""A server without a mistake."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

import trio
from pydantic import BaseModel

from asyncapy import Client, Packet, Server
from asyncapy.client import AsyncClient, Pool
from asyncapy.client import Client as SynchronousClient
from asyncapy.filters import Filter, Filters
from asyncapy.typed import Depends, Request, StreamRequest
from asyncapy_core import ServerConfig


class Service(Server):
    def setup(self) -> None:
        self.log.info("%g seconds by default, %g here", ServerConfig().timeout, self.config.timeout)

    async def shutdown(self) -> None:
        await super().shutdown()


def digest(text: str, rounds: int = 1000) -> str:
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"salt", rounds).hex()


loud: Filter = Filters.Shout("text") & ~Filters.Ip(["10.0.0.0/8"])
server = Service(port=1500, max_packet=100_000)
server.configure(handler_timeout=30, tls_cert=None)


@server.guard
def not_root(client: Client, packet: Packet) -> bool:
    return str(packet.get("user")) != "root"


@server.guard
async def not_bob(client: Client, packet: Packet) -> bool:
    await trio.lowlevel.checkpoint()
    return bool(packet.get("user") != "bob")


@server.add_handler(loud)
async def calm(client: Client, packet: Packet) -> None:
    await client.send({"calm": packet["text"]})


@server.add_handler(Filters.Shout("name"), group=1)
async def named(client: Client, packet: Packet) -> dict[str, str]:
    result = await server.run_sync_task(digest, "text", 10)
    await client.send({"digest": result, "short": await server.run_sync_task(digest, "text")})
    return {"digest": result}


@server.add_handler(Filters.HasFields(a=None), group=2)
async def count(client: Client, packet: Packet) -> None:
    client.log.info("%d", len(packet))


async def close(client: Client, packet: Packet) -> None:
    for session in client.get_sessions():
        await session.get_client().send(packet)
    await client.send("{}", close=True)


server.register_handler(close, Filters.Even("close"), group=3)


async def ask() -> None:
    async with Pool("localhost", 1500, size=2, tls=False, timeout=None) as pool:
        print((await pool.request({"text": "HELLO"}))["calm"])


class Book(BaseModel):
    id: int
    title: str


class Read(Request[Book], op="books.read"):
    id: int


class Remove(Request[None], op="books.remove"):
    id: int


class ListBooks(StreamRequest[Book], op="books.list"):
    prefix: str = ""


def shelf() -> dict[int, str]:
    return {7: "Walden"}


@server.operation(Read)
async def read(request: Read, books: Annotated[dict[int, str], Depends(shelf)]) -> Book:
    return Book(id=request.id, title=books[request.id])


@server.operation(ListBooks)
async def list_books(request: ListBooks) -> AsyncIterator[Book]:
    yield Book(id=7, title=request.prefix)


async def call(client: AsyncClient) -> str:
    book = await client.call(Read(id=7))
    await client.call(Remove(id=7), extra={"key": "..."})
    async for each in client.stream_call(ListBooks()):
        print(each.title)
    return book.title


def call_synchronously(client: SynchronousClient) -> list[str]:
    first = client.call(Read(id=7)).title
    with server.override(shelf, dict):
        return [first] + [each.title for each in client.stream_call(ListBooks(prefix="W"))]
'''

NOT_ROOT = "def not_root(client: Client, packet: Packet)"
MISTAKES = {
    "the name of a setting": (
        "server = Service(port=1500, max_packet=100_000)",
        "server = Service(port=1500, max_paket=100_000)  # complaint",
    ),
    "the type of a setting": (
        "server.configure(handler_timeout=30, tls_cert=None)",
        'server.configure(handler_timeout="30", tls_cert=None)  # complaint',
    ),
    "a guard that returns no bool": (
        f'@server.guard\n{NOT_ROOT} -> bool:\n    return str(packet.get("user")) != "root"',
        f'@server.guard  # complaint\n{NOT_ROOT} -> str:\n    return str(packet.get("user"))',
    ),
    "the type of an answer": ("    return book.title", "    return book  # complaint"),
    "the name of a field of an answer": ("print(each.title)", "print(each.titel)  # complaint"),
    "a class of requests that is streamed, in a call": (
        'await client.call(Remove(id=7), extra={"key": "..."})',
        'await client.call(ListBooks(), extra={"key": "..."})  # complaint',
    ),
    "the type of a field of a request": (
        "first = client.call(Read(id=7)).title",
        'first = client.call(Read(id="7")).title  # complaint',
    ),
    "a class without an operation": ("@server.operation(Read)", "@server.operation(Book)  # complaint"),
    "a handler that is not async": (
        "@server.add_handler(Filters.HasFields(a=None), group=2)\nasync def count(",
        "@server.add_handler(Filters.HasFields(a=None), group=2)  # complaint\ndef count(",
    ),
    "the name of a filter": (
        'server.register_handler(close, Filters.Even("close"), group=3)',
        'server.register_handler(close, Filters.Evn("close"), group=3)  # complaint',
    ),
    "an argument of a filter of a third party": (
        '@server.add_handler(Filters.Shout("name"), group=1)',
        "@server.add_handler(Filters.Shout(3), group=1)  # complaint",
    ),
    "an argument of a function that runs in a thread": (
        'result = await server.run_sync_task(digest, "text", 10)',
        'result = await server.run_sync_task(digest, "text", "10")  # complaint',
    ),
    "a packet that is a number": (
        'await client.send("{}", close=True)',
        "await client.send(5, close=True)  # complaint",
    ),
    "the name of a method": (
        "for session in client.get_sessions():",
        "for session in client.get_sesions():  # complaint",
    ),
}
"""Parts of the program, each with its wrong form."""

FILTERS = """
from typing import Any

from asyncapy import Server
from asyncapy.filters import Filters

server = Server()
even: Filters.Even = Filters.Even("n")
long: Filters.Long = Filters.Long("text", 10)
red: Filters.Red = Filters.Red(3)
between: Filters.Between = Filters.Between("n", low=1, high=2)
shout: Filters.Shout = Filters.Shout("text")
anything: Any = [Filters.Local(1, 2), Filters.Made(), Filters.Hidden(x=1)]
server.guard(Filters.Loose("text") | Filters.Loose("text", 3) | Filters.Conditional() & even & long)
server.guard(red & ~between & shout)
print(even.field, long.length, red.shade + between.low, shout.field)
Filters.Even(3)  # complaint
Filters.Long("text", "10")  # complaint
Filters.Red()  # complaint
Filters.Between("n", high="2")  # complaint
Filters.Shout(3)  # complaint
Filters.Shout("a", "b")  # complaint
Filters.Loose()  # complaint
Filters.Loose("text", 3, 4)  # complaint
Filters.Conditional(1)  # complaint
Filters.Ip(1)  # complaint
Filters.Nowhere()  # complaint
"""

IMPORTED = """
from asyncapy import Server
from typed_filters import Between

server = Server()
server.guard(Between("n", high=2))
Between("n", high="2")  # complaint
"""


def with_mistakes(program: str, *mistakes: str) -> str:
    """Return a program with these mistakes."""
    for mistake in mistakes:
        right, wrong = MISTAKES[mistake]
        assert program.count(right) == 1, mistake
        program = program.replace(right, wrong)
    return program


def names() -> str:
    """Return a program that reveals the type of each public name, imported in each way."""
    modules = sorted(path.stem for path in Path(asyncapy.__file__).parent.glob("*.py"))
    modules = [module for module in modules if module not in ("__init__", "filters")]
    lines = [f"import asyncapy.{module}" for module in modules]
    lines += [f"from asyncapy import {', '.join(modules)}"]
    lines += [f"reveal_type(asyncapy.{name})" for name in asyncapy.__all__]
    lines += [f"from asyncapy import {name} as from_{name}\nreveal_type(from_{name})" for name in asyncapy.__all__]
    for module in modules:
        for name in importlib.import_module(f"asyncapy.{module}").__all__:
            lines += [
                f"reveal_type(asyncapy.{module}.{name})",
                f"reveal_type({module}.{name})",
                f"from asyncapy.{module} import {name} as {module}_{name}",
                f"reveal_type({module}_{name})",
            ]
    return "\n".join([*lines, "from asyncapy.filters import Filter", "reveal_type(Filter)", ""])


PROGRAMS = {
    "right.py": RIGHT,
    "wrong.py": with_mistakes(RIGHT, *MISTAKES),
    "filters.py": FILTERS,
    "imported.py": IMPORTED,
    "names.py": names(),
}
CHECKERS = {"mypy": mypy, "pyright": pyright}
Check = Callable[..., list[Message]]


@pytest.fixture(scope="module")
def environment(install: Install) -> Environment:
    return install("asyncapy", "acme-filters", "typed-filters")


@pytest.fixture(scope="module")
def check(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Return ``check(checker, stubs=True)``: the messages about all programs, with stubs or without."""

    @functools.cache
    def folder(*, stubs: bool) -> Path:
        made = tmp_path_factory.mktemp("stubs" if stubs else "without")
        for name, text in PROGRAMS.items():
            (made / name).write_text(text, encoding="utf-8")
        if stubs:
            done = environment.execute("asyncapy", "plugins", "stubs", cwd=made)
            assert done.returncode == 0, done.stderr
        return made

    @functools.cache
    def messages(checker: str, *, stubs: bool = True) -> list[Message]:
        found: list[Message] = CHECKERS[checker](environment, folder(stubs=stubs))
        return found

    return messages


def complaints(messages: list[Message], program: str) -> list[Message]:
    return [message for message in messages if message.file == program and not message.revealed]


def marked(program: str) -> list[int]:
    """Return the numbers of the lines that get a complaint."""
    lines = PROGRAMS[program].splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("  # complaint")]


def test_there_are_fourteen_mistakes_and_the_programs_have_the_same_size() -> None:
    assert len(MISTAKES) == len(marked("wrong.py")) == 14
    assert len(PROGRAMS["right.py"].splitlines()) == len(PROGRAMS["wrong.py"].splitlines())


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_program_without_a_mistake_gets_no_complaint(check: Check, checker: str) -> None:
    assert complaints(check(checker), "right.py") == []


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_program_without_a_mistake_gets_no_complaint_without_stubs(check: Check, checker: str) -> None:
    assert complaints(check(checker, stubs=False), "right.py") == []


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_gets_one_complaint_at_its_line(check: Check, checker: str) -> None:
    found = complaints(check(checker), "wrong.py")
    assert [each.line for each in found] == marked("wrong.py"), found


@pytest.mark.parametrize("checker", CHECKERS)
def test_arguments_of_filters_of_third_parties_are_checked_with_stubs(check: Check, checker: str) -> None:
    found = complaints(check(checker), "filters.py")
    assert [each.line for each in found] == marked("filters.py"), found


@pytest.mark.parametrize("checker", CHECKERS)
def test_filters_of_third_parties_are_any_without_stubs(check: Check, checker: str) -> None:
    found = complaints(check(checker, stubs=False), "filters.py")
    text = PROGRAMS["filters.py"].splitlines()
    called = [text[each.line - 1] for each in found if "Filters." not in text[each.line - 1].partition("=")[0]]
    assert called == [], found


@pytest.mark.parametrize("stubs", [True, False])
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_filter_that_is_imported_from_its_package_needs_no_stubs(check: Check, checker: str, stubs: bool) -> None:
    found = complaints(check(checker, stubs=stubs), "imported.py")
    assert [each.line for each in found] == marked("imported.py"), found


@pytest.mark.parametrize("checker", CHECKERS)
def test_all_names_have_the_types_with_stubs_that_they_have_without(check: Check, checker: str) -> None:
    found = [each for each in check(checker) if each.file == "names.py"]
    assert len(found) == PROGRAMS["names.py"].count("reveal_type(")
    assert all(each.revealed for each in found)
    assert found == [each for each in check(checker, stubs=False) if each.file == "names.py"]


@pytest.mark.parametrize("checker", CHECKERS)
def test_no_checker_complains_of_the_stubs(check: Check, checker: str) -> None:
    assert [each for each in check(checker) if each.file.startswith("typings")] == []
