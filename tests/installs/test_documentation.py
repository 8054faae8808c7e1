"""The programs of the reference documentation, with the umbrella package in a fresh environment.

Only the port is changed. One erratum: the testing client does ``import asyncapy.client`` and then uses the bare name
``client``, which that line does not bind; this module replaces the line with ``from asyncapy import client``.
"""

from __future__ import annotations

import ast
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Call, Environment, Install, Program, Start

DOCUMENTATION = Path(__file__).parents[1] / "documentation"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M"


@pytest.fixture
def umbrella(install: Install) -> Environment:
    return install("asyncapy")


def documented(name: str, port: int = 0) -> str:
    """Return a program of the documentation with another port; 0 lets the system pick a free one."""
    text = (DOCUMENTATION / name).read_text("utf-8")
    assert text.count("1500") == 1
    return text.replace("1500", str(port))


def stop(program: Program) -> None:
    """End a server as the documentation does, with Ctrl+C."""
    assert program.stop(signal.SIGINT) == 0
    assert "Traceback" not in program.errors


def test_the_umbrella_brings_core_codecs_and_filters(umbrella: Environment) -> None:
    program = """
import json
from importlib.metadata import distributions
print(json.dumps([distribution.name for distribution in distributions()]))
"""
    assert {"asyncapy", "asyncapy-core", "asyncapy-codecs", "asyncapy-filters"} <= set(umbrella.answer(program))


def test_everything_that_the_documentation_names_is_where_it_says(umbrella: Environment) -> None:
    program = """
import asyncapy.client, asyncapy.core, asyncapy.errors, asyncapy.filters, asyncapy.server, asyncapy.util, json

names = [
    asyncapy.Server, asyncapy.server.Server, asyncapy.client.Client,
    asyncapy.core.Client, asyncapy.core.Handler, asyncapy.core.Packet, asyncapy.core.Session,
    asyncapy.errors.StopPropagation, asyncapy.filters.Filter, asyncapy.filters.Filters,
    asyncapy.filters.Filters.APIFactory, asyncapy.filters.Filters.Fields, asyncapy.filters.Filters.Ip,
    asyncapy.util.APIKeyFactory,
]
print(json.dumps([[name.__name__, isinstance(name, type)] for name in names]))
"""
    wanted = ["Server", "Server", "Client", "Client", "Handler", "Packet", "Session", "StopPropagation"]
    wanted += ["Filter", "Filters", "APIFactory", "Fields", "Ip", "APIKeyFactory"]
    assert umbrella.answer(program) == [[name, True] for name in wanted]


def test_the_first_server_echoes_what_the_testing_client_sends(umbrella: Environment, start: Start) -> None:
    server = start(umbrella, documented("hello_server.py"))
    text = documented("testing_client.py", server.port)
    assert text.startswith("import asyncapy.client\n")
    client = umbrella.run(text.replace("import asyncapy.client\n", "from asyncapy import client\n"))
    assert client.returncode == 0, client.stderr
    assert ast.literal_eval(client.stdout) == {"test": 1}
    stop(server)
    assert server.output == ["Hello world from Client (127.0.0.1)!", 'Echoing back Packet({"test": 1})...']


def test_the_first_server_answers_in_both_encodings_and_closes(umbrella: Environment, start: Start, call: Call) -> None:
    server = start(umbrella, documented("hello_server.py"))
    caller = call(server)
    assert caller.ask_json(test=1) == {"test": 1}
    assert caller.reply() is None
    caller = call(server)
    assert caller.ask(1, b"\x81\xa3foo\xa3bar") == (1, b"\x81\xa3foo\xa3bar")
    assert caller.reply() is None


def test_the_server_logs_a_session_in_the_documented_form(umbrella: Environment, start: Start, call: Call) -> None:
    server = start(umbrella, documented("hello_server.py"))
    with call(server) as caller:
        caller.ask_json(test=1)
    started = rf"\{{Client handler\}} New session started, UUID is ({UUID}), address is 127\.0\.0\.1$"
    began = server.wait_for(rf"^\[INFO\] {TIME} {started}", "stderr")
    server.wait_for(rf"^\[INFO\] {TIME} \({began[1]}\) \{{Client handler\}} The connection was closed$", "stderr")


def test_the_debug_log_has_the_documented_lines_in_their_order(umbrella: Environment, start: Start, call: Call) -> None:
    server = start(umbrella, documented("hello_server.py"), ASYNCAPY_LOGGING_LEVEL="10")
    with call(server) as caller:
        caller.ask(0, b'{"test":1}')
    session = server.wait_for(rf"New session started, UUID is ({UUID}), address is 127.0.0.1$", "stderr")[1]
    server.wait_for("The connection was closed", "stderr")
    messages = [line.partition(f"({session}) ")[2] for line in server.lines["stderr"] if f"({session}) " in line]
    assert messages[:7] == [
        "{Client handler} Expected stream length is 10",
        "{API Parser} Protocol-Version is V2, Content-Encoding is json",
        "{API Parser} Checking group 0",
        "{API Parser} Calling 'echo_server' in group 0",
        "{Response handler} Sending response to client",
        "{Response handler} Response sent",
        "{Client handler} The connection was closed",
    ]


def test_the_groups_program_runs_the_handler_of_the_lower_group_first(
    umbrella: Environment, start: Start, call: Call
) -> None:
    server = start(umbrella, documented("groups.py"))
    caller = call(server)
    assert caller.ask_json(test=1) == {"test": 1}
    assert caller.json() == {"test": 1}
    assert caller.reply() is None
    stop(server)
    assert server.output == [
        "Hello world from Client (127.0.0.1) inside a group!",
        'Echoing back Packet({"test": 1})...',
        "Hello world from Client (127.0.0.1)!",
        'Echoing back Packet({"test": 1})...',
    ]


def test_the_line_that_the_groups_program_has_in_a_comment_stops_propagation(
    umbrella: Environment, start: Start, call: Call
) -> None:
    text = documented("groups.py")
    assert text.count("# packet.stop_propagation()") == 1
    server = start(umbrella, text.replace("# packet.stop_propagation()", "packet.stop_propagation()"))
    caller = call(server)
    assert caller.ask_json(test=1) == {"test": 1}
    assert caller.ask_json(test=2) == {"test": 2}
    caller.finish()
    assert caller.reply() is None
    stop(server)
    assert "Hello world from Client (127.0.0.1)!" not in server.output


def test_the_filter_program_lets_through_what_its_comment_says_and_nothing_else(
    umbrella: Environment, start: Start, call: Call
) -> None:
    server = start(umbrella, documented("filters_fields.py"))
    caller = call(server)
    refused = {"status": "failure", "error": "ERR_NO_HANDLER"}
    assert caller.ask_json(foo="digits", bar="anything") == refused
    assert caller.ask_json(foo=12355) == refused
    assert caller.ask_json(foo=12355, bar="anything", more=1) == refused
    assert caller.ask_json(foo=12355, bar="anything") is None
    stop(server)
    assert server.output == [
        'Look at this! Client (127.0.0.1) sent me Packet({"foo": 12355, "bar": "anything"})!',
    ]


def test_the_program_with_several_filters_wants_all_of_them_to_pass(
    umbrella: Environment, start: Start, call: Call
) -> None:
    server = start(umbrella, documented("filters_several.py"))
    caller = call(server)
    assert caller.ask_json(foo=1) == {"status": "failure", "error": "ERR_NO_HANDLER"}
    assert caller.ask_json(foo=1, bar=None) is None
    stop(server)
    assert server.output == ['Look at this! Client (127.0.0.1) sent me Packet({"foo": 1, "bar": null})!']


def test_the_decorated_handler_that_does_nothing_is_called_and_answers_nothing(
    umbrella: Environment, start: Start, call: Call
) -> None:
    server = start(umbrella, documented("decorator.py"), ASYNCAPY_LOGGING_LEVEL="DEBUG")
    with call(server) as caller:
        caller.send(0, b'{"test": 1}')
        caller.send(0, b'{"test": 2}')
        caller.finish()
        assert caller.reply() is None
    stop(server)
    assert server.errors.count("Calling 'your_handler' in group 0") == 2
