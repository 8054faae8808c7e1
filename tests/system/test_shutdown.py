"""The end of a server: the causes, the time it takes, and the files it leaves; and that its log blocks no task."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Serve, Start
from peer import Peer, json_packet
from program import ECHO, HEAD, Caller, connected, running

from asyncapy import Server
from asyncapy.errors import BindError

# After a signal, no other packet is handled, and no busy peer delays the end

COUNTING = """
server = Server(port=0, drain_timeout=10)
handled = 0

@server.add_handler()
async def count(client, packet):
    global handled
    handled += 1
    if handled == 1:
        note("begun")
    await trio.sleep({pause})
    await client.send(packet)

server.start()
note("handled", handled)
"""


@pytest.mark.parametrize("pause", [0, 0.002, 0.05])
def test_a_peer_that_pipelines_without_pause_does_not_hold_up_the_end(tmp_path: Path, pause: float) -> None:
    with running(tmp_path, COUNTING.replace("{pause}", str(pause))) as program:
        caller = Caller(program.port)
        ending = threading.Event()
        replies: list[Any] = []

        def send() -> None:
            data = b"".join(json_packet(a=number) for number in range(100))
            try:
                while True:
                    caller.socket.sendall(data)
            except OSError:
                return

        def receive() -> None:
            try:
                while (reply := caller.receive()) is not None:
                    replies.append(reply)
                    if len(replies) == 10:
                        ending.set()
            finally:
                ending.set()
                caller.socket.shutdown(socket.SHUT_RDWR)

        threads = [threading.Thread(target=target) for target in (send, receive)]
        for thread in threads:
            thread.start()
        assert ending.wait(10)
        began = time.monotonic()
        assert program.end(signal.SIGTERM) == 0
        print(f"the end took {time.monotonic() - began:.2f} s")
        for thread in threads:
            thread.join()
        caller.__exit__()
        assert program.out[-1] == f"handled {len(replies)}", "each handled packet is answered"
        assert not [line for line in program.err if "did not finish in time" in line]


def test_packets_behind_the_one_at_work_are_not_handled(tmp_path: Path) -> None:
    with running(tmp_path, COUNTING.replace("{pause}", "0.3")) as program, program.connect() as caller:
        caller.socket.sendall(b"".join(json_packet(a=number) for number in range(5)))
        program.wait_for("begun", program.out)
        assert program.end(signal.SIGTERM) == 0
        assert caller.receive() == {"a": 0}
        assert caller.receive() is None
        assert program.out == ["begun", "handled 1"]


async def test_no_packet_is_begun_after_stop_whoever_calls_it(serve: Serve) -> None:
    server = Server(port=0)
    handled: list[int] = []

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        handled.append(packet["number"])
        await client.send(packet)
        if packet["number"] == 5:
            server.stop()

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(100)))
        for number in range(6):
            assert await peer.json() == {"number": number}
        assert await peer.closed()
    assert handled == [0, 1, 2, 3, 4, 5]


async def test_what_is_sent_after_stop_has_returned_is_not_handled(serve: Serve) -> None:
    handled: list[Any] = []
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        handled.append(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        await peer.send(json_packet(a=1))
        assert await peer.closed()
    assert handled == []


async def test_a_cancellation_while_shutdown_hangs_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    class Thorough(Server):
        async def shutdown(self) -> None:
            await trio.sleep_forever()

    server = Thorough(port=0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        server.stop()
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(110)


async def test_a_peer_that_pipelines_and_does_not_read_does_not_hold_up_the_end(
    asyncapy_server: Start, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server(drain_timeout=100, send_timeout=50)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await client.send({"large": "x" * 1_000_000})

    running = await asyncapy_server(server)
    stream = await running.connect()
    await stream.send_all(json_packet(a=1) * 30)
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    server.stop()
    await running.ended()
    assert trio.current_time() - began < 2


def test_a_thread_is_left_behind_when_the_drain_is_over(tmp_path: Path) -> None:
    text = """
server = Server(port=0, drain_timeout=0.2)

@server.add_handler()
async def block(client, packet):
    note("begun")
    await server.run_sync_task(time.sleep, 30)

server.start()
note("end")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        program.wait_for("begun", program.out)
        assert program.end(signal.SIGTERM) == 0, "it ends within the 20 s that the test waits"
        assert program.out == ["begun", "end"]
        assert [line for line in program.err if "1 blocking calls in threads were abandoned" in line]


async def test_a_thread_is_left_behind_when_the_server_is_cancelled() -> None:
    server = Server(port=0)
    begun = trio.Event()
    go_on = threading.Event()

    @server.add_handler()
    async def block(client: Any, packet: Any) -> None:
        begun.set()
        await server.run_sync_task(go_on.wait, 20)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            async with await Peer.connect(addresses[0][1]) as peer:
                await peer.send(json_packet(a=1))
                await begun.wait()
                nursery.cancel_scope.cancel()
    go_on.set()


def test_a_thread_in_setup_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    text = """
class Mine(Server):
    async def setup(self):
        note("begun")
        await self.run_sync_task(time.sleep, 30)

Mine(port=0).start()
note("end")
"""
    with running(tmp_path, text) as program:
        program.wait_for("begun", program.out)
        assert program.end(signal.SIGTERM) == 0, "it ends within the 20 s that the test waits"
        assert program.out == ["begun", "end"]


async def test_a_thread_is_waited_for_where_its_handler_alone_is_cut_off(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.05)
    done: list[str] = []

    def work() -> None:
        time.sleep(0.2)
        done.append("done")

    @server.add_handler()
    async def block(client: Any, packet: Any) -> None:
        try:
            await server.run_sync_task(work)
            await trio.lowlevel.checkpoint()
        finally:
            done.append("cut")

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        await peer.reply()
    assert done == ["done", "cut"]


def test_a_nursery_in_the_exit_stack_that_never_ends_does_not_keep_the_server(tmp_path: Path) -> None:
    text = """
import asyncapy_core.server.lifecycle
asyncapy_core.server.lifecycle.CLEANUP_SECONDS = 0.2

class Mine(Server):
    async def setup(self):
        nursery = await self.exit_stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(trio.sleep_forever)

Mine(port=0).start()
note("end")
"""
    with running(tmp_path, text) as program:
        assert program.port
        assert program.end(signal.SIGTERM) == 0
        assert program.out == ["end"]
        assert "The exit stack was not closed within 0.2 s" in program.err[-1]


# Signals


@pytest.mark.parametrize("when", ["setup", "serving"])
def test_sighup_ends_a_server_at_no_time(tmp_path: Path, when: str) -> None:
    text = """
class Mine(Server):
    async def setup(self):
        note("setup")
        await trio.sleep(0.3)

Mine(port=0).start()
"""
    with running(tmp_path, text) as program:
        program.wait_for("setup", program.out)
        if when == "serving":
            assert program.port
        for _ in range(3):
            program.process.send_signal(signal.SIGHUP)
        program.wait_for("no certificates to read again")
        assert program.port
        assert program.end(signal.SIGTERM) == 0


def test_a_server_whose_tasks_are_cancelled_ends_with_a_status_and_a_line(tmp_path: Path) -> None:
    text = """
server = Server(port=0)

@server.add_handler()
async def handler(client, packet):
    trio.lowlevel.current_task().parent_nursery.cancel_scope.cancel()

server.start()
note("not reached")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        assert program.end() == 1
        assert program.out == []
        assert program.err[-1].startswith("asyncapy: the server ended without a stop")


@pytest.mark.parametrize("kind", ["SystemExit(3)", "KeyboardInterrupt", "GeneratorExit", "ValueError('no')", "Foreign"])
@pytest.mark.parametrize("place", ["setup", "shutdown"])
def test_a_failure_in_setup_or_shutdown_is_a_status_that_is_not_0(tmp_path: Path, place: str, kind: str) -> None:
    text = f"""
class Foreign(BaseException):
    pass

class Mine(Server):
    async def {place}(self):
        raise {kind}

Mine(port=0).start()
note("not reached")
"""
    with running(tmp_path, text) as program:
        if place == "shutdown":
            assert program.port
        status = program.end(*([signal.SIGTERM] if place == "shutdown" else []))
        assert status == (3 if kind == "SystemExit(3)" else status) != 0
        assert program.out == []


def test_ctrl_c_beside_a_cancellation_in_setup_stays_a_ctrl_c(tmp_path: Path) -> None:
    text = """
kept = []

class Mine(Server):
    async def setup(self):
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as error:
                kept.append(error)
                raise
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise BaseExceptionGroup("both", [error, kept[0]])

try:
    trio.run(Mine(port=0).serve)
except BaseExceptionGroup as group:
    note(group.subgroup(KeyboardInterrupt) is not None)
"""
    with running(tmp_path, text) as program:
        assert program.end() == 0
        assert program.out == ["True"]


# Socket files


async def test_the_socket_of_a_newer_server_is_left_when_the_older_ends(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    older, newer = (named_server(name, f"unix:{path}") for name in ("older", "newer"))
    async with trio.open_nursery() as nursery:
        await nursery.start(older.serve)
        path.unlink()
        async with trio.open_nursery() as inner:
            await inner.start(newer.serve)
            older.stop()
            while older.addresses:  # noqa: ASYNC110  # the end of a server has no event
                await trio.sleep(0.01)
            async with await Peer.connect_unix(str(path)) as peer:
                assert await peer.ask(a=1) == {"name": "newer"}
            newer.stop()
        assert not path.exists()


async def test_a_socket_file_is_removed_although_the_folder_was_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    server = named_server("it", "unix:api.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        monkeypatch.chdir(tmp_path / "elsewhere")
        server.stop()
    assert not (tmp_path / "api.sock").exists()


async def test_a_socket_that_was_handed_in_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    server = named_server("it", "127.0.0.1")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda *, task_status: server.serve(listeners=[listener], task_status=task_status))
        async with await Peer.connect_unix(str(path)) as peer:
            assert await peer.ask(a=1) == {"name": "it"}
        server.stop()
    assert path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract Unix sockets")
@pytest.mark.parametrize("how", ["@", "\0", "handed in"])
async def test_an_abstract_unix_socket_is_served(how: str) -> None:
    name = f"asyncapy-test-{os.getpid()}"
    server = named_server("it", f"unix:{how[0]}{name}")
    listeners = None
    if how == "handed in":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"\0{name}")
        listener.listen()
        listeners = [listener]
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda *, task_status: server.serve(listeners=listeners, task_status=task_status))
        async with await Peer.connect_unix(f"\0{name}") as peer:
            assert await peer.ask(a=1) == {"name": "it"}
        server.stop()


@pytest.mark.parametrize("path", ["a\0b", "x" * 200, "@" + "x" * 200])
async def test_a_path_that_no_socket_can_have_is_told(path: str) -> None:
    with pytest.raises(BindError, match=r"(?s)cannot listen on.*; "):
        await named_server("it", f"unix:{path}").serve()


def named_server(name: str, addr: str, **settings: Any) -> Server:
    server = Server(addr=addr, port=0, **settings)

    @server.add_handler()
    async def tell(client: Any, packet: Any) -> None:
        await client.send({"name": name})

    return server


# The log


def test_a_log_that_nobody_reads_holds_up_nobody_and_says_what_was_lost(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        HEAD
        + """
server = Server(addr=sys.argv[1], logging_level=10)

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
note("end")
""",
        encoding="utf-8",
    )
    path = tmp_path / "api.sock"
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(script), f"unix:{path}"], stdout=subprocess.PIPE, stderr=write, text=True, cwd=tmp_path
    )
    os.close(write)
    try:
        with Caller(connected(path, process)) as caller:
            for number in range(3000):  # at DEBUG about 20,000 lines, more than 1 MB
                assert caller.ask(number=number) == {"number": number}
            seen = b""
            while b"log lines were lost" not in seen:  # the log goes on as it is read, and counts the lost lines
                assert caller.ask(a=1) == {"a": 1}
                seen += os.read(read, 1_000_000)
            for number in range(1000):
                assert caller.ask(number=number) == {"number": number}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, "a log that is not read does not block the end"
        assert process.stdout is not None
        assert process.stdout.read() == "end\n"
    finally:
        process.kill()
        process.wait()
        os.close(read)
        assert process.stdout is not None
        process.stdout.close()


def test_a_log_handler_that_logs_makes_no_flood(tmp_path: Path) -> None:
    text = """
import logging

class Echo(logging.Handler):
    def emit(self, record):
        server.log.info("seen")

server = Server(port=0)
server.log.addHandler(Echo())

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        for number in range(10):
            assert caller.ask(number=number) == {"number": number}
        assert program.end(signal.SIGTERM) == 0
        assert len(program.err) < 30


@pytest.mark.parametrize("errors", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written_does_not_change_the_status(tmp_path: Path, errors: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        HEAD
        + """
class Mine(Server):
    async def setup(self):
        note("begun")

Mine(port=0).start()
""",
        encoding="utf-8",
    )
    if errors == "full disk":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        read, target = os.pipe()
        os.close(read)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=target, env=environ)
    os.close(target)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_log_handler_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    text = """
import logging

class Hanging(logging.Handler):
    def emit(self, record):
        note("written")
        time.sleep(60)

server = Server(port=0)
server.log.addHandler(Hanging())

@server.add_handler()
async def echo(client, packet):
    await client.send(packet)

server.start()
note("end")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        program.wait_for("written", program.out)
        for number in range(100):
            assert caller.ask(number=number) == {"number": number}
        assert program.end(signal.SIGTERM) == 0
        assert program.out == ["written", "end"]


def test_the_last_lines_of_a_server_are_written(tmp_path: Path) -> None:
    with running(tmp_path, ECHO + "server.start()") as program, program.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        assert program.end(signal.SIGTERM) == 0
        assert [line for line in program.err if "Stopping; 1 connections are open" in line]
        assert [line for line in program.err if "The connection was closed" in line]


def test_the_failure_of_a_handler_is_a_line_with_its_name_and_place_and_a_traceback_without_the_message(
    tmp_path: Path,
) -> None:
    text = """
server = Server(port=0)

def look_up(packet):
    return {}[packet["key"]]

@server.add_handler()
async def read(client, packet):
    look_up(packet)

server.start()
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        for _ in range(2000):
            assert caller.ask(key="a secret")["error"] == "ERR_HANDLER_FAILED"
        assert program.end(signal.SIGTERM) == 0
        failed = [line for line in program.err if "Handler 'read' failed for 127.0.0.1: KeyError" in line]
        assert all("[ERROR]" in line and "program.py:12" in line for line in failed)
        assert 0 < len(failed) < 100, "at most one line per second"
        (where,) = [line for line in program.err if "in look_up: return {}[packet[" in line]
        assert "[INFO]" in where
        assert not [line for line in program.err if "a secret" in line and "[INFO]" in line]
