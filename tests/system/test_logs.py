"""The records of servers and of the programs that run them: their fields, and the handlers that get them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from conftest import Serve
from numbered_peer import NumberedPeer, numbered
from peer import JSON, json_packet, packet
from program import HEAD, Caller, connected, running
from records import Records

from asyncapy import Server
from asyncapy.filters import Filter
from asyncapy_core.logs import SessionFilter

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DATE = r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M"


def recorded(server: Server) -> Records:
    records = Records()
    server.log.addFilter(records)
    return records


# Fields


@pytest.mark.parametrize("version", [22, 23])
@pytest.mark.parametrize("measure", [False, True])
async def test_the_lines_of_a_session_have_its_fields(serve: Serve, measure: bool, version: int) -> None:
    server = Server(port=0, measure=measure)
    records = recorded(server)

    @server.add_handler()
    async def moody(client: Any, packet: Any) -> None:
        sessions.append(str(client.session.session_id))
        raise RuntimeError("as asked")

    sessions: list[str] = []
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) if version == 22 else numbered("REQUEST", 1, {}))
        assert await peer.read(1)
    await running.settle()
    (session,) = sessions
    whose = {"session": session, "address": "127.0.0.1"}
    assert records.fields("New session started") == whose
    failure = records.fields("Handler 'moody' failed")
    assert (failure.pop("duration", None) is not None) is measure
    assert failure == {**whose, "version": version, "code": "ERR_HANDLER_FAILED", "handler": "moody"}
    end = records.fields("The connection was closed")
    assert 0 < end.pop("duration") < 60
    assert end == {**whose, "version": version}


async def test_the_lines_of_refusals_have_their_code(serve: Serve) -> None:
    server = Server(port=0, session_limit=1)
    records = recorded(server)
    server.guard(lambda client, packet: False)

    @server.add_handler()
    async def nothing(client: Any, packet: Any) -> None: ...

    running = await serve(server)
    async with await running.connect() as one:
        await one.send(json_packet(a=1))
        assert await one.failure() == "ERR_NO_HANDLER"
        async with await running.connect() as two:
            assert await two.failure() == "ERR_SESSION_LIMIT_REACHED"
        await one.send(packet(JSON, b"{}"))
        assert await one.failure() == "ERR_REQUEST_MALFORMED"
    await running.settle()
    assert records.fields("was refused by the guard")["code"] == "ERR_NO_HANDLER"
    assert records.fields("Refused 127.0.0.1")["code"] == "ERR_SESSION_LIMIT_REACHED"
    assert records.fields("ERR_REQUEST_MALFORMED for 127.0.0.1")["code"] == "ERR_REQUEST_MALFORMED"


async def test_the_lines_about_filters_and_answers_name_the_handler(serve: Serve) -> None:
    server = Server(port=0)
    records = recorded(server)

    class Odd(Filter):
        def check(self, c: Any, p: Any) -> bool:
            raise RuntimeError("as asked")

    @server.add_handler(Odd())
    async def odd(client: Any, packet: Any) -> None: ...

    @server.add_handler()
    async def silent(client: Any, packet: Any) -> None: ...

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await trio.testing.wait_all_tasks_blocked(0.05)
    await running.settle()
    assert records.fields("A filter of 'odd' raised")["handler"] == "odd"
    assert records.fields("Handler 'silent' has not answered")["handler"] == "silent"


async def test_the_line_of_a_peer_without_a_session_has_its_address(serve: Serve) -> None:
    server = Server(port=0, proxy_protocol_from="127.0.0.1")
    records = recorded(server)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"no PROXY header\r\n")
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.closed()
    await running.settle()
    assert records.fields("No session for") == {"address": "127.0.0.1"}


async def test_a_level_that_changes_while_a_server_serves_holds_for_its_next_sessions(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(port=0)
    records = recorded(server)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    levels = []
    for level in (logging.NOTSET, logging.DEBUG, logging.WARNING):
        caplog.set_level(level, "asyncapy")
        records.all.clear()
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}
        await running.settle()
        levels.append({record.levelno for record in records.all})
    assert levels == [{logging.INFO}, {logging.INFO, logging.DEBUG}, set()]


@pytest.mark.parametrize("version", [22, 23])
async def test_what_a_handler_logs_with_other_loggers_has_the_fields_of_its_session(
    serve: Serve, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(SessionFilter())
    caplog.set_level(logging.INFO, "shop")
    server, shop = Server(port=0), logging.getLogger("shop")

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        sessions.append(str(client.session.session_id))
        shop.info("at once")
        await trio.lowlevel.checkpoint()
        shop.info("after a wait")
        await server.run_sync_task(shop.info, "in a thread")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(below)
        await client.send(packet)

    async def below() -> None:
        shop.info("in a task below")

    sessions: list[str] = []
    running = await serve(server)
    if version == 22:
        async with await running.connect() as first, await running.connect() as second:
            assert await first.ask(a=1) == await second.ask(a=1) == {"a": 1}
    else:
        async with await NumberedPeer.connect(running.port) as one, await NumberedPeer.connect(running.port) as two:
            await one.ask(a=1)
            await two.ask(a=1)
    shop.info("outside")
    *inside, outside = [record for record in caplog.records if record.name == "shop"]
    assert len(inside) == 8
    found = {(vars(record).get("session"), vars(record).get("version")) for record in inside}
    assert found == {(session, version) for session in sessions}
    assert len(found) == 2
    assert "session" not in vars(outside)


# The handlers of a program

HANDLER = """
import logging, logging.config

server = Server(port=0)

@server.add_handler()
async def sell(client, packet):
    logging.info("sold %d", packet["a"])
    logging.getLogger("shop").info("of the shop")
    await client.send(packet)
"""


def lines_of(path: Path, text: str) -> list[str]:
    """Run a program, send it one packet, and return its lines on standard error."""
    with running(path, text) as program, program.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        program.wait_for("of the shop")
        assert program.end(signal.SIGTERM) == 0
    return program.err


def test_what_a_handler_logs_is_shown_by_start_in_the_documented_form(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, f"{HANDLER}\nserver.start()\nlogging.info('ended')")
    (started,) = [line for line in lines if "New session started" in line]
    (session,) = re.findall(UUID, started)
    (sold,) = [line for line in lines if "sold 1" in line]
    assert re.fullmatch(rf"\[INFO\] {DATE} \({session}\) sold 1", sold)
    (shop,) = [line for line in lines if "of the shop" in line]
    assert re.fullmatch(rf"\[INFO\] {DATE} \({session}\) of the shop", shop)
    assert "ended" not in lines[-1], "the root logger is as before"


def test_a_program_that_logs_before_it_configures_anything_changes_no_line(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, f"import logging\nlogging.warning('loading')\n{HANDLER}\nserver.start()\n")
    assert lines[0] == "WARNING:root:loading"
    assert [line for line in lines if re.fullmatch(rf"\[INFO\] {DATE} \({UUID}\) sold 1", line)]
    assert all(re.match(rf"\[[A-Z]+\] {DATE} ", line) for line in lines[1:])


def test_a_program_with_a_format_for_all_loggers_has_it_for_the_server_and_no_line_twice(tmp_path: Path) -> None:
    basic = 'logging.basicConfig(level="INFO", format="%(name)s|%(message)s")'
    lines = lines_of(tmp_path, f"{HANDLER}\n{basic}\nserver.start()\n")
    assert [line for line in lines if re.fullmatch(r"asyncapy\.server\|\{Client handler\} New session started.*", line)]
    assert "root|sold 1" in lines
    assert "shop|of the shop" in lines
    assert len(set(lines)) == len(lines)
    assert all("|" in line for line in lines)


def test_a_server_in_a_program_that_runs_trio_itself_leaves_the_root_logger_alone(tmp_path: Path) -> None:
    text = f"""{HANDLER}
root = logging.getLogger()

@server.add_handler(group=1)
async def look(client, packet):
    note(root.level, root.handlers)

async def main():
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            async for _ in signals:
                server.stop()
                break

root.addHandler(logging.NullHandler())
trio.run(main)
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        assert program.end(signal.SIGTERM) == 0
    assert program.out == ["30 [<NullHandler (NOTSET)>]"]
    assert [line for line in program.err if re.match(rf"\[INFO\] {DATE} \{{Client handler\}} New session", line)]
    assert not [line for line in program.err if "sold" in line]


DICT_CONFIG = """
logging.config.dictConfig({
    "version": 1,
    "formatters": {"fields": {"format": "%(name)s %(levelname)s %(session)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "log", "formatter": "fields"}},
    "loggers": {NAME: {"handlers": ["file"], "level": "WARNING"}},
    "disable_existing_loggers": False,
})
"""


@pytest.mark.parametrize("name", ["asyncapy", "asyncapy.server"])
def test_a_configuration_of_the_logging_module_decides_where_the_lines_go(tmp_path: Path, name: str) -> None:
    failing = """
@server.add_handler(group=-1)
async def fail(client, packet):
    if packet["a"] == 2:
        raise RuntimeError("as asked")
"""
    text = HANDLER + failing + DICT_CONFIG.replace("NAME", repr(name)) + "server.start()\n"
    text = text.replace("port=0", 'addr="unix:api.sock"')
    with running(tmp_path, text) as program:
        with Caller(connected(tmp_path / "api.sock", program.process)) as caller:
            assert caller.ask(a=1) == {"a": 1}
            assert caller.ask(a=2)["error"] == "ERR_HANDLER_FAILED"
        assert program.end(signal.SIGTERM) == 0
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.match(rf"asyncapy\.server ERROR {UUID} \({UUID}\) \{{API Parser\}} Handler 'fail' failed", line)
    assert not [line for line in program.err if "asyncapy" in line or "Client handler" in line]
    assert [line for line in program.err if "sold 1" in line], "the program's own records go to the console"


def test_two_servers_in_one_process_keep_their_levels_and_formats(tmp_path: Path) -> None:
    text = """
import logging

one = Server(port=0, logging_level="DEBUG", console_format="one %(levelname)s %(message)s")
two = Server(port=0, logging_level="ERROR", console_format="two %(levelname)s %(message)s")

for server in (one, two):
    @server.add_handler()
    async def echo(client, packet):
        logging.getLogger("shop").info("sold")
        await client.send(packet)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(one.serve)
        await nursery.start(two.serve)
        note(one.port, two.port)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        two.log.error("the end")
        one.stop()
        two.stop()

trio.run(main)
"""
    with running(tmp_path, text) as program:
        ports = [int(port) for port in program.wait_for(r"(\d+) (\d+)", program.out).groups()]
        for port in ports:
            with Caller(port) as caller:
                assert caller.ask(a=1) == {"a": 1}
        assert program.end(signal.SIGTERM) == 0
    assert [line for line in program.err if line.startswith("one DEBUG")]
    assert [line for line in program.err if line.startswith("two ")] == ["two ERROR the end"]


# Handlers that block


@contextmanager
def unread(path: Path, text: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a program whose standard error is a pipe that nobody reads, with a server on a socket in the folder."""
    (path / "program.py").write_text(HEAD + text, encoding="utf-8")
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(path / "program.py")], stdout=subprocess.PIPE, stderr=write, text=True, cwd=path
    )
    os.close(write)
    try:
        yield process, path / "api.sock"
    finally:
        process.kill()
        process.wait()
        os.close(read)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("configured", [False, True])
def test_a_pipe_that_nobody_reads_holds_up_no_handler_that_logs(tmp_path: Path, configured: bool) -> None:
    text = f"""
import logging, os

server = Server(addr="unix:api.sock", logging_level="DEBUG")

@server.add_handler()
async def echo(client, packet):
    {"client.log" if configured else "logging"}.info("x" * 1000)
    await client.send(packet)

if {configured}:
    logging.basicConfig(format="%(message)s")
server.start()
note("end")
os._exit(0)  # the stream of the application's handler is blocked
"""
    with unread(tmp_path, text) as (process, path):
        assert process.stdout is not None
        with Caller(connected(path, process)) as caller:
            for number in range(500):
                assert caller.ask(number=number) == {"number": number}
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "end\n"
        assert process.wait(20) == 0


def test_a_process_that_a_handler_forks_logs_with_all_loggers_and_obeys_signals(tmp_path: Path) -> None:
    text = """
import logging, multiprocessing, os
server = Server(port=0)
fork = multiprocessing.get_context("fork")
file = logging.FileHandler("log")
logging.getLogger("shop").addHandler(file)

def work(event):
    logging.info("from the fork")
    logging.getLogger("shop").warning("sold in the fork")
    server.log.info("told in the fork")
    event.set()
    time.sleep(60)

@server.add_handler()
async def handler(client, packet):
    for _ in range(5):
        logging.info("before")
        event = fork.Event()
        process = fork.Process(target=work, args=(event,))
        process.start()
        began = event.wait(10)
        process.terminate()
        process.join(10)
        await client.send({"logged": began, "status": process.exitcode})

server.start()
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        for _ in range(5):
            assert caller.receive() == {"logged": True, "status": -signal.SIGTERM}
        assert program.end(signal.SIGTERM) == 0
        lines = [line for line in program.err if "from the fork" in line]
    assert len(lines) == 5
    assert all(re.fullmatch(rf"\[INFO\] {DATE} \({UUID}\) from the fork", line) for line in lines)
    assert len([line for line in program.err if line.endswith("told in the fork")]) == 5
    assert len([line for line in program.err if line.endswith(") before")]) == 5
    assert (tmp_path / "log").read_text() == "sold in the fork\n" * 5


# Tests of users

USERS_TEST = """
import logging
from asyncapy import Server

server = Server()

@server.add_handler()
async def read(client, packet):
    logging.getLogger("shop").info("sold")
    if packet["a"] == 2:
        raise KeyError("as asked")
    return packet

async def test_caplog_has_the_records(asyncapy_server, caplog):
    caplog.set_level(logging.INFO, "shop")
    caplog.set_level(logging.DEBUG, "asyncapy")  # the last call decides about the handler of caplog
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
        (started,) = [record for record in caplog.records if "New session started" in record.getMessage()]
        assert started.name == "asyncapy.server"
        assert started.address == "127.0.0.1"
        assert "sold" in caplog.messages
        (called,) = [record for record in caplog.records if "Calling" in record.getMessage()]
        assert (called.levelno, called.handler) == (logging.DEBUG, "read")
        assert (await client.request({"a": 2}))["error"] == "ERR_HANDLER_FAILED"
        (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert (failed.handler, failed.code, failed.session) == ("read", "ERR_HANDLER_FAILED", started.session)

async def test_caplog_can_ask_for_errors_only(asyncapy_server, caplog):
    caplog.set_level(logging.ERROR, "asyncapy.server")
    running = await asyncapy_server(server)
    async with running.client() as client:
        await client.request({"a": 1})
    assert not [record for record in caplog.records if record.name == "asyncapy.server"]
"""


def test_caplog_of_pytest_has_the_records_of_a_server(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:valkey", "test_users.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
