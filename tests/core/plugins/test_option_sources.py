"""Options of plugins from arguments, the environment, configparsers and files, in a server of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from asyncapy.errors import ConfigError
from asyncapy_core.plugins.options import validate_options
from asyncapy_core.plugins.record import PluginRecord

if TYPE_CHECKING:
    from core.plugins.conftest import Site

SOURCE = """
import pydantic

class asyncapy_options(pydantic.BaseModel):
    engine: str = "default"
    maxSize: int = 0
    folder: str = pydantic.Field("", alias="data-folder")

@hookimpl
def asyncapy_setup(server, options):
    print(json.dumps([options.engine, options.maxSize, options.folder]))
    server.stop()
"""

SERVER = """
import configparser, json, builtins
from asyncapy_core import Server

builtins.json = json
parser = configparser.ConfigParser()
parser.read_string("[plugin:NAME]\\nengine = parser\\nmaxsize = 3")
Server(port=0, ARGUMENTS).start()
"""
ARGUMENT = 'plugin_options={"NAME": {"engine": "argument", "maxSize": 4}}'
FILE = 'config="server.toml"'
PARSER = "cfg_parser=parser"


@pytest.fixture(params=["plug", "my-plug", "my.plug_in"])
def name(site: Site, request: pytest.FixtureRequest) -> str:
    """Install a plugin of this name, and return the name."""
    found = str(request.param)
    info = site.install("plug", SOURCE)
    (info / "entry_points.txt").write_text(f"[asyncapy]\n{found} = plug\n")
    (site.folder / "server.toml").write_text(
        f'[plugins."{found}"]\nengine = "file"\nmaxSize = 2\ndata-folder = "here"\n'
    )
    return found


def variable(name: str, option: str) -> str:
    return f"ASYNCAPY_PLUGIN_{name.upper().replace('-', '_').replace('.', '_')}__{option}"


def served(site: Site, name: str, *arguments: str, **environ: str) -> object:
    program = SERVER.replace("ARGUMENTS", ", ".join(arguments)).replace("NAME", name)
    done = site.run("-c", program, **environ)
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.splitlines()[-1]


def test_each_option_is_from_the_first_source_that_has_it(site: Site, name: str) -> None:
    environ = {variable(name, "ENGINE"): "environment", variable(name, "DATA_FOLDER"): "there"}
    assert served(site, name) == ["default", 0, ""]
    assert served(site, name, FILE) == ["file", 2, "here"]
    assert served(site, name, PARSER, FILE) == ["parser", 3, "here"]
    assert served(site, name, PARSER, FILE, **environ) == ["environment", 3, "there"]
    assert served(site, name, ARGUMENT, FILE, **environ) == ["argument", 4, "there"]
    assert served(site, name, **{variable(name, "MAXSIZE"): "5"}) == ["default", 5, ""]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (
            "ENGIN",
            "x",
            "engin: there is no such option; did you mean 'engine'? (from",
        ),
        ("MAXSIZE", "many", "maxSize: Input should be a valid integer"),
    ],
)
def test_a_wrong_variable_is_named(site: Site, name: str, option: str, value: str, words: str) -> None:
    wrong = variable(name, option)
    line = served(site, name, FILE, **{wrong: value})
    assert isinstance(line, str)
    assert line.startswith(f"asyncapy: options of plugin '{name}' of plug 1.0: {words.format(variable=wrong)}")
    assert f"(from the environment variable {wrong})" in line


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (
            "ASYNCAPY_PLUGIN_NOWHERE__URL",
            "there are options for plugin 'nowhere', which is not installed: url (from the environment variable",
        ),
        ("ASYNCAPY_PLUGIN_PLUG", "has no option; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGIN_PLUG_ENGINE", "has no option; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGIN_PLUG__", "has no option; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGIN___ENGINE", "has no option; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGIN_", "has no option; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGINS_PLUG__ENGINE", "is not read; write ASYNCAPY_PLUGIN_NAME__OPTION"),
        ("ASYNCAPY_PLUGIN_FILTERS__ENGINE", "which takes none: engine (from the environment variable"),
    ],
)
def test_a_variable_that_no_plugin_gets_is_an_error(site: Site, variable: str, words: str) -> None:
    site.install("plug", SOURCE)
    done = site.run("-c", SERVER.replace("ARGUMENTS", "").replace("NAME", "plug"), **{variable: "x"})
    assert done.returncode != 0
    assert words in done.stderr
    assert variable in done.stderr
    (site.folder / "server.ini").write_text("[AsyncAPY]\n")
    checked = site.asyncapy("config", "check", "server.ini", **{variable: "x"})
    assert (checked.returncode, words in checked.stderr, "Traceback" in checked.stderr) == (1, True, False)


def test_a_variable_that_may_belong_to_two_plugins_is_an_error(site: Site) -> None:
    for number, name in enumerate(("my-plug", "my_plug", "my")):
        info = site.install(f"plug{number}", SOURCE)
        (info / "entry_points.txt").write_text(f"[asyncapy]\n{name} = plug{number}\n")
    program = SERVER.replace("ARGUMENTS", "").replace("NAME", "x")
    done = site.run("-c", program, ASYNCAPY_PLUGIN_MY_PLUG__ENGINE="x")
    assert "ASYNCAPY_PLUGIN_MY_PLUG__ENGINE may belong to " in done.stderr
    done = site.run("-c", program, ASYNCAPY_PLUGIN_MY__ENGINE="x")
    assert '["x", 0, ""]' in done.stdout


@pytest.mark.parametrize("argument", ["5", "'codecs'", "{'codecs': 'ziproto'}", "{'codecs': ['engine']}", "[]"])
def test_an_argument_that_is_no_mapping_of_mappings_is_an_error(site: Site, argument: str) -> None:
    done = site.run("-c", f"from asyncapy_core import Server\nServer(plugin_options={argument})")
    assert "plugin_options, an argument, has to be a mapping of options for each plugin" in done.stderr


def test_variables_of_installed_plugins_do_not_matter_to_a_server_without_them(site: Site) -> None:
    program = """
    import trio
    from asyncapy_core import PluginManager, Server, hookimpl
    from asyncapy_core.plugins import default_manager

    class Mine:
        @hookimpl
        def asyncapy_codecs(self):
            return default_manager().codecs()

        @hookimpl
        def asyncapy_setup(self, server):
            print("set up")
            server.stop()

    own = PluginManager(discover=False)
    own.register(Mine(), "mine")
    trio.run(Server(port=0, plugins=own).serve)
    """
    assert site.prints(program, ASYNCAPY_PLUGIN_CODECS__ENGINE="ziproto") == "set up\n"


def test_a_setting_that_is_changed_later_keeps_the_options(site: Site) -> None:
    site.install("plug", SOURCE)
    program = SERVER.replace(
        "Server(port=0, ARGUMENTS).start()", f"server = Server({ARGUMENT})\nserver.port = 0\nserver.start()"
    )
    assert site.prints(program.replace("NAME", "plug")) == '["argument", 4, ""]\n'


def test_an_option_that_a_text_cannot_be_says_where_to_set_it() -> None:
    class Lists(BaseModel):
        names: list[str] = []

    record = PluginRecord("plug", "plug", "1.0")
    record.options = Lists
    with pytest.raises(ConfigError, match=r"names: .* list; set it in a TOML file, or with the argument"):
        validate_options(record, {"plug": {"names": "a,b"}})
    assert validate_options(record, {"plug": {"names": ["a", "b"]}}) == Lists(names=["a", "b"])
