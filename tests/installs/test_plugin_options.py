"""The order of the setup and shutdown hooks, and the options of a plugin from INI and TOML files."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Start

SERVER = """
from asyncapy_core import Server

class Journalled(Server):
    def note(self, line):
        with open({journal!r}, "a") as file:
            file.write(line + "\\n")

    async def setup(self):
        self.note("server setup")

    async def shutdown(self):
        self.note("server shutdown")

server = Journalled(port=0, config={config!r})

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)
    server.note("handler")

server.start()
"""


@pytest.fixture
def environment(install: Install) -> Environment:
    return install("asyncapy-core", "asyncapy-codecs", "asyncapy-filters", "lifecycle")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def program(journal: Path, name: str, text: str) -> str:
    """Write a configuration file, and return a server that reads it."""
    config = journal.with_name(name)
    config.write_text(text, encoding="utf-8")
    return SERVER.format(journal=str(journal), config=str(config))


def ini(journal: Path, *options: str) -> str:
    return program(journal, "server.ini", "\n".join(["[plugin:lifecycle]", f"journal = {journal}", *options]))


def toml(journal: Path, *options: str) -> str:
    return program(journal, "server.toml", "\n".join(["[plugins.lifecycle]", f"journal = '{journal}'", *options]))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_plugins_are_set_up_before_the_port_opens_and_shut_down_in_reverse(
    environment: Environment, start: Start, call: Call, journal: Path, signum: int
) -> None:
    server = start(environment, ini(journal, "greeting = good day"))
    assert call(server).ask_json(word="hello") == {"word": "hello"}
    assert server.stop(signum) == 0
    assert journal.read_text("utf-8").splitlines() == [
        "setup good day, listening on []",
        "server setup",
        "handler",
        "server shutdown",
        "shutdown good day",
        "stack closed",
    ]


def test_options_are_read_from_toml_and_have_their_defaults(
    environment: Environment, start: Start, call: Call, journal: Path
) -> None:
    server = start(environment, toml(journal))
    assert call(server).ask_json(word="hello") == {"word": "hello"}
    assert server.stop() == 0
    assert journal.read_text("utf-8").splitlines()[0] == "setup hello, listening on []"


@pytest.mark.parametrize("write", [ini, toml])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("greting = 'good day'", ["lifecycle", "greting", "did you mean", "greeting"]),
        ("refuse = 'perhaps'", ["lifecycle", "refuse", "boolean"]),
    ],
    ids=["unknown", "wrong"],
)
def test_an_option_that_the_plugin_does_not_take_keeps_the_server_from_starting(
    environment: Environment, journal: Path, write: object, option: str, words: list[str]
) -> None:
    assert callable(write)
    done = environment.run(write(journal, option))
    assert done.returncode != 0
    assert done.stderr.startswith("asyncapy: options of plugin 'lifecycle' of lifecycle 1.0")
    assert [word for word in words if word not in done.stderr] == []
    assert len(done.stderr.splitlines()) == 1
    assert not journal.exists()


def test_an_option_that_is_missing_keeps_the_server_from_starting(environment: Environment, journal: Path) -> None:
    done = environment.run(program(journal, "server.ini", "[AsyncAPY]\ntimeout = 5\n"))
    assert done.returncode != 0
    assert "Serving on" not in done.stderr
    assert "lifecycle" in done.stderr
    assert "journal: Field required" in done.stderr
    assert "Traceback" not in done.stderr
    assert not journal.exists()


@pytest.mark.parametrize("name", ["lifecycel", "codecs "])
def test_options_for_a_plugin_that_is_not_there_keep_the_server_from_starting(
    environment: Environment, journal: Path, name: str
) -> None:
    text = f"[plugins.lifecycle]\njournal = '{journal}'\n[plugins.{json.dumps(name)}]\nengine = 'msgspec'\n"
    done = environment.run(program(journal, "server.toml", text))
    assert done.returncode != 0
    assert repr(name) in done.stderr
    assert not journal.exists()


def test_a_plugin_that_refuses_in_setup_keeps_the_server_from_starting_and_is_not_shut_down(
    environment: Environment, journal: Path
) -> None:
    done = environment.run(ini(journal, "refuse = yes"))
    assert done.returncode != 0
    assert "Serving on" not in done.stderr
    complaint = "asyncapy: plugin 'lifecycle' of lifecycle 1.0 failed in setup: PluginError: not on a Sunday"
    assert done.stderr.startswith(complaint)
    assert journal.read_text("utf-8").splitlines() == ["setup hello, listening on []", "stack closed"]


def test_a_plugin_that_wants_an_option_takes_no_filter_away_from_those_that_have_none(environment: Environment) -> None:
    names = "import json; from asyncapy_core import Filters; print(json.dumps([Filters.{0}.__name__]))"
    assert environment.answer(names.format("Fields")) == ["Fields"]
    assert environment.answer(names.format("Awake")) == ["Awake"]


def test_the_engine_of_the_codecs_is_an_option(
    environment: Environment, start: Start, call: Call, journal: Path
) -> None:
    server = start(environment, ini(journal, "[plugin:codecs]", "engine = ziproto"))
    assert call(server).ask(1, b"\x81\xa4word\xa2hi") == (1, b"\x81\xa4word\xa2hi")
    wrong = environment.run(ini(journal, "[plugin:codecs]", "engine = msgpack"))
    assert wrong.returncode != 0
    assert "engine" in wrong.stderr
    assert "'msgspec' or 'ziproto'" in wrong.stderr
