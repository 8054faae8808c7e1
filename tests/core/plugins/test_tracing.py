"""``ASYNCAPY_TRACE_PLUGINS=1``: a line for each call of a hook."""

from __future__ import annotations

import logging
import re

import pytest
import trio
from core.plugins.conftest import Site
from hooks import Plugin, manager

from asyncapy_core import Server

PLUGIN = """
import trio

class Yes(Filter):
    def check(self, c, p):
        return True

@hookimpl
def asyncapy_filters():
    return {"Yes": Yes}

@hookimpl
async def asyncapy_setup(server):
    await trio.sleep(0)

@hookimpl
def asyncapy_wrap(handler, call):
    return call

@hookimpl
async def asyncapy_run(task_status):
    task_status.started()
    raise ValueError("secret")
"""

PROGRAM = """
from asyncapy_core import Server

server = Server(port=0)

@server.add_handler()
async def echo(client, packet):
    return packet

@server.beside
async def stop():
    server.stop()

server.start()
"""


def lines_of(text: str) -> list[str]:
    """Return the lines of the trace, without durations, and without the head that a program gives to its records."""
    lines = [line for line in text.splitlines() if " ms" in line]
    return [re.sub(r"\d+\.\d ms", "T", re.sub(r"^\[INFO\] \S+ \S+ [AP]M ", "", line)) for line in lines]


def test_each_call_of_a_hook_is_a_line(site: Site) -> None:
    site.install("ping", PLUGIN)
    done = site.run("-c", PROGRAM, ASYNCAPY_TRACE_PLUGINS="1")
    assert done.returncode == 0, done.stderr
    lines = [line for line in lines_of(done.stderr) if "'ping'" in line or "server.beside" in line]
    assert lines == [
        "asyncapy_filters of plugin 'ping' () returned dict after T",
        "asyncapy_setup of plugin 'ping' (server: Server) returned coroutine after T",
        "asyncapy_setup of plugin 'ping' ended with NoneType after T",
        "asyncapy_wrap of plugin 'ping' (handler: Handler, call: function) returned function after T",
        "asyncapy_run of plugin 'ping' (task_status: _Supervised) returned coroutine after T",
        "asyncapy_run of plugin 'ping' ended with ValueError after T",
        "function 'stop' of server.beside () returned coroutine after T",
        "function 'stop' of server.beside ended with NoneType after T",
    ]
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize("value", ["", "0"])
def test_without_the_variable_there_is_no_line(site: Site, value: str) -> None:
    site.install("ping", PLUGIN)
    done = site.run("-c", PROGRAM, ASYNCAPY_TRACE_PLUGINS=value)
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stderr) == []
    assert "ASYNCAPY_TRACE_PLUGINS" not in done.stderr


async def test_the_lines_go_to_the_logger_of_a_program_that_has_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ValueError("secret")

    monkeypatch.setenv("ASYNCAPY_TRACE_PLUGINS", "1")
    with caplog.at_level(logging.INFO, "asyncapy.plugins.trace"):
        await Server(plugins=manager(ping=Plugin(asyncapy_setup=fails))).hooks.setup(trio.CancelScope())
    messages = [record.getMessage() for record in caplog.records if record.name == "asyncapy.plugins.trace"]
    assert lines_of("\n".join(messages)) == ["asyncapy_setup of plugin 'ping' () raised ValueError after T"]
