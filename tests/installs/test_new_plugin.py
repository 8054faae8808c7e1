"""``asyncapy new plugin`` in fresh environments: the generated plugin installs, its tests pass, a server uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Start

KINDS = ("filter", "codec", "keystore", "hooks", "command")

SERVER = """
from asyncapy import Server
from asyncapy.filters import Filters
from asyncapy_core import APIKeyFactory

server = Server(port=0)

@server.add_handler({filters})
async def answer(client, packet):
    await client.send({{"got": packet["text"]}} if "text" in packet else packet)

server.start()
"""

Add = Callable[["Environment", Path], None]


@pytest.fixture(scope="module")
def environment(install: Install) -> Environment:
    return install("asyncapy", "asyncapy-core[testing]")


@pytest.fixture(scope="module")
def add(wheels: dict[str, Path], wheelhouse: Path) -> Add:
    """Return ``add(environment, project)``, which builds a wheel of a project and installs it with its requirements."""

    def build_and_install(environment: Environment, project: Path) -> None:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
        subprocess.run(build, cwd=project, check=True, capture_output=True, timeout=60)
        (wheel,) = (project / "dist").glob("*.whl")
        pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "--quiet", "--no-compile"]
        sources = ["--no-index", f"--find-links={wheelhouse}", f"--find-links={wheels['asyncapy'].parent}"]
        offline = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run([*pip, *sources, f"{wheel}[test]"], check=True, timeout=120, env=offline)

    return build_and_install


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_works_as_it_is_written(
    install: Install, add: Add, start: Start, call: Call, tmp_path: Path, kind: str
) -> None:
    environment = install("asyncapy", own=f"new {kind}")
    name = f"my-{kind}"
    done = environment.execute("asyncapy", "new", "plugin", name, "--kind", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    project = tmp_path / f"asyncapy-{name}"
    package = f"asyncapy_my_{kind}"
    assert set(done.stdout.split()) == {
        f"asyncapy-{name}/{path}"
        for path in (
            "pyproject.toml",
            "README.md",
            f"src/{package}/__init__.py",
            f"src/{package}/py.typed",
            f"tests/test_my_{kind}.py",
        )
    }
    assert f"cd asyncapy-{name} && pip install -e '.[test]' && pytest && mypy" in done.stderr
    add(environment, project)
    tested = environment.execute("pytest", "-q", cwd=project)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout
    assert "skipped" not in tested.stdout
    checked = environment.execute("mypy", cwd=project)
    assert checked.stdout == "Success: no issues found in 2 source files\n"
    listed = environment.execute("asyncapy", "plugins", "--json")
    record = next(each for each in json.loads(listed.stdout) if each["distribution"] == f"asyncapy-{name}")
    assert record["state"] == "loaded"
    doctor = environment.execute("asyncapy", "plugins", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    USES[kind](environment, start, call, tmp_path)


def use_filter(environment: Environment, start: Start, call: Call, folder: Path) -> None:
    server = start(environment, SERVER.format(filters='Filters.MyFilter("text")'))
    caller = call(server)
    assert caller.ask_json(text="HELLO") == {"got": "HELLO"}
    assert caller.ask_json(text="hello")["error"] == "ERR_NO_HANDLER"


def use_codec(environment: Environment, start: Start, call: Call, folder: Path) -> None:
    (record,) = json.loads(environment.execute("asyncapy", "plugins", "my_codec", "--json").stdout)
    wire_id = record["codecs"]["my_codec"]
    server = start(environment, SERVER.format(filters=""))
    reply = call(server).ask(wire_id, zlib.compress(b'{"text": 1}'))
    assert reply is not None
    assert (reply[0], json.loads(zlib.decompress(reply[1]))) == (wire_id, {"got": 1})


def use_key_store(environment: Environment, start: Start, call: Call, folder: Path) -> None:
    url = f"my-keystore://{folder}/keys.json"
    issued = environment.execute("asyncapy", "keys", "issue", "--store", url)
    assert issued.returncode == 0, issued.stderr
    server = start(environment, SERVER.format(filters=f'Filters.APIFactory(APIKeyFactory(store={url!r}), "key")'))
    caller = call(server)
    assert caller.ask_json(text=1, key=issued.stdout.split()[0]) == {"got": 1}
    assert caller.ask_json(text=1, key="wrong")["error"] == "ERR_NO_HANDLER"


def use_hooks(environment: Environment, start: Start, call: Call, folder: Path) -> None:
    server = start(environment, SERVER.format(filters=""))
    assert call(server).ask_json(ping=1) == {"pong": 1}


def use_command(environment: Environment, start: Start, call: Call, folder: Path) -> None:
    server = start(environment, SERVER.format(filters=""))
    done = environment.execute("asyncapy", "my-command", "127.0.0.1", str(server.port))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 requests, ")
    assert server.stop() == 0
    refused = environment.execute("asyncapy", "my-command", "127.0.0.1", str(server.port))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1


USES = {
    "filter": use_filter,
    "codec": use_codec,
    "keystore": use_key_store,
    "hooks": use_hooks,
    "command": use_command,
}


def test_what_is_written_is_as_our_own_code(environment: Environment, tmp_path: Path) -> None:
    for kind in KINDS:
        done = environment.execute("asyncapy", "new", "plugin", f"own-{kind}", "--kind", kind, cwd=tmp_path)
        assert done.returncode == 0
    ruff = ("--isolated", "--line-length", "120")
    for project in tmp_path.iterdir():
        check(project, "ruff", "format", "--check", *ruff)
        check(project, "ruff", "check", *ruff, "--extend-select", "I,B,UP,RUF,SIM")


def check(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Shout", "9lives", "a--b", "über", "../x", ""])
def test_a_name_that_is_none_is_told(environment: Environment, tmp_path: Path, name: str) -> None:
    done = environment.execute("asyncapy", "new", "plugin", name, cwd=tmp_path)
    assert done.returncode == 2
    assert "give lowercase letters, digits and dashes, such as shout" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("core", "there is a package asyncapy_core"),
        ("redis", "there is a package asyncapy_redis"),
        ("tester", "pytest collects classes that begin with Test"),
        ("json", "there is a filter, a codec, a key store or a class of this name"),
        ("ip", "there is a filter, a codec, a key store or a class of this name"),
        ("packet", "there is a filter, a codec, a key store or a class of this name"),
    ],
)
def test_a_name_that_is_taken_is_told(environment: Environment, tmp_path: Path, name: str, reason: str) -> None:
    done = environment.execute("asyncapy", "new", "plugin", name, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [("path", "keystore"), ("decode-error", "codec"), ("class", "filter")])
def test_a_name_that_means_something_to_python_is_taken_for_what_it_is(
    environment: Environment, add: Add, tmp_path: Path, name: str, kind: str
) -> None:
    assert environment.execute("asyncapy", "new", "plugin", name, "--kind", kind, cwd=tmp_path).returncode == 0
    project = tmp_path / f"asyncapy-{name}"
    add(environment, project)
    tested = environment.execute("pytest", "-q", cwd=project)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize("name", ["serve", "keys"])
def test_a_name_of_a_command_is_taken_for_a_command(environment: Environment, tmp_path: Path, name: str) -> None:
    done = environment.execute("asyncapy", "new", "plugin", name, "--kind", "command", cwd=tmp_path)
    assert done.returncode == 2
    assert f"there is a command asyncapy {name}" in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())
    assert environment.execute("asyncapy", "new", "plugin", name, cwd=tmp_path).returncode == 0


def test_the_readme_says_how_to_publish_it(environment: Environment, tmp_path: Path) -> None:
    for kind in KINDS:
        environment.execute("asyncapy", "new", "plugin", f"any-{kind}", "--kind", kind, cwd=tmp_path)
        readme = (tmp_path / f"asyncapy-any-{kind}" / "README.md").read_text("utf-8")
        assert "## Publishing it" in readme
        assert "twine upload dist/*" in readme
        assert "$" not in readme


def test_what_is_there_is_left_alone(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "asyncapy-shout").mkdir()
    done = environment.execute("asyncapy", "new", "plugin", "shout", cwd=tmp_path)
    assert done.returncode == 1
    assert "asyncapy-shout exists already; give another name, or move it away" in done.stderr


def test_a_link_without_a_target_is_left_alone(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "asyncapy-shout").symlink_to(tmp_path / "nowhere")
    done = environment.execute("asyncapy", "new", "plugin", "shout", cwd=tmp_path)
    assert done.returncode == 1
    assert "asyncapy-shout exists already; give another name, or move it away" in done.stderr
    assert not (tmp_path / "nowhere").exists()
