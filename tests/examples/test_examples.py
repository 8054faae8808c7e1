"""The examples and the programs of the README, run unchanged except for ports."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
from conftest import Certificates
from redis_server import SERVERS, RedisServer

from asyncapy.client import Client
from asyncapy.util import APIKeyFactory
from asyncapy_core import Filter, PluginManager
from asyncapy_core.testing import Detached

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(*arguments: str | Path) -> Iterator[Client]:
    """Run Python with a server program that listens on a free port, and connect a client to it."""
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            found = next(
                (found for line in lines if (found := re.search(r"Serving on 127\.0\.0\.1:(\d+)", line))), None
            )
            assert found, "the server has not started"
            with Client(tls=False, timeout=10) as client:
                client.connect("127.0.0.1", int(found[1]))
                yield client
        finally:
            process.terminate()
        assert process.wait(10) == 0


def readme_program(part: str) -> str:
    """The only program of the README that has this text."""
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (program,) = (program for program in programs if part in program)
    return str(program)


def ask(client: Client, **fields: object) -> dict[str, object]:
    client.send(fields)
    return client.receive()


def test_the_demo_shows_each_exchange_and_succeeds() -> None:
    done = subprocess.run([sys.executable, ROOT / "examples/demo.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '-> {"foo": 12355, "bar": "anything"}' in done.stdout
    assert "ERR_HEADER_INVALID" in done.stdout
    inventory = done.stdout.partition("Starting inventory/app.py")[2]
    for shown in (
        "json on the wire\n  -> AddItem(name='hammer', count=3)\n  <- Item(id=1, name='hammer', count=3, ",
        "ziproto on the wire\n  -> AddItem(name='nail', count=500)\n  <- Item(id=2, name='nail', count=500, ",
        '<- {"status": "failure", "error": "ERR_INVALID", "fields": [{"loc": ["name"], "msg": ',
        "-> ListItems(prefix='')\n  <- Item(id=1, name='hammer', count=3, owner='alice')\n  <- Item(id=2, name='nail'",
    ):
        assert shown in inventory, shown
    assert "WRONG" not in done.stdout


@pytest.mark.parametrize(
    ("server", "talk", "output"),
    [
        ("async def echo", "client.receive()", "{'test': 1}\n"),
        ("async def count", "client.events()", "{'number': 0}\n{'number': 1}\n{'news': 'rain'}\n"),
    ],
)
def test_a_server_of_the_readme_talks_to_its_client(tmp_path: Path, server: str, talk: str, output: str) -> None:
    program = tmp_path / "server.py"
    program.write_text(readme_program(server).replace("port=1500", "port=0"))
    with serving(program) as client:
        assert client._socket is not None
        port = client._socket.getpeername()[1]
        code = readme_program(talk).replace("1500", str(port))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == (output, "")


def test_the_readme_begins_with_a_server_and_a_call_with_models(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    server, caller = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    assert len([line for line in server.splitlines() if line]) <= 12
    (tmp_path / "inventory.py").write_text(server)
    with serving("-m", "asyncapy_cli", "serve", str(tmp_path / "inventory.py"), "--port", "0") as client:
        assert client._socket is not None
        port = client._socket.getpeername()[1]
        code = caller.replace("1500", str(port))
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        answer = ask(client, op="items.read", id="x")
    assert (done.stdout, done.stderr) == ("hammer 7\n", "")
    assert answer["error"] == "ERR_INVALID"
    assert [field["loc"] for field in cast("list[dict[str, object]]", answer["fields"])] == [["id"]]


def test_the_service_with_models_of_the_readme_is_used_by_its_client(tmp_path: Path) -> None:
    (tmp_path / "notes_models.py").write_text(readme_program("class ReadNote"))
    (tmp_path / "service.py").write_text(readme_program("def open_notes").replace("port=1500", "port=0"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "service.py"], cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        key = process.stdout.readline().strip()
        found = None
        while found is None:
            found = re.search(r"Serving on 127\.0\.0\.1:(\d+)", process.stderr.readline())
        code = readme_program("ListNotes(), extra").replace("1500", found[1])
        client = [sys.executable, "-c", code, key]
        done = subprocess.run(client, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        process.terminate()
        process.communicate(timeout=10)
    assert (done.stdout, done.stderr) == ("buy milk\nERR_NOT_FOUND {'detail': 'there is no such note'}\n", "")


@pytest.fixture(params=["sqlite", *SERVERS])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'keys.db'}"
        return
    with RedisServer(request.param, tmp_path) as server:
        yield server.url


@pytest.mark.parametrize("program", ["README", "keys_server.py"])
def test_one_program_keeps_its_keys_where_the_url_says(program: str, store_url: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / program
    if program == "README":
        path = tmp_path / "members.py"
        path.write_text(readme_program("members_only").replace("port=1500", "port=0"))
    with closing(APIKeyFactory(store=store_url)) as keys:
        key = keys.issue({"owner": "alice"})
    with serving(path, store_url, "0") as client:
        assert ask(client, key=key) == {"welcome": "alice"}
        assert ask(client, key="wrong").get("welcome") is None


@pytest.mark.parametrize("program", SERVERS)
def test_the_server_of_the_readme_asks_redis_for_no_key_in_use_and_refuses_a_revoked_one(
    program: str, tmp_path: Path
) -> None:
    path = tmp_path / "members.py"
    path.write_text(readme_program("members_only").replace("port=1500", "port=0"))
    with RedisServer(program, tmp_path) as redis_server, closing(APIKeyFactory(store=redis_server.url)) as keys:
        key = keys.issue({"owner": "alice"})
        with serving(path, redis_server.url) as client:
            welcome, refused = {"welcome": "alice"}, {"status": "failure", "error": "ERR_UNAUTHORIZED"}
            for _ in range(2):
                assert ask(client, key=key) == welcome
            redis_server.until(lambda redis: int(redis.info("clients")["tracking_clients"]) == 1)
            end = time.monotonic() + 0.6  # a record that was read before the notices began is read once more
            while time.monotonic() < end:
                assert ask(client, key=key) == welcome
            before = redis_server.calls("get")
            for _ in range(1000):
                assert ask(client, key=key) == welcome
            assert redis_server.calls("get") == before
            keys.revoke(key)
            end = time.monotonic() + 1
            while (answer := ask(client, key=key)) == welcome:
                assert time.monotonic() < end
            assert answer == refused
            for _ in range(50):
                assert ask(client, key=key) == refused


def test_the_server_on_an_open_port_wants_tls_and_a_key(tmp_path: Path, certificates: Certificates) -> None:
    program = tmp_path / "open.py"
    program.write_text(readme_program("tls_cert").replace("port=1500", "port=0").replace("0.0.0.0", "127.0.0.1"))
    command = [sys.executable, str(program), str(certificates.server)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"Serving on 127\.0\.0\.1:(\d+), unix:api\.sock", line)
            assert found, line
            with Client(ca_file=certificates.ca_file, timeout=10) as client:
                client.connect("localhost", int(found[1]))
                assert ask(client, key="wrong") == {"status": "failure", "error": "ERR_UNAUTHORIZED"}
        finally:
            process.terminate()
        out = process.stdout.read()
        assert process.wait(10) == 0
    assert len(out.strip()) == 32, "the program prints a key"


def test_the_commands_of_the_readme_print_what_it_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "example.py").write_text(readme_program("async def echo"))
    shown = re.search(r"explain example.py -\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    command = [sys.executable, "-m", "asyncapy_cli", "explain", "example.py", "-"]
    done = subprocess.run(command, input='{"text": "x"}', capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout) == (1, shown[1])


def test_the_filter_of_the_readme_is_a_plugin() -> None:
    plugins = PluginManager(discover=False)
    module = ModuleType("acme")
    exec(readme_program("class Shout"), module.__dict__)
    plugins.register(module, "acme")
    shout = cast("Callable[[str], Filter]", plugins.filters["Shout"])("text")
    peer = Detached()
    assert [shout.check(peer.client, peer.packet({"text": text})) for text in ("HELLO", "hello")] == [True, False]


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(
        "from asyncapy import Server\n\nserver = Server()\n" + readme_program("autojump_clock")
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "1 passed" in done.stdout, done.stdout
