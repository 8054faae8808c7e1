"""A filter of a third party, in a server with core and codecs only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Start

SERVER = """
from asyncapy_core import Filters, Server

server = Server(port=0)

@server.add_handler(Filters.Shout("word") & ~Filters.Shout("name"))
async def one(client, packet):
    await client.send({"heard": "one"})

@server.add_handler(Filters.Shout("word"))
async def both(client, packet):
    await client.send({"heard": "both"})

server.start()
"""


@pytest.fixture
def environment(install: Install) -> Environment:
    return install("asyncapy-core", "asyncapy-codecs", "acme-filters")


def test_a_third_party_filter_chooses_the_handler(environment: Environment, start: Start, call: Call) -> None:
    caller = call(start(environment, SERVER))
    assert caller.ask_json(word="HELLO", name="world") == {"heard": "one"}
    assert caller.ask_json(word="HELLO", name="WORLD") == {"heard": "both"}
    assert caller.ask_json(word="hello") == {"status": "failure", "error": "ERR_NO_HANDLER"}
    assert caller.ask_json(word=5) == {"status": "failure", "error": "ERR_NO_HANDLER"}
    assert caller.ask(1, b"\x81\xa4word\xa2HI") == (0, b'{"heard":"one"}')


def test_a_third_party_filter_refuses_a_wrong_argument_where_it_is_made(environment: Environment) -> None:
    done = environment.run("from asyncapy_core import Filters; Filters.Shout(3)")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "ValueError: Shout wants the name of a field; got 3"


def test_third_party_filters_are_listed_with_the_others(environment: Environment) -> None:
    program = """
import json
from asyncapy_core import Filters

print(json.dumps([name for name in dir(Filters) if name[0].isupper()]))
"""
    assert environment.answer(program) == ["Shout"]


def test_a_filter_name_that_is_misspelt_is_met_with_the_right_one(environment: Environment) -> None:
    done = environment.run("from asyncapy_core import Filters; Filters.Shuot")
    assert done.returncode != 0
    assert "did you mean 'Shout'?" in done.stderr.splitlines()[-1]


def test_a_filter_that_no_plugin_brings_is_an_attribute_that_is_not_there(environment: Environment) -> None:
    program = """
import json
from asyncapy_core import Filters

print(json.dumps([hasattr(Filters, "Shout"), hasattr(Filters, "Fields")]))
"""
    assert environment.answer(program) == [True, False]
