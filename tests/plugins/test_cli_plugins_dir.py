"""``--plugins-dir``: commands with plugins in a folder of files."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ask, run, serving

PLUGIN = """
from asyncapy_core import Filter, MemoryKeyStore, hookimpl
from pydantic import BaseModel

class asyncapy_options(BaseModel):
    reply: str = "quiet"

class Shout(Filter):
    def check(self, c, p):
        return str(p.get("text")).isupper()

@hookimpl
def asyncapy_filters():
    return {"Shout": Shout}

@hookimpl
def asyncapy_key_stores():
    return {"forgetful": lambda url: MemoryKeyStore()}

@hookimpl
def asyncapy_wrap(handler, call, options):
    async def reply(client, packet):
        await client.send({"reply": options.reply})
    return reply
"""

APP = """
from asyncapy import Server
from asyncapy.filters import Filters

server = Server(port=0)

@server.add_handler(Filters.Shout())
async def calm(client, packet):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shout.py").write_text(PLUGIN)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_a_server_has_the_filters_hooks_and_options_of_a_file(folder: Path) -> None:
    arguments = ("app:server", "--plugins-dir", "plugins", "--option", "shout.reply=hush")
    with serving(folder, *arguments) as server:
        assert ask(server.port, text="LOUD") == {"reply": "hush"}
    (folder / "server.ini").write_text("[plugin:shout]\nreply = psst\n")
    with serving(folder, *arguments[:3], "--config", "server.ini") as server:
        assert ask(server.port, text="LOUD") == {"reply": "psst"}


def test_a_broken_file_is_named_and_the_server_serves(folder: Path) -> None:
    (folder / "plugins" / "broken.py").write_text("\nimport nowhere\n")
    place = folder / "plugins" / "broken.py"
    reason = f"import failed with ModuleNotFoundError: No module named 'nowhere' at {place}:2"
    message = f"plugin 'broken' of plugins/broken.py is quarantined: {reason}"
    with serving(folder, "app:server", "--plugins-dir", "plugins") as server:
        assert ask(server.port, text="LOUD") == {"reply": "quiet"}
        assert f"{message}\n" in server.lines
    doctor = run(folder, "plugins", "doctor", "--plugins-dir", "plugins")
    assert doctor.returncode == 1
    assert message in doctor.stdout
    required = run(folder, "serve", "app:server", "--plugins-dir", "plugins", "--plugins-require", "broken")
    assert required.returncode == 1
    assert "plugin 'broken' of plugins/broken.py is required but quarantined" in required.stderr


def test_a_server_denies_a_file_by_its_name(folder: Path) -> None:
    (folder / "plugins" / "broken.py").write_text("raise SystemExit")
    arguments = ("app:server", "--plugins-dir", "plugins")
    with serving(folder, *arguments, command=denying("broken")) as server:
        assert ask(server.port, text="LOUD") == {"reply": "quiet"}
        assert not [line for line in server.lines if "broken" in line]
    assert (
        "no installed plugin provides a filter 'Shout'"
        in run(folder, "serve", *arguments, ASYNCAPY_PLUGINS_DENY="shout").stderr
    )


def denying(name: str) -> list[str]:
    return ["env", f"ASYNCAPY_PLUGINS_DENY={name}", sys.executable, "-m", "asyncapy_cli"]


@pytest.mark.parametrize("command", ["serve app", "plugins", "plugins doctor", "explain app app.py", "plugins stubs"])
@pytest.mark.parametrize(("place", "reason"), [("nowhere", "does not exist"), ("app.py", "is a file")])
def test_a_folder_that_is_none_is_told(folder: Path, command: str, place: str, reason: str) -> None:
    name, *others = command.split()
    done = run(folder, name, "--plugins-dir", place, *others)
    assert done.returncode == 2
    assert f"'--plugins-dir': Directory '{place}' {reason}" in done.stderr


def test_a_server_with_plugins_of_its_own_is_told(folder: Path) -> None:
    own = "from asyncapy_core import PluginManager, Server\nserver = Server(plugins=PluginManager(), port=0)\n"
    (folder / "own.py").write_text(own)
    done = run(folder, "serve", "own", "--plugins-dir", "plugins")
    assert done.returncode == 1
    assert (
        "own has plugins of its own, to which --plugins-dir adds none; give it plugins=PluginManager(f" in done.stderr
    )


def test_files_are_listed_with_their_paths(folder: Path) -> None:
    for arguments in (
        ("plugins", "--plugins-dir", "plugins", "--json"),
        ("plugins", "--json", "--plugins-dir=plugins"),
    ):
        records = {record["name"]: record for record in json.loads(run(folder, *arguments).stdout)}
        assert records["shout"]["distribution"] == "plugins/shout.py"
        assert records["shout"]["filters"] == ["Shout"]
        assert records["shout"]["state"] == "loaded"
        assert [record["name"] for record in records.values()] == sorted(records)
    for words in (["plugins", "shout", "--plugins-dir", "plugins"], ["plugins", "--plugins-dir", "plugins", "shout"]):
        shown = run(folder, *words)
        assert shown.returncode == 0
        assert "reply   str   'quiet'" in shown.stdout
    assert "no plugin is called 'shout'" in run(folder, "plugins", "shout").stderr


def test_other_commands_have_the_plugins_too(folder: Path) -> None:
    option = ("--plugins-dir", "plugins")
    assert run(folder, "explain", "app", "-", *option, text='{"text": "LOUD"}').returncode == 0
    (folder / "server.ini").write_text("[plugin:shout]\nreply = psst\n")
    assert run(folder, "config", "check", "server.ini", *option).returncode == 0
    assert "shout" in run(folder, "config", "check", "server.ini").stderr
    assert run(folder, "keys", "list", "--store", "forgetful://", *option).returncode == 0
    stubs = run(folder, "plugins", "stubs", *option)
    assert "is in a folder of plugins, in which type checkers do not look" in stubs.stderr
    assert "Shout: _Any" in (folder / "typings" / "asyncapy" / "filters.pyi").read_text()
    tested = run(folder, "plugins", "test", *option)
    assert tested.returncode == 0
    assert "not tested: filter Shout of plugin 'shout' of plugins/shout.py" in tested.stderr


def test_a_program_changes_its_working_directory_before_it_uses_a_filter(folder: Path) -> None:
    (folder / "app.py").write_text("import os\nos.chdir('/')\n" + APP)
    with serving(folder, "app", "--plugins-dir", "plugins") as server:
        assert ask(server.port, text="LOUD") == {"reply": "quiet"}


def test_the_shell_completes_options_of_files(folder: Path) -> None:
    words = "asyncapy serve app --plugins-dir plugins --option shout."
    environ = {"_ASYNCAPY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "6"}
    command = Path(sys.executable).with_name("asyncapy")
    done = subprocess.run([command], env={**os.environ, **environ}, cwd=folder, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("plain,shout.reply=\n", "")


def test_a_change_of_a_file_restarts_a_reloading_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "app.py").write_text(APP)
    plugin = folder / "plugins" / "shout.py"
    arguments = ("app", "--reload", "--plugins-dir", str(plugin.parent))
    with serving(elsewhere, *arguments) as server:
        assert ask(server.port, text="LOUD") == {"reply": "quiet"}
        for _ in range(10):  # no line reports that the watch has begun; earlier changes are not seen
            plugin.write_text(PLUGIN.replace("quiet", "new"))
            with contextlib.suppress(AssertionError):
                server.wait_for("shout.py changed; restarting", within=2)
                break
        port = int(server.wait_for(r"Serving on 127\.0\.0\.1:(\d+)", count=2)[1])
        assert ask(port, text="LOUD") == {"reply": "new"}
