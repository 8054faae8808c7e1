"""plugins_allow, plugins_deny and plugins_require, from each source of settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Start

OURS = ("asyncapy-core", "asyncapy-codecs", "asyncapy-filters")


def server(settings: str = "", *filters: str) -> str:
    """Return a server program that replies with the states of its plugins."""
    return f"""
import sys
from asyncapy_core import Filters, Server

server = Server(port=0, {settings})

@server.add_handler({", ".join(filters)})
async def tell(client, packet):
    await client.send({{"acme": "acme_filters" in sys.modules, "states": {{
        record.name: record.state for record in server.plugins.plugins
    }}}})

server.start()
"""


@pytest.fixture
def environment(install: Install) -> Environment:
    return install(*OURS, "acme-filters")


@pytest.fixture
def troubled(install: Install) -> Environment:
    return install(*OURS, "broken-import", "misspelt", "acme-filters", "rival-filters")


@pytest.mark.parametrize(
    ("settings", "environ", "state", "filters"),
    [
        pytest.param("", {}, "loaded", "loaded", id="no list"),
        pytest.param("plugins_deny=['acme_filters']", {}, "denied", "loaded", id="deny, argument"),
        pytest.param("", {"ASYNCAPY_PLUGINS_DENY": "acme_filters,"}, "denied", "loaded", id="deny, environment"),
        pytest.param("plugins_allow=['codecs']", {}, "denied", "denied", id="allow, argument"),
        pytest.param("", {"ASYNCAPY_PLUGINS_ALLOW": "codecs,filters"}, "denied", "loaded", id="allow, environment"),
        pytest.param("", {"ASYNCAPY_PLUGINS_ALLOW": "codecs,acme_filters"}, "loaded", "denied", id="allow it"),
    ],
)
def test_only_plugins_that_the_lists_let_through_are_imported(
    environment: Environment,
    start: Start,
    call: Call,
    settings: str,
    environ: dict[str, str],
    state: str,
    filters: str,
) -> None:
    reply = call(start(environment, server(settings), **environ)).ask_json(what="now")
    assert reply["states"] == {"acme_filters": state, "codecs": "loaded", "filters": filters}
    assert reply["acme"] == (state == "loaded")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.ini", "[AsyncAPY]\nplugins_deny = acme_filters\n"),
        ("lines.ini", "[AsyncAPY]\nplugins_deny =\n    acme_filters\n"),
        ("server.toml", '[AsyncAPY]\nplugins_deny = ["acme_filters"]\n'),
    ],
)
def test_a_configuration_file_denies_a_plugin(
    environment: Environment, start: Start, call: Call, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    reply = call(start(environment, server(f"config={str(tmp_path / name)!r}"))).ask_json(what="now")
    assert reply["states"]["acme_filters"] == "denied"
    assert not reply["acme"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acme-filters", "no plugin is called 'acme-filters', which is on the deny list; did you mean 'acme_filters'?"),
        ("acme_filters filters", "'acme_filters filters' is no name of a plugin"),
        ("'acme_filters'", "is no name of a plugin"),
        ('["acme_filters"]', "is no name of a plugin"),
        ("acme_filters # not here", "is no name of a plugin"),
    ],
)
def test_a_deny_list_that_names_no_plugin_keeps_the_server_from_starting_and_plugins_from_being_imported(
    environment: Environment, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "server.ini").write_text(f"[AsyncAPY]\nplugins_deny = {text}\n", encoding="utf-8")
    program = f"""
import sys
from asyncapy_core import Server
from asyncapy_core.errors import ConfigError
try:
    Server(port=0, config={str(tmp_path / "server.ini")!r})
except ConfigError as error:
    print(error, [name for name in sys.modules if name in ("acme_filters", "asyncapy_filters")])
"""
    done = environment.run(program)
    assert words in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("settings", ["plugins_deny=['acme_filters']", "plugins_allow=['codecs', 'filters']"])
def test_a_plugin_that_a_server_denies_is_not_imported_for_the_sake_of_another_filter_either(
    environment: Environment, start: Start, call: Call, settings: str
) -> None:
    reply = call(start(environment, server(settings, "Filters.Fields(what=None)"))).ask_json(what="now")
    assert reply["states"]["acme_filters"] == "denied"
    assert not reply["acme"]


def test_a_filter_of_a_denied_plugin_is_not_there(environment: Environment) -> None:
    done = environment.run("from asyncapy_core import Filters; Filters.Shout", ASYNCAPY_PLUGINS_DENY="acme_filters")
    assert done.returncode != 0
    assert "UnknownFilter" in done.stderr.splitlines()[-1]


def test_nothing_is_reported_of_broken_plugins_that_are_denied(troubled: Environment, start: Start, call: Call) -> None:
    running = start(troubled, server(), ASYNCAPY_PLUGINS_DENY="broken_import,misspelt,rival_filters")
    reply = call(running).ask_json(what="now")
    assert [name for name, state in reply["states"].items() if state == "quarantined"] == []
    assert running.stop() == 0
    for word in ("broken", "misspelt", "rival", "quarantined"):
        assert word not in running.errors


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        ("plugins_require=['codecs', 'broken_import']", {}),
        ("", {"ASYNCAPY_PLUGINS_REQUIRE": "codecs,broken_import"}),
    ],
    ids=["argument", "environment"],
)
def test_a_server_does_not_start_when_a_plugin_that_it_requires_is_broken(
    troubled: Environment, settings: str, environ: dict[str, str]
) -> None:
    done = troubled.run(server(settings), **environ)
    assert done.returncode != 0
    assert "Serving on" not in done.stderr
    failure = done.stderr[done.stderr.index("asyncapy: ") :]
    assert "'broken_import' of broken-import 1.0 is required but quarantined" in failure
    assert 'broken_import.py", line 3' in failure
    assert "RuntimeError: no luck today" in failure
    assert "trio.run" not in done.stderr


@pytest.mark.parametrize(
    ("required", "environ", "words"),
    [
        ("misspelt", {}, ["misspelt", "did you mean asyncapy_filters?"]),
        ("redis", {}, ["'redis'", "not installed", "codecs"]),
        ("filters", {"ASYNCAPY_PLUGINS_DENY": "filters"}, ["asyncapy-filters", "denied", "deny list"]),
    ],
    ids=["misspelt", "missing", "denied"],
)
def test_a_server_does_not_start_without_a_plugin_that_it_requires_and_says_why(
    troubled: Environment, required: str, environ: dict[str, str], words: list[str]
) -> None:
    done = troubled.run(server(f"plugins_require=[{required!r}]"), **environ)
    assert done.returncode != 0
    assert "Serving on" not in done.stderr
    failure = done.stderr[done.stderr.index("asyncapy: ") :].splitlines()[0]
    assert [word for word in words if word not in failure] == []


def test_a_server_starts_when_all_that_it_requires_is_well(troubled: Environment, start: Start, call: Call) -> None:
    running = start(troubled, server("plugins_require=['codecs', 'acme_filters']"))
    assert call(running).ask_json(what="now")["acme"]
