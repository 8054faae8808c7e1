"""``asyncapy describe`` and ``asyncapy client`` as programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND

APP = '''
from pydantic import BaseModel

from asyncapy import Server
from asyncapy.typed import Request


class Book(BaseModel):
    id: int


class Read(Request[Book], op="books.read"):
    id: int


class Library(Server):
    async def setup(self):
        @self.operation("late")
        async def late(client, packet):
            """Come late."""


server = Library(addr="127.0.0.1", port=1500)
other = Server(port=1501)


@server.operation(Read)
async def read(request: Read) -> Book:
    raise AssertionError("no handler is called")


server.start()
'''
WRONG = """
from asyncapy import Server
from asyncapy.filters import Filter

server = Server()


class Odd(Filter):
    def check(self, c, p):
        return True

    def schema(self):
        return 1 / 0

    def __repr__(self):
        return "Odd()"


@server.operation("odd", Odd())
async def odd(client, packet):
    pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP, encoding="utf-8")
    (folder / "wrong.py").write_text(WRONG, encoding="utf-8")
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, timeout=60)


def described(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_program_is_described_without_running_its_server(tmp_path: Path) -> None:
    done = run(tmp_path, "describe", "app:server")
    document = described(done)
    assert document["info"] == {"title": "app", "version": "0.0.0"}
    assert document["servers"]["main"]["host"] == "127.0.0.1:1500"
    assert list(document["operations"]) == ["books.read"]
    assert done.stdout.startswith('{\n  "asyncapi": "3.0.0",\n')
    assert "the server's setup() may register handlers" in done.stderr


def test_the_handlers_of_a_setup_are_described_if_wanted(tmp_path: Path) -> None:
    done = run(tmp_path, "describe", "app.py", "--setup")
    assert list(described(done)["operations"]) == ["books.read", "late"]
    assert "--setup" not in done.stderr


def test_the_title_the_version_the_address_and_the_file_are_options(tmp_path: Path) -> None:
    options = ("--title", "Books", "--api-version", "1.2", "--host", "books.example.org:443", "--output", "books.json")
    done = run(tmp_path, "describe", "app.py:server", *options)
    assert (done.returncode, done.stdout) == (0, "")
    document = json.loads((tmp_path / "books.json").read_text("utf-8"))
    assert document["info"] == {"title": "Books", "version": "1.2"}
    assert document["servers"]["main"]["host"] == "books.example.org:443"


def test_code_for_clients_is_written(tmp_path: Path) -> None:
    done = run(tmp_path, "client", "app", "--language", "typescript")
    assert "export interface Read {" in done.stdout
    assert "The types of app 0.0.0." in done.stdout
    done = run(tmp_path, "client", "app", "--language", "python", "--setup", "-o", "api.py")
    assert (done.returncode, done.stdout) == (0, "")
    program = "import api; print(api.Read(id=1), api.LateRequest.__doc__)"
    used = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (used.stdout, used.stderr) == ("id=1 Come late.\n", "")


@pytest.mark.parametrize("command", [("describe", "--setup"), ("client", "--language", "python")])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("app:nothing", "there is no 'nothing' in app; servers in it: server, other"),
        ("missing", "no module is called 'missing' here"),
        ("wrong", "wrong cannot be described: schema() of the filter Odd() raised ZeroDivisionError"),
    ],
)
def test_a_server_that_cannot_be_described_is_one_line(
    tmp_path: Path, command: tuple[str, ...], target: str, message: str
) -> None:
    done = run(tmp_path, *command, target)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_language_and_a_missing_folder_are_errors(tmp_path: Path) -> None:
    done = run(tmp_path, "client", "app", "--language", "cobol")
    assert done.returncode == 2
    assert "'typescript', 'python'" in done.stderr
    done = run(tmp_path, "describe", "app", "--output", "missing/books.json")
    assert done.returncode == 74
    assert "missing/books.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_names_both_commands(tmp_path: Path) -> None:
    for command in ("describe", "client"):
        assert "module:server" in run(tmp_path, command, "--help").stdout
        assert f"  {command} " in run(tmp_path, "--help").stdout
