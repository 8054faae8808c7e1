"""The output of each command in any encoding, to a closed pipe and to a full disk, and the exit statuses then."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import APP, COMMAND, Serving, serving

from asyncapy_core import APIKeyFactory

ODD = "\N{SNOWMAN} \N{LATIN SMALL LETTER A WITH DIAERESIS} \U0001f511"

PLUGIN = f"""
from asyncapy_core import Filter, hookimpl

class Snow(Filter):
    def check(self, c, p):
        return True

@hookimpl
def asyncapy_filters():
    raise ValueError({ODD!r})
"""

PROGRAM = APP.replace("client.send(packet)", f"client.send({{'odd': {ODD!r}, 'foo': packet['foo']}})").replace(
    "Filters.HasFields(foo=None)", f"Filters.HasFields(foo=None) | Filters.Fields(odd={ODD!r})"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, a plugin, a configuration and a key store whose texts few encodings have."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "app.py").write_text(PROGRAM, "utf-8")
    (folder / "packet.json").write_text(json.dumps({"foo": 1}))
    (folder / "odd.toml").write_text(f'[AsyncAPY]\nconsole_format = "%(message)s {ODD}"\n', "utf-8")
    metadata = folder / "odd-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[asyncapy]\nodd = odd_plugin\n")
    (folder / "odd_plugin.py").write_text(PLUGIN, "utf-8")
    factory = APIKeyFactory(store=f"sqlite:///{folder / 'keys.db'}")
    factory.issue({"label": ODD})
    factory.close()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    with serving(folder, "app") as running:
        yield running


COMMANDS = {
    "--help": 0,
    "--version": 0,
    "call {address} {payload}": 0,
    "call --raw {address} {payload}": 0,
    "completion bash": 0,
    "config check odd.toml": 0,
    "explain app.py packet.json": 0,
    "keys list": 0,
    "keys list --json": 0,
    "keys show {id}": 0,
    "keys doctor": 0,
    "keys issue": 0,
    "keys reissue {id}": 0,
    "plugins": 0,
    "plugins --json": 0,
    "plugins doctor": 1,  # the plugin raises
    "plugins test codecs": 1,
    "plugins stubs {new}": 0,
    "new plugin {new}": 0,
    "serve --help": 0,
}
"""The commands that write to standard output, each with its exit status."""
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "a code page": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


def arguments(command: str, folder: Path, server: Serving, new: str) -> list[str]:
    if "{new}" in command and "stubs" not in command:
        new = re.sub("[^a-z]", "", new) or "x"
    key_id = ""
    if "{id}" in command:
        factory = APIKeyFactory(store=f"sqlite:///{folder / 'keys.db'}")
        key_id = factory.records()[0].id
        factory.close()
    given = {"address": f"localhost:{server.port}", "payload": '{"foo":1}', "id": key_id, "new": new}
    return [*COMMAND, *(word.format_map(given) for word in command.split(" "))]


def environment(folder: Path, **more: str) -> dict[str, str]:
    names = ("ASYNCAPY_", "PYTHON", "LANG", "LC_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    store = f"sqlite:///{folder / 'keys.db'}"
    return {**kept, "ASYNCAPY_KEY_STORE": store, "PYTHONPATH": str(folder), "COLUMNS": "200", **more}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_output_fails_in_an_encoding_that_lacks_its_characters(
    folder: Path, server: Serving, command: str, encoding: str
) -> None:
    new = f"{command}{encoding}".replace(" ", "")
    done = subprocess.run(
        arguments(command, folder, server, re.sub(r"\W", "", new)), cwd=folder, capture_output=True, timeout=60,
        env=environment(folder, **ENCODINGS[encoding]),
    )  # fmt: skip
    assert done.returncode == COMMANDS[command], done.stderr
    assert b"UnicodeEncodeError" not in done.stderr
    assert b"Traceback" not in done.stderr or command == "plugins doctor"
    codec = ENCODINGS[encoding].get("PYTHONIOENCODING", "ascii")
    assert done.stdout.decode(codec).isprintable() or "\n" in done.stdout.decode(codec)
    if command in {"keys list", "keys show {id}"}:
        assert r"\u2603" in done.stdout.decode(codec)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_pipe_ends_each_command_like_sigpipe(folder: Path, server: Serving, command: str) -> None:
    ends = os.pipe()
    os.close(ends[0])
    with os.fdopen(ends[1], "wb") as pipe:
        done = subprocess.run(
            arguments(command, folder, server, "pipe"), cwd=folder, stdout=pipe, stderr=subprocess.PIPE, text=True,
            timeout=60, env=environment(folder),
        )  # fmt: skip
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr or command == "plugins doctor"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_ends_each_command_with_one_line(folder: Path, server: Serving, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            arguments(command, folder, server, "full"), cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, env=environment(folder),
        )  # fmt: skip
    assert done.returncode == 74, done.stderr
    lines = [line for line in done.stderr.splitlines() if "'odd' of odd 1" not in line]  # a warning of the plugin
    assert "No space left on device" in lines[-1]
    assert len(lines) == 1 or command == "plugins doctor", done.stderr  # this writes the traceback of the plugin


@pytest.mark.parametrize("command", COMMANDS)
def test_messages_that_cannot_be_written_change_no_exit_status(folder: Path, server: Serving, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            arguments(command, folder, server, "messages"), cwd=folder, stdout=subprocess.PIPE, stderr=full,
            timeout=60, env=environment(folder),
        )  # fmt: skip
    assert done.returncode == COMMANDS[command]


FAILURES = {
    'call {address} {{"user":"root"}}': 1,
    "call {address} [1]": 2,
    "call localhost:1 {payload}": 3,
    "call localhost": 2,
    "serve nowhere.py": 1,
    "keys show nothing": 1,
    "nothing": 2,
}


@pytest.mark.parametrize("command", FAILURES)
def test_errors_that_cannot_be_written_keep_their_exit_status(folder: Path, server: Serving, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            arguments(command, folder, server, ""), cwd=folder, stdout=subprocess.PIPE, stderr=full, timeout=60,
            env=environment(folder),
        )  # fmt: skip
    assert done.returncode == FAILURES[command]


def test_an_unwritable_error_of_a_server_that_cannot_start_keeps_its_exit_status(folder: Path, server: Serving) -> None:
    command = [*COMMAND, "serve", "app", "--port", str(server.port)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, cwd=folder, stderr=full, timeout=60, env=environment(folder))
    assert done.returncode == 1


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[APIKeyFactory]:
    with contextlib.closing(APIKeyFactory(store=f"sqlite:///{tmp_path / 'keys.db'}")) as factory:
        yield factory


@contextlib.contextmanager
def unwritable(kind: str) -> Iterator[int]:
    """Yield a descriptor to which nothing can be written."""
    if kind == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    yield descriptor
    os.close(descriptor)


STATUSES = {"full": 74, "closed": 141}


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("kind", STATUSES)
def test_a_key_that_cannot_be_printed_is_revoked_again(
    tmp_path: Path, factory: APIKeyFactory, kind: str, options: list[str]
) -> None:
    with unwritable(kind) as descriptor:
        done = subprocess.run(
            [*COMMAND, "keys", "issue", *options], stdout=descriptor, stderr=subprocess.PIPE, text=True, timeout=60,
            env=environment(tmp_path),
        )  # fmt: skip
    assert done.returncode == STATUSES[kind]
    assert re.fullmatch(r"Error: the key [0-9a-f]+ could not be printed, and was revoked again: .*\n", done.stderr)
    assert not list(factory.records())


@pytest.mark.parametrize("kind", STATUSES)
def test_the_id_of_a_reissued_key_that_cannot_be_printed_is_told(
    tmp_path: Path, factory: APIKeyFactory, kind: str
) -> None:
    key_id = factory.describe(factory.issue({"owner": "alice"})).id
    with unwritable(kind) as descriptor:
        done = subprocess.run(
            [*COMMAND, "keys", "reissue", key_id], stdout=descriptor, stderr=subprocess.PIPE, text=True, timeout=60,
            env=environment(tmp_path),
        )  # fmt: skip
    assert done.returncode == STATUSES[kind]
    expected = f"Error: the key {key_id} was replaced, and the new key was not printed; reissue it again: "
    assert done.stderr.startswith(expected)
    assert [record.id for record in factory.records()] == [key_id]


def test_no_key_is_issued_without_a_standard_output(tmp_path: Path, factory: APIKeyFactory) -> None:
    command = f"exec {shlex.quote(COMMAND[0])} -m asyncapy_cli keys issue >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 1
    assert "standard output is closed, so the key could not be printed; no key was issued" in done.stderr
    assert not list(factory.records())


def test_a_call_reads_utf_8_in_any_encoding(folder: Path, server: Serving) -> None:
    payload = json.dumps({"foo": ODD}, ensure_ascii=False).encode()
    done = subprocess.run(
        [*COMMAND, "call", f"localhost:{server.port}", "-"], input=payload, capture_output=True, timeout=60,
        env=environment(folder, PYTHONIOENCODING="ascii"),
    )  # fmt: skip
    assert json.loads(done.stdout) == {"odd": ODD, "foo": ODD}
