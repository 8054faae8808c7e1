"""Broken and conflicting plugins: each is reported with its distribution, and the other plugins work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Start

OURS = ("asyncapy-core", "asyncapy-codecs", "asyncapy-filters")

SERVER = """
from asyncapy_core import Filters, Server

server = Server(port=0)

@server.add_handler(Filters.Fields(word=None))
async def echo(client, packet):
    await client.send(packet)

server.start()
"""

RECORDS = """
import json, sys
from asyncapy_core import PluginManager

records = {
    f"{record.name} of {record.distribution}": [record.state, record.reason, record.traceback]
    for record in PluginManager().plugins
}
print(json.dumps({"records": records, "modules": sorted(sys.modules)}))
"""


@pytest.fixture
def troubled(install: Install) -> Environment:
    """An environment with a plugin that fails to import, one with a misspelt hook, and two with a filter Shout."""
    return install(*OURS, "broken-import", "misspelt", "acme-filters", "rival-filters")


@pytest.fixture
def namesakes(install: Install) -> Environment:
    """An environment with two distributions whose plugins have the same name."""
    return install(*OURS, "acme-filters", "rival-name")


def records(environment: Environment) -> dict[str, Any]:
    found: dict[str, Any] = environment.answer(RECORDS)["records"]
    return found


def test_a_plugin_that_cannot_be_imported_is_quarantined_with_its_distribution_and_traceback(
    troubled: Environment,
) -> None:
    state, reason, traceback = records(troubled)["broken_import of broken-import"]
    assert state == "quarantined"
    assert "RuntimeError: no luck today" in reason
    assert 'broken_import.py", line 3' in traceback
    assert traceback.strip().endswith("RuntimeError: no luck today")


def test_a_misspelt_hook_is_quarantined_and_met_with_the_right_name(troubled: Environment) -> None:
    state, reason, _ = records(troubled)["misspelt of misspelt"]
    assert state == "quarantined"
    assert "asyncapy_filter" in reason
    assert "did you mean asyncapy_filters?" in reason


def test_plugins_beside_broken_ones_are_loaded(troubled: Environment) -> None:
    states = {title: record[0] for title, record in records(troubled).items()}
    assert states == {
        "acme_filters of acme-filters": "loaded",
        "broken_import of broken-import": "quarantined",
        "codecs of asyncapy-codecs": "loaded",
        "filters of asyncapy-filters": "loaded",
        "misspelt of misspelt": "quarantined",
        "rival_filters of rival-filters": "loaded",
    }


def test_a_server_beside_broken_plugins_serves_and_reports_each_once(
    troubled: Environment, start: Start, call: Call
) -> None:
    server = start(troubled, SERVER)
    caller = call(server)
    assert caller.ask_json(word="hello") == {"word": "hello"}
    assert caller.ask(1, b"\x81\xa4word\xa2hi") == (0, b'{"word":"hi"}')
    assert server.stop() == 0
    reports = {
        name: [line for line in server.lines["stderr"] if name in line] for name in ("broken-import", "misspelt")
    }
    assert ["quarantined" in line for line in reports["broken-import"]] == [True]
    assert ["quarantined" in line for line in reports["misspelt"]] == [True]
    contested = [line for line in server.lines["stderr"] if "'Shout'" in line]
    assert len(contested) == 1
    assert "acme-filters" in contested[0]
    assert "rival-filters" in contested[0]


def test_a_filter_that_two_plugins_claim_is_an_error_that_names_both_distributions(troubled: Environment) -> None:
    done = troubled.run("from asyncapy_core import Filters; Filters.Shout('word')")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert "PluginCollision" in last
    assert "'Shout'" in last
    assert "acme-filters 1.0" in last
    assert "rival-filters 1.0" in last


def test_denying_one_of_two_rivals_gives_the_filter_to_the_other(troubled: Environment) -> None:
    program = "import json; from asyncapy_core import Filters; print(json.dumps(Filters.Shout.__module__))"
    assert troubled.answer(program, ASYNCAPY_PLUGINS_DENY="rival_filters") == "acme_filters"
    assert troubled.answer(program, ASYNCAPY_PLUGINS_DENY="acme_filters") == "rival_filters"


def test_denying_a_rival_in_a_servers_settings_gives_the_filter_to_the_other(
    troubled: Environment, start: Start, call: Call
) -> None:
    program = """
from asyncapy_core import Filters, Server

server = Server(port=0, plugins_deny=["rival_filters"])

@server.add_handler(Filters.Shout("word"))
async def echo(client, packet):
    await client.send(packet)

server.start()
"""
    caller = call(start(troubled, program))
    assert caller.ask_json(word="HELLO") == {"word": "HELLO"}
    assert caller.ask_json(word="hello!") == {"status": "failure", "error": "ERR_NO_HANDLER"}


def test_two_plugins_of_one_name_are_both_quarantined_unimported_and_both_are_named(namesakes: Environment) -> None:
    answer = namesakes.answer(RECORDS)
    for distribution in ("acme-filters", "rival-name"):
        state, reason, _ = answer["records"][f"acme_filters of {distribution}"]
        assert state == "quarantined"
        assert "'acme_filters'" in reason
        assert "acme-filters" in reason
        assert "rival-name" in reason
    assert "asyncapy_codecs" in answer["modules"]
    assert not {"acme_filters", "rival_name"} & set(answer["modules"])


def test_the_advice_on_two_plugins_of_one_name_does_not_speak_of_denying_which_would_deny_both(
    namesakes: Environment,
) -> None:
    reason = records(namesakes)["acme_filters of acme-filters"][1]
    assert "uninstall" in reason
    assert "deny" not in reason


def test_a_server_beside_two_plugins_of_one_name_serves(namesakes: Environment, start: Start, call: Call) -> None:
    server = start(namesakes, SERVER)
    assert call(server).ask_json(word="hello") == {"word": "hello"}
    assert "acme-filters" in server.errors
    assert "rival-name" in server.errors


@pytest.mark.parametrize("name", ["Shout", "Whisper"])
def test_a_filter_of_a_plugin_whose_name_is_contested_says_which_two_claim_it(
    namesakes: Environment, name: str
) -> None:
    done = namesakes.run(f"from asyncapy_core import Filters; Filters.{name}")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert "UnknownFilter" in last
    assert "acme-filters" in last
    assert "rival-name" in last
