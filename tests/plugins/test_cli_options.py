"""Options of plugins on the command line: ``serve --option``, ``plugins NAME``, and their completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run, serving

from asyncapy import Server
from asyncapy_cli.plugin_options import by_plugin
from asyncapy_core.errors import ConfigError

PLUGIN = """
import json
from typing import Literal
from asyncapy_core import hookimpl
from pydantic import BaseModel, Field


class asyncapy_options(BaseModel):
    size: int = Field(3, description="how many")
    colour: Literal["red", "green"] = "red"
    loud: bool = False
    folder: str = Field("", alias="data-folder")
    token: str = "none"


@hookimpl
def asyncapy_setup(server, options):
    server.log.warning("options %s", json.dumps(options.model_dump()))
"""

SHOP = """
from asyncapy import Server
server = Server(port=0, plugin_options={"my.shop": {"size": 4, "colour": "green", "token": "argument"}})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program, and a plugin ``my.shop``."""
    metadata = tmp_path / "shop-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[asyncapy]\nmy.shop = shop_plugin\n")
    (tmp_path / "shop_plugin.py").write_text(PLUGIN)
    (tmp_path / "app.py").write_text(SHOP)
    (tmp_path / "server.toml").write_text('[plugins."my.shop"]\nsize = 1\nloud = true\ncolour = "red"\n')
    return tmp_path


def test_an_option_of_the_command_line_precedes_all_other_sources(folder: Path) -> None:
    given = ("--option", "my.shop.size=5", "--option", "my.shop.data-folder=a=b", "--option", "my.shop.size=6")
    with serving(folder, "app", "--config", "server.toml", *given) as server:
        found = json.loads(server.wait_for("options ({.*})")[1])
    assert found == {"size": 6, "colour": "green", "loud": True, "folder": "a=b", "token": "argument"}


@pytest.mark.parametrize("option", ["codecs", "codecs.engine", "codecs=x", ".engine=x", "codecs.=x", "=", ""])
def test_an_option_in_another_form_is_a_wrong_usage(folder: Path, option: str) -> None:
    done = run(folder, "serve", "app", "--option", option)
    assert done.returncode == 2
    assert f"{option!r} is not NAME.KEY=VALUE, as in codecs.engine=msgspec" in done.stderr


WRONG = {
    "my.shop.size=many": "size: Input should be a valid integer",
    "my.shop.siez=1": "siez: there is no such option; did you mean 'size'? (from the argument plugin_options)",
    "codex.engine=x": "there are options for plugin 'codex', which is not installed: engine",
    "codes.engine=x": "did you mean 'codecs'?",
}


@pytest.mark.parametrize(("option", "message"), WRONG.items())
def test_a_wrong_option_is_an_error_of_the_start(folder: Path, option: str, message: str) -> None:
    done = run(folder, "serve", "app", "--option", option)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_longest_name_of_a_plugin_counts() -> None:
    given = ["a.b.c=1", "a.b=2", "x.y.z=3", "a.b.c=4"]
    assert by_plugin(given, {"a", "a.b"}) == {"a.b": {"c": "4"}, "a": {"b": "2"}, "x": {"y.z": "3"}}
    assert by_plugin([], {"a"}) == {}


def test_options_of_configure_precede_those_of_the_constructor_and_earlier_ones() -> None:
    server = Server(plugin_options={"one": {"a": 1, "b": 1, "c": 1}})
    server.configure(plugin_options={"one": {"a": 2, "b": 2}, "two": {}})
    server.configure(plugin_options={"one": {"a": 3}})
    server.configure(timeout=5)
    assert server._options == {"one": {"a": 3, "b": 2, "c": 1}, "two": {}}  # read at the start
    with pytest.raises(ConfigError, match="has to be a mapping of options for each plugin"):
        server.configure(plugin_options={"one": 1})  # type: ignore[dict-item]
    assert server._options["one"]["a"] == 3  # as above


def test_a_plugin_is_shown_with_the_types_and_defaults_of_its_options(folder: Path) -> None:
    for arguments in (("my.shop",), ("show", "my.shop")):
        done = run(folder, "plugins", *arguments, COLUMNS="200")
        assert done.returncode == 0
        rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
        assert ["Option", "Type", "Default", "Description"] in rows
        assert ["size", "int", "3", "how many"] in rows
        assert ["colour", "Literal['red', 'green']", "'red'"] in rows
        assert ["data-folder", "str", "''"] in rows
        assert "--option my.shop.size=VALUE, ASYNCAPY_PLUGIN_MY_SHOP__SIZE=VALUE" in done.stderr
    (shown,) = json.loads(run(folder, "plugins", "my.shop", "--json").stdout)
    assert (shown["name"], shown["distribution"]) == ("my.shop", "shop")
    assert shown["options"][0] == {"name": "size", "type": "int", "default": "3", "description": "how many"}


def test_a_plugin_without_options_is_shown_too(folder: Path) -> None:
    done = run(folder, "plugins", "filters")
    assert (done.returncode, done.stderr) == (0, "")
    assert "HasFields" in done.stdout
    assert "Option" not in done.stdout


def test_a_name_of_no_plugin_and_no_command_is_an_error_that_lists_both(folder: Path) -> None:
    done = run(folder, "plugins", "docter")
    assert done.returncode == 1
    assert "no plugin is called 'docter'; installed: codecs, filters, limits, metrics, my.shop, " in done.stderr
    assert "commands: show, doctor, test, stubs" in done.stderr
    assert run(folder, "plugins", "--docter").returncode == 2


def completed(folder: Path, shell: str, *words: str) -> list[str]:
    """Return the completions of the last word, as the script of the shell asks for them."""
    environ = {"_ASYNCAPY_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(["asyncapy", *words])}
    environ["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words))
    command = Path(sys.executable).with_name("asyncapy")
    done = subprocess.run(
        [command],
        env={**os.environ, "PYTHONPATH": str(folder), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return re.findall(r"[a-z-]+(?:[.=][\w.=-]*)?", re.sub(r"plain\W", "", done.stdout))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_plugins_and_their_options(folder: Path, shell: str) -> None:
    found = completed(folder, shell, "serve", "app", "--option", "my.shop.")
    assert {each for each in found if each.startswith("my.")} == {
        "my.shop.size=",
        "my.shop.colour=red",
        "my.shop.colour=green",
        "my.shop.loud=true",
        "my.shop.loud=false",
        "my.shop.data-folder=",
        "my.shop.token=",
    }
    assert "codecs.engine=ziproto" in completed(folder, shell, "serve", "app", "--option", "codecs.engine=z")
    assert "my.shop" in completed(folder, shell, "plugins", "m")
    assert "doctor" in completed(folder, shell, "plugins", "d")
    assert "my.shop" in completed(folder, shell, "plugins", "show", "my")


def test_a_broken_plugin_keeps_no_shell_from_completing_the_others(folder: Path) -> None:
    (folder / "shop_plugin.py").write_text("print('codecs.noise=1')\nraise SystemExit(1)")
    assert completed(folder, "bash", "serve", "app", "--option", "co") == [
        "codecs.engine=msgspec",
        "codecs.engine=ziproto",
    ]
