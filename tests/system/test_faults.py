"""Faults of handlers, networks and systems, and that they do not affect other clients."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Serve
from peer import JSON, Peer, json_packet, packet
from program import ECHO, running

from asyncapy import Server
from asyncapy_core import Client, Session
from asyncapy_core.server.admission import SPARE_DESCRIPTORS, connection_limit
from asyncapy_core.server.session_table import SessionTable


def failing(error: BaseException) -> Server:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "fail" in packet:
            if packet["fail"] == "later":
                await trio.sleep(0.01)
            raise error
        await client.send(packet)

    return server


class Foreign(BaseException):
    """A BaseException of another library, which no `except Exception` catches."""


class Unprintable(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


FAILURES = [
    Unprintable(),
    Foreign("of its own kind"),
    asyncio.CancelledError(),
    ValueError("oops"),
    ExceptionGroup("several", [ValueError("one"), OSError("two")]),
    SystemExit(3),
    SystemExit("good bye"),
    KeyboardInterrupt(),
    StopAsyncIteration(),
    BaseExceptionGroup("mixed", [SystemExit(1), ValueError("one")]),
    BaseExceptionGroup("nested", [BaseExceptionGroup("inner", [KeyboardInterrupt()])]),
    MemoryError(),
    RecursionError("too deep"),
]


@pytest.mark.parametrize("when", ["now", "later"])
@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_whatever_a_handler_raises_is_answered_and_ends_nothing(
    serve: Serve, error: BaseException, when: str
) -> None:
    running = await serve(failing(error))
    async with running.undisturbed(), await running.connect() as peer:
        for _ in range(3):
            await peer.send(json_packet(fail=when))
            assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert await peer.ask(a=1) == {"a": 1}
    (line,) = running.logged("Handler 'handler' failed")
    assert line.startswith("[ERROR] (")


async def test_a_handler_that_fails_to_clean_up_as_the_server_ends_is_logged_and_ends_nothing(serve: Serve) -> None:
    server = Server(port=0, drain_timeout=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await client.send({"begun": True})
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("half is left")

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"begun": True}
        running.server.stop()
        assert await peer.closed()
    assert running.logged("Handler 'handler' failed for 127.0.0.1: ValueError (half is left)")


async def test_a_handler_that_is_cancelled_by_itself_ends_nothing(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "cancel" in packet:
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio.sleep(10)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 10)
                nursery.cancel_scope.cancel()
        await client.send(packet)

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        assert await peer.ask(cancel=1) == {"cancel": 1}
        assert await peer.ask(a=1) == {"a": 1}


async def test_a_handler_that_takes_longer_than_handler_timeout_is_cut_off(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.1)
    cut: list[str] = []

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "slow" in packet:
            try:
                await trio.sleep_forever()
            finally:
                cut.append(packet["slow"])
        await client.send(packet)

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        began = trio.current_time()
        await peer.send(json_packet(slow="one") + json_packet(a=1))
        assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert trio.current_time() - began >= 0.1
        assert await peer.json() == {"a": 1}
    assert cut == ["one"]
    assert running.logged("cut off after 0.1 s (handler_timeout)")


async def test_a_handler_that_is_cut_off_in_the_middle_of_a_write_costs_its_connection(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.2)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await client.send({"big": "x" * 20_000_000} if "big" in packet else packet)

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        await peer.send(json_packet(big=1))
        await running.settle(connections=1)  # the connection of the bystander
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await peer.stream.receive_some():
                assert b"ERR_" not in data, "an error reply was sent in the middle of another reply"


def test_ctrl_c_goes_through_a_handler_where_the_program_runs_trio_itself(tmp_path: Path) -> None:
    text = """
server = Server(port=0)

@server.add_handler()
async def busy(client, packet):
    note("busy")
    while True:
        time.sleep(0.01)

try:
    trio.run(server.serve)
except KeyboardInterrupt:
    note("interrupted")
except BaseExceptionGroup as group:
    note("interrupted" if group.split(KeyboardInterrupt)[1] is None else "something else")
"""
    with running(tmp_path, text) as program, program.connect() as caller:
        caller.send(a=1)
        program.wait_for("busy", program.out)
        assert program.end(signal.SIGINT) == 0
        assert program.out == ["busy", "interrupted"]


SQUEEZE = """
import os, resource
server = Server(port=0)

@server.add_handler()
async def squeeze(client, packet):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if "squeeze" in packet:
        soft = len(os.listdir("/proc/self/fd")) - 1
    if "release" in packet:
        soft = 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await client.send(packet)

server.start()
"""


def test_out_of_file_descriptors_clients_are_served_and_it_recovers(tmp_path: Path, record_property: Any) -> None:
    with running(tmp_path, SQUEEZE) as program, program.connect() as caller:
        assert caller.ask(squeeze=1) == {"squeeze": 1}
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(program.connect()) for _ in range(20)]
            began = time.monotonic()
            while time.monotonic() - began < 2.2:
                assert caller.ask(a=1) == {"a": 1}
                time.sleep(0.02)
            assert caller.ask(release=1) == {"release": 1}
            released = time.monotonic()
            assert [one.ask(number=number) for number, one in enumerate(waiting)] == [
                {"number": number} for number in range(20)
            ]
            recovery = time.monotonic() - released
        lines = [line for line in program.err if "Cannot accept connections" in line]
        assert 1 <= len(lines) <= released - began + 2, "about one line per second"
        record_property("recovery", recovery)
        print(f"recovered in {recovery * 1000:.0f} ms, {len(lines)} lines in {time.monotonic() - began:.1f} s")
        assert program.end(signal.SIGTERM) == 0


def test_a_jump_of_the_wall_clock_ends_nothing(tmp_path: Path) -> None:
    text = """
server = Server(port=0, timeout=20)
real = time.time

@server.add_handler()
async def jump(client, packet):
    if "days" in packet:
        time.time = lambda: real() + packet["days"] * 86400
    await client.send(packet)

server.start()
"""
    with running(tmp_path, text) as program, program.connect() as idle, program.connect() as caller:
        assert idle.ask(a=1) == {"a": 1}
        for days in (1, -1, 365, -365):
            assert caller.ask(days=days) == {"days": days}
            time.sleep(0.05)
            assert idle.ask(a=2) == {"a": 2}
            with program.connect() as newcomer:
                assert newcomer.ask(a=3) == {"a": 3}
        assert program.end(signal.SIGTERM) == 0


KILLS = 10_000


async def test_ten_thousand_connects_and_kills_leave_nothing_behind(serve: Serve, record_property: Any) -> None:
    running = await serve()
    chance = random.Random(7)
    whole = json_packet(a=1)

    async def kill() -> None:
        for _ in range(KILLS // 20):
            async with await Peer.connect_from(f"127.0.0.{chance.randrange(10, 250)}", running.port) as peer:
                how = chance.randrange(7)
                with contextlib.suppress(trio.BrokenResourceError):
                    if how == 1:
                        await peer.send(whole[: chance.randrange(1, len(whole))])
                    elif how == 2:
                        await peer.send(whole * chance.randrange(1, 4))
                    elif how == 3:
                        assert await peer.ask(a=1) == {"a": 1}
                    elif how == 4:
                        await peer.send(chance.randbytes(chance.randrange(1, 60)))
                    elif how == 5:
                        await peer.send(whole)
                        await peer.half_close()
                    elif how == 6:
                        await peer.send(packet(JSON, b"[]]"))
                if how != 3 and chance.random() < 0.7:
                    await peer.reset()

    began = time.monotonic()
    async with running.undisturbed(within=20), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(kill)
    record_property("seconds", time.monotonic() - began)
    print(f"{KILLS} connects and kills in {time.monotonic() - began:.1f} s; sessions, tasks and descriptors as before")


def test_there_are_no_more_connections_than_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert connection_limit(10_000) == 1024 - SPARE_DESCRIPTORS
    assert connection_limit(100) == 100
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit(10_000) == 10_000
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10, 10))
    assert connection_limit(10_000) == 1


@pytest.mark.parametrize(("given", "level"), [("", "INFO"), (", max_connections=5000", "WARNING")])
def test_a_limit_of_files_that_is_lower_is_told(tmp_path: Path, given: str, level: str) -> None:
    text = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n" + ECHO.replace(
        "port=0", f"port=0{given}"
    )
    with running(tmp_path, text + "server.start()") as program:
        line = program.wait_for("At most 36 connections rather than")[0]
        assert line
        assert any(f"[{level}]" in line and "see ulimit -n" in line for line in program.err)
        with contextlib.ExitStack() as stack:
            callers = [stack.enter_context(program.connect()) for _ in range(36)]
            assert all(caller.ask(a=1) == {"a": 1} for caller in callers)
            late = stack.enter_context(program.connect())
            assert late.receive() == {"status": "failure", "error": "ERR_SERVER_BUSY"}
        assert program.end(signal.SIGTERM) == 0


def session(address: str) -> Session:
    client = Client(address, None, None)  # type: ignore[arg-type]  # the table uses neither
    client.session = Session(uuid.uuid4(), client, 0.0)
    return client.session


def test_the_limit_of_sessions_counts_a_64_of_ipv6_as_one_peer() -> None:
    table = SessionTable(2)
    first, second = session("2001:db8:0:1::1"), session("2001:db8:0:1:ffff::2")
    assert table.add(first)
    assert table.add(second)
    assert not table.add(session("2001:db8:0:1::3"))
    assert table.add(session("2001:db8:0:2::1"))
    assert table.add(session("192.0.2.1"))
    assert table.of("2001:db8:0:1::1") == [first]
    table.discard(first)
    table.discard(first)
    third = session("2001:db8:0:1::3")
    assert table.add(third)
    assert not table.add(session("2001:db8:0:1::4"))
    for one in (second, third):
        table.discard(one)
    assert len(table) == 2
    assert [table.room(address) for address in ("2001:db8:0:2::9", "192.0.2.1", "192.0.2.2")] == [1, 1, 2]
