"""asyncapy-core by itself, and with a codec of a third party only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from installs.conftest import Call, Install, Start

ACME = 77

LEFT_OUT = ("msgspec", "ziproto", "asyncapy", "asyncapy_codecs", "asyncapy_filters")

SERVER = """
from asyncapy_core import Server

server = Server(port=0)

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
"""

IMPORTS = f"""
import importlib.util, json, pkgutil, sys
import asyncapy_core

for module in pkgutil.walk_packages(asyncapy_core.__path__, "asyncapy_core."):
    if module.name != "asyncapy_core.testing.fixtures":  # a pytest plugin
        importlib.import_module(module.name)
found = [name for name in {LEFT_OUT} if importlib.util.find_spec(name)]
loaded = [name for name in {LEFT_OUT} if name in sys.modules]
print(json.dumps({{"version": asyncapy_core.__version__, "found": found, "loaded": loaded}}))
"""


def test_core_imports_whole_where_nothing_else_is_installed(install: Install) -> None:
    answer = install("asyncapy-core").answer(IMPORTS)
    assert answer["version"]
    assert answer["found"] == []
    assert answer["loaded"] == []


def test_core_without_a_codec_does_not_start_and_says_on_one_line_what_to_install(install: Install) -> None:
    done = install("asyncapy-core").run(SERVER)
    assert done.returncode != 0
    assert "pip install asyncapy-codecs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_client_without_a_codec_says_what_to_install(install: Install) -> None:
    done = install("asyncapy-core").run("from asyncapy_core.client import Client; Client(tls=False)")
    assert done.returncode != 0
    assert "UnknownCodec" in done.stderr.splitlines()[-1]
    assert "pip install asyncapy-codecs" in done.stderr.splitlines()[-1]


def test_a_filter_that_is_not_installed_says_what_to_install(install: Install) -> None:
    program = """
import json
from asyncapy_core import Filters

try:
    Filters.Fields
except AttributeError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    kind, message = install("asyncapy-core").answer(program)
    assert kind == "UnknownFilter"
    assert "'Fields'" in message
    assert "pip install asyncapy-filters" in message


def test_core_serves_a_codec_of_a_third_party(install: Install, start: Start, call: Call) -> None:
    server = start(install("asyncapy-core", "acme-codec"), SERVER, PYTHONWARNINGS="error")
    caller = call(server)
    assert caller.ask(ACME, b"word=hello;name=world") == (ACME, b"word=hello;name=world")
    assert caller.ask(ACME, b"word=again") == (ACME, b"word=again")
    assert server.stop() == 0


def test_a_third_party_codec_carries_the_replies_that_the_server_makes(
    install: Install, start: Start, call: Call
) -> None:
    server = start(install("asyncapy-core", "acme-codec"), SERVER)
    malformed = call(server)
    assert malformed.ask(ACME, b"no pairs") == (ACME, b"status=failure;error=ERR_REQUEST_MALFORMED")
    assert malformed.reply() is None
    unknown = call(server)
    assert unknown.ask(0, b'{"word": 1}') == (ACME, b"status=failure;error=ERR_HEADER_INVALID")
    assert unknown.reply() is None
    assert call(server).ask(ACME, b"still=here") == (ACME, b"still=here")


def test_serving_a_third_party_codec_imports_nothing_of_the_documented_codecs_and_filters(
    install: Install, start: Start, call: Call
) -> None:
    program = f"""
import sys
from asyncapy_core import Server

server = Server(port=0)

@server.add_handler()
async def tell(client, packet):
    loaded = [name for name in ({LEFT_OUT} + ("acme_codec",)) if name in sys.modules]
    await client.send({{"loaded": ",".join(loaded)}})

server.start()
"""
    server = start(install("asyncapy-core", "acme-codec"), program)
    assert call(server).ask(ACME, b"what=now") == (ACME, b"loaded=acme_codec")


def test_the_client_of_core_speaks_a_third_party_codec(install: Install, start: Start) -> None:
    environment = install("asyncapy-core", "acme-codec")
    server = start(environment, SERVER)
    program = f"""
import json
from asyncapy_core.client import Client

with Client(tls=False, encoding="acme") as client:
    client.connect("127.0.0.1", {server.port})
    client.send({{"word": "hello"}})
    print(json.dumps(client.receive()))
"""
    assert environment.answer(program) == {"word": "hello"}


def test_a_client_that_wants_a_codec_that_is_not_there_is_told_which_are(install: Install) -> None:
    done = install("asyncapy-core", "acme-codec").run("from asyncapy_core.client import Client; Client(tls=False)")
    assert done.returncode != 0
    assert "no codec is called 'json' (installed: acme)" in done.stderr
