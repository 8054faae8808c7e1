"""Server programs from start to end, each in a process of its own: signals, drain, setup, shutdown, ports, logs."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from peer import JSON, Peer, json_packet, packet
from program import ECHO, Caller, running

from asyncapy import Server
from asyncapy.errors import BindError, ConfigError

UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"

# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_start_in_order_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    text = """
class Mine(Server):
    def setup(self):
        note("setup")

    def shutdown(self):
        note("shutdown")

server = Mine(port=0)

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
note("start has returned")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        assert program.out == ["setup"]
        assert program.end(number) == 0
        assert caller.receive() is None
        assert program.out == ["setup", "shutdown", "start has returned"]
        assert not [line for line in program.err if "Traceback" in line or "ERROR" in line]


def test_async_setup_and_shutdown_are_awaited(tmp_path: Path) -> None:
    text = """
class Mine(Server):
    async def setup(self):
        note("setup", self.addresses)
        await trio.sleep(0.05)
        note("set up")

    async def shutdown(self):
        note("shutdown")
        await trio.sleep(0.05)
        note("shut down")

Mine(port=0, plugins_allow=["codecs"]).start()
"""
    with running(tmp_path, text) as program:
        assert program.port
        assert program.end(signal.SIGTERM) == 0
        assert program.out == ["setup ()", "set up", "shutdown", "shut down"]


@pytest.mark.parametrize(
    ("define", "call"), [("async def", "await super()"), ("async def", "super()"), ("def", "super()")]
)
def test_the_default_setup_and_shutdown_may_be_called_by_an_override(tmp_path: Path, define: str, call: str) -> None:
    text = f"""
class Mine(Server):
    {define} setup(self):
        {call}.setup()
        note("setup")

    {define} shutdown(self):
        {call}.shutdown()
        note("shutdown")

Mine(port=0).start()
"""
    with running(tmp_path, text) as program:
        assert program.port
        assert program.end(signal.SIGINT) == 0
        assert program.out == ["setup", "shutdown"]
        assert not [line for line in program.err if "never awaited" in line]


def connect_until_refused(port: int) -> None:
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            socket.create_connection(("127.0.0.1", port), 10).close()


def test_a_hundred_requests_in_flight_are_answered_when_the_signal_comes(tmp_path: Path) -> None:
    text = """
import os

server = Server(port=0, drain_timeout=60)
begun = 0

@server.add_handler()
async def slow(client, packet):
    global begun
    begun += 1
    if begun == 100:
        note("all have begun")
    while not os.path.exists("finish"):
        await trio.sleep(0.01)
    await client.send(packet)

server.start()
note("end")
"""
    with running(tmp_path, text) as program, contextlib.ExitStack() as stack:
        port = program.port
        callers = [stack.enter_context(Caller(port)) for _ in range(100)]
        for number, caller in enumerate(callers):
            caller.send(number=number)
        program.wait_for("all have begun", program.out)
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("Stopping")
        connect_until_refused(port)
        assert program.process.poll() is None, "the server refuses new connections while it answers the requests"
        (tmp_path / "finish").touch()
        for number, caller in enumerate(callers):
            assert caller.receive() == {"number": number}
            assert caller.receive() is None
        assert program.end() == 0
        assert program.out == ["all have begun", "end"]


def test_handlers_that_are_not_done_after_drain_timeout_are_cut_off(tmp_path: Path) -> None:
    text = """
class Mine(Server):
    def shutdown(self):
        note("shutdown")

server = Mine(port=0, drain_timeout=0.3)

@server.add_handler()
async def endless(client, packet):
    note("begun")
    await trio.sleep(60)

server.start()
note("end")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        program.wait_for("begun", program.out)
        began = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        assert time.monotonic() - began >= 0.3
        assert program.out == ["begun", "shutdown", "end"]
        assert [line for line in program.err if "did not finish in time" in line]
        assert not [line for line in program.err if "Traceback" in line]


def test_no_connection_is_waited_for_that_has_no_handler_at_work(tmp_path: Path) -> None:
    # The drain timeout is longer than a test waits for a program.
    text = ECHO.replace("port=0", "port=0, drain_timeout=60") + "server.start()"
    with running(tmp_path, text) as program, program.connect() as idle, program.connect() as half:
        assert idle.ask(a=1) == {"a": 1}
        half.socket.sendall(json_packet(a=1) + json_packet(a=2)[:9])
        assert half.receive() == {"a": 1}
        assert program.end(signal.SIGTERM) == 0
        assert idle.receive() is None
        assert half.receive() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_program_at_once(tmp_path: Path, number: signal.Signals) -> None:
    text = """
server = Server(port=0, drain_timeout=60)

@server.add_handler()
async def endless(client, packet):
    note("begun")
    await trio.sleep(60)

server.start()
note("not reached")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        program.wait_for("begun", program.out)
        program.process.send_signal(number)
        program.wait_for("Stopping")
        assert program.end(number) == -number
        assert program.out == ["begun"]


def test_the_signals_mean_what_they_did_before_when_start_has_returned(tmp_path: Path) -> None:
    text = (
        ECHO
        + """
signal.signal(signal.SIGTERM, lambda *_: note("my own"))
server.start()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.raise_signal(signal.SIGTERM)
"""
    )
    with running(tmp_path, text) as program:
        assert program.port
        assert program.end(signal.SIGINT) == 0
        assert program.out == ["my own"]


def test_a_server_may_be_started_again_after_it_has_ended(tmp_path: Path) -> None:
    text = ECHO + "server.start()\nnote('again')\nserver.start()\nnote('end')\n"
    with running(tmp_path, text) as program:
        with program.connect() as caller:
            assert caller.ask(a=1) == {"a": 1}
        program.process.send_signal(signal.SIGTERM)
        program.wait_for("again", program.out)
        with Caller(program.port_of(start=2)) as caller:
            assert caller.ask(a=2) == {"a": 2}
        assert program.end(signal.SIGTERM) == 0
        assert program.out == ["again", "end"]


# Starting


def test_a_port_in_use_is_one_line_on_standard_error_and_a_status_that_is_not_0(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"""
class Mine(Server):
    def shutdown(self):
        note("shutdown")

Mine(port={port}).start()
note("not reached")
"""
        with running(tmp_path, text) as program:
            assert program.end() == 1
            (line,) = program.err
            assert f"127.0.0.1:{port}" in line
            assert "in use" in line
            assert program.out == ["shutdown"], "a server that was set up is shut down"


@pytest.mark.parametrize("addr", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_this_machine_does_not_have_is_one_line_on_standard_error(tmp_path: Path, addr: str) -> None:
    with running(tmp_path, f"Server(addr={addr!r}, port=0).start()") as program:
        assert program.end() == 1
        (line,) = program.err
        assert addr in line


def test_a_setup_that_raises_keeps_the_port_closed_and_the_status_is_not_0(tmp_path: Path) -> None:
    text = """
import socket

class Mine(Server):
    async def setup(self):
        raise RuntimeError("setup has failed")

    def shutdown(self):
        note("shutdown")

listening = socket.socket.listen
socket.socket.listen = lambda *arguments: (note("a port was opened"), listening(*arguments))
Mine(port=0).start()
note("not reached")
"""
    with running(tmp_path, text) as program:
        assert program.end() == 1
        assert program.out == []
        assert [line for line in program.err if "setup has failed" in line]
        assert not [line for line in program.err if "Serving" in line]


def test_a_required_plugin_that_raises_in_setup_keeps_the_port_closed_and_the_earlier_ones_are_shut_down(
    tmp_path: Path,
) -> None:
    text = """
import socket
from asyncapy_core import hookimpl
from asyncapy_core.plugins.manager import PluginManager

class Good:
    def __init__(self, name):
        self.name = name

    @hookimpl
    async def asyncapy_setup(self, server):
        note(self.name, "setup")

    @hookimpl
    def asyncapy_shutdown(self, server):
        note(self.name, "shutdown")

class Bad:
    @hookimpl
    def asyncapy_setup(self, server):
        raise RuntimeError("no database")

    @hookimpl
    def asyncapy_shutdown(self, server):
        note("bad shutdown")

class Mine(Server):
    def setup(self):
        note("not reached")

listening = socket.socket.listen
socket.socket.listen = lambda *arguments: (note("a port was opened"), listening(*arguments))
plugins = PluginManager()
plugins.register(Good("a"), name="a")
plugins.register(Good("b"), name="b")
plugins.register(Bad(), name="c")
Mine(port=0, plugins=plugins, plugins_require=["c"]).start()
note("not reached")
"""
    with running(tmp_path, text) as program:
        status = program.end()
        assert program.out == ["a setup", "b setup", "b shutdown", "a shutdown"], program.err
        assert status == 1
        assert [line for line in program.err if "no database" in line]


def test_a_wrong_setting_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"port is 65536, from the argument port.*0 to 65535"):
        Server(port=65536)


def test_a_signal_cancels_a_setup_that_hangs(tmp_path: Path) -> None:
    text = """
class Mine(Server):
    async def setup(self):
        note("setup")
        self.exit_stack.callback(note, "closed")
        await trio.sleep_forever()

    def shutdown(self):
        note("shutdown")

server = Mine(port=0)
server.start()
note("end")
"""
    with running(tmp_path, text) as program:
        program.wait_for("setup", program.out)
        assert program.end(signal.SIGTERM) == 0
        assert program.out == ["setup", "closed", "end"]
        assert "Stopped before it listened" in program.err[-1]


# In a nursery


async def test_serve_reports_its_addresses_when_it_listens() -> None:
    server = Server(port=0)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.serve)
        assert addresses == server.addresses
        assert addresses[0][0] == "127.0.0.1"
        assert server.port == addresses[0][1] != 0
        async with await Peer.connect(server.port) as peer:
            await peer.send(json_packet(a=1))
            assert await peer.failure() == "ERR_NO_HANDLER"
        server.stop()
    assert server.addresses == ()


class Noting(Server):
    """A server that notes the calls of setup and shutdown."""

    events: list[str]

    async def setup(self) -> None:
        self.events = ["setup"]

    async def shutdown(self) -> None:
        await trio.sleep(0.01)
        self.events.append("shutdown")


async def test_cancelling_the_nursery_runs_shutdown_and_closes_all() -> None:
    server = Noting(port=0)
    started = trio.Event()

    @server.add_handler()
    async def endless(client: Any, packet: Any) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            server.events.append("handler ended")

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        port = server.port
        peer = await Peer.connect(port)
        await peer.send(json_packet(a=1))
        await started.wait()
        nursery.cancel_scope.cancel()
    assert server.events == ["setup", "handler ended", "shutdown"]
    assert await peer.closed()
    await peer.stream.aclose()
    with pytest.raises(OSError, match="connect"):
        await Peer.connect(port)


async def test_stop_lets_serve_return() -> None:
    server = Noting(port=0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()
    assert server.events == ["setup", "shutdown"]


async def test_serving_twice_at_a_time_is_a_mistake(serve: Serve) -> None:
    running = await serve()
    with pytest.raises(RuntimeError, match="already"):
        await running.server.serve()
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}


async def test_a_port_in_use_is_a_bind_error(serve: Serve) -> None:
    running = await serve()
    with pytest.raises(BindError, match="in use"):
        await Server(port=running.port).serve()


async def test_what_setup_entered_into_the_exit_stack_is_closed_after_shutdown() -> None:
    class Opening(Noting):
        async def setup(self) -> None:
            await super().setup()
            self.exit_stack.callback(self.events.append, "closed")

    server = Opening(port=0)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        server.stop()
    assert server.events == ["setup", "shutdown", "closed"]


def _has_ipv6_loopback() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


async def test_ipv6_is_served_too(serve: Serve) -> None:
    if not (socket.has_ipv6 and _has_ipv6_loopback()):
        pytest.skip("this machine has no IPv6 loopback address")
    server = Server(addr="::1", port=0)
    seen: list[str] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> None:
        seen.append(client.address)
        await client.send(packet)

    running = await serve(server)
    async with await Peer.connect(running.port, "::1") as peer:
        assert await peer.ask(a=1) == {"a": 1}
    assert seen == ["::1"]


# Two servers


async def test_two_servers_in_one_process_share_nothing(serve: Serve) -> None:
    one, two = Server(port=0, session_limit=1, logging_level=10), Server(port=0, session_limit=1)
    assert one.log is not two.log
    assert (one.log.getEffectiveLevel(), two.log.getEffectiveLevel()) == (10, 20)

    @one.add_handler()
    async def first(client: Any, packet: Any) -> None:
        await client.send({"one": len(client.get_sessions())})

    @two.add_handler(group=5)
    async def second(client: Any, packet: Any) -> None:
        await client.send({"two": len(client.get_sessions())})

    assert (list(one.handlers), list(two.handlers)) == ([0], [5])
    running_one, running_two = await serve(one), await serve(two)
    async with await running_one.connect() as peer_one, await running_two.connect() as peer_two:
        assert await peer_one.ask(a=1) == {"one": 1}
        assert await peer_two.ask(a=1) == {"two": 1}
        assert running_one.logged("DEBUG")
        assert not running_two.logged("DEBUG")
        one.stop()
        assert await peer_one.closed()
        assert await peer_two.ask(a=2) == {"two": 1}
    assert running_two.logged("New session started") != running_one.logged("New session started")
    assert len(running_two.logged("New session started")) == 1


def test_the_level_and_the_formats_of_a_server_affect_its_own_logger_only() -> None:
    names = [None, "asyncapy", "trio"]
    before = [(log.level, list(log.handlers), log.propagate) for log in map(logging.getLogger, names)]
    registered = set(logging.root.manager.loggerDict)
    server = Server(port=0, logging_level=logging.DEBUG, console_format="%(message)s", datefmt="%H")
    assert server.log.level == logging.DEBUG
    after = [(log.level, list(log.handlers), log.propagate) for log in map(logging.getLogger, names)]
    assert after == before
    assert set(logging.root.manager.loggerDict) <= registered | {"asyncapy"}


# Logs


def test_the_log_on_standard_error_has_the_documented_form(tmp_path: Path) -> None:
    text = """
server = Server(addr="127.0.0.1", port=0, logging_level=10)

@server.add_handler()
async def echo_server(client, packet):
    note(f"Hello world from {client}!")
    note(f"Echoing back {packet}...")
    await client.send(packet)

server.start()
"""
    with running(tmp_path, text) as program:
        with program.connect() as caller:
            assert caller.ask(test=1) == {"test": 1}
        program.wait_for("The connection was closed")
        assert program.end(signal.SIGTERM) == 0
    assert program.out == ["Hello world from Client (127.0.0.1)!", 'Echoing back Packet({"test": 1})...']
    date = r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M"
    start = next(number for number, line in enumerate(program.err) if "New session started" in line)
    session = re.search(UUID, program.err[start])
    assert session is not None
    wanted = [
        rf"\[INFO\] {date} \{{Client handler\}} New session started, UUID is {UUID}, address is 127.0.0.1",
        rf"\[DEBUG\] {date} \({UUID}\) \{{Client handler\}} Expected stream length is \d+",
        rf"\[DEBUG\] {date} \({UUID}\) \{{API Parser\}} Protocol-Version is V2, Content-Encoding is json",
        rf"\[DEBUG\] {date} \({UUID}\) \{{API Parser\}} Checking group 0",
        rf"\[DEBUG\] {date} \({UUID}\) \{{API Parser\}} Calling 'echo_server' in group 0",
        rf"\[DEBUG\] {date} \({UUID}\) \{{Response handler\}} Sending response to client",
        rf"\[DEBUG\] {date} \({UUID}\) \{{Response handler\}} Response sent",
        rf"\[INFO\] {date} \({UUID}\) \{{Client handler\}} The connection was closed",
    ]
    lines = program.err[start : start + len(wanted)]
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.fullmatch(pattern, line), line
        assert session[0] in line


def test_the_formats_that_a_server_is_given_are_those_of_its_lines(tmp_path: Path) -> None:
    text = ECHO.replace("port=0", 'port=0, console_format="<%(levelname)s|%(asctime)s> %(message)s", datefmt="%Y"')
    with running(tmp_path, text + "server.start()") as program:
        assert program.port
        assert program.end(signal.SIGTERM) == 0
    assert program.err
    assert all(re.match(r"<INFO\|\d{4}> \{Server\} ", line) for line in program.err)


@pytest.mark.parametrize(("level", "sessions"), [(20, 1), (30, 0)])
async def test_the_level_decides_which_lines_are_written(serve: Serve, level: int, sessions: int) -> None:
    running = await serve(logging_level=level)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
    await running.settle()
    assert len(running.logged("New session started")) == sessions
    assert len(running.logged("The connection was closed")) == sessions
    assert not running.logged("DEBUG")


def without_uuid(running: Running) -> list[str]:
    return [line for line in running.lines if not re.search(rf"{UUID}|\{{Server\}}", line)]


async def test_each_line_that_a_session_writes_has_its_uuid(serve: Serve) -> None:
    server = Server(port=0, logging_level=10, timeout=0.3, session_limit=3)

    @server.add_handler()
    async def moody(client: Any, packet: Any) -> None:
        if packet.get("fail"):
            raise RuntimeError("as asked")
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as one, await running.connect() as two, await running.connect() as three:
        assert await one.ask(a=1) == {"a": 1}
        await one.send(json_packet(fail=1))
        assert await one.failure() == "ERR_HANDLER_FAILED"
        await two.send(packet(JSON, b"{}"))
        assert await two.failure() == "ERR_REQUEST_MALFORMED"
        assert await three.failure() == "ERR_TIMED_OUT"
    await running.settle()
    assert without_uuid(running) == []
    assert running.logged("as asked")


async def test_the_line_of_a_refused_connection_has_a_uuid_too(serve: Serve) -> None:
    running = await serve(session_limit=1)
    async with await running.connect() as one, await running.connect() as two:
        assert await one.ask(a=1) == {"a": 1}
        assert await two.failure() == "ERR_SESSION_LIMIT_REACHED"
    await running.settle()
    assert len(running.logged("ERR_SESSION_LIMIT_REACHED")) == 1
    assert without_uuid(running) == []
