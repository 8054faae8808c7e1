"""AsyncAPY 0.5: its client against our server, and our clients against its server.

0.5 is not on PyPI, so the suite runs these tests with `stand_in.py`, which sends the same bytes. `make legacy` installs
0.5 from its repository, and runs them with 0.5 as well (`original.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from conftest import Serve
from peer import failure
from ports import free_port

from asyncapy import Server
from asyncapy.client import AsyncClient, Client
from asyncapy.errors import ServerDisconnected

FOLDER = Path(__file__).parent
PROGRAMS = {"stand-in": [sys.executable, str(FOLDER / "stand_in.py")]}
if python := os.environ.get("LEGACY_PYTHON"):
    PROGRAMS["0.5"] = [python, str(FOLDER / "original.py")]

PROGRAM = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
ENCODING = pytest.mark.parametrize("encoding", ["json", "ziproto"])
VERSION = pytest.mark.parametrize("version", [None, 22])
Version = Literal[22] | None
TIMEOUT = 1
"""The timeout of a server of 0.5, which accepts whole seconds only."""


@asynccontextmanager
async def legacy_server(program: list[str]) -> AsyncIterator[int]:
    """Run a server of 0.5, which echoes each packet without the field ``silent``; yield its port."""
    port = free_port()
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, [*program, "server", str(port), str(TIMEOUT)], stderr=subprocess.DEVNULL)
        await nursery.start(run)
        with trio.fail_after(20):
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                except OSError:
                    await trio.sleep(0.01)  # it does not report that it listens
                else:
                    break
        yield port
        nursery.cancel_scope.cancel()


class LegacyClient:
    """A client of 0.5 in a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def ask(self, **fields: Any) -> Any:
        """Send a packet, and return its reply, or None at the end of the connection."""
        await self._stdin.send_all(json.dumps(fields).encode() + b"\n")
        line = b""
        with trio.fail_after(20):
            while not line.endswith(b"\n"):
                received = await self._stdout.receive_some()
                assert received, "the client has ended"
                line += received
        return json.loads(line)


@asynccontextmanager
async def legacy_client(program: list[str], port: int, encoding: str = "json") -> AsyncIterator[LegacyClient]:
    """Run a client of 0.5 that is connected to a server."""
    async with trio.open_nursery() as nursery:
        command = [*program, "client", str(port), encoding]
        pipe = subprocess.PIPE
        run = partial(trio.run_process, command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        yield LegacyClient(await nursery.start(run))
        nursery.cancel_scope.cancel()


def echo(**settings: Any) -> Server:
    server = Server(port=0, **settings)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "close" in packet:
            await client.close()
        elif "fail" in packet:
            raise ValueError(packet["fail"])
        else:
            await client.send(packet)

    return server


@PROGRAM
@ENCODING
async def test_its_client_sends_packets_to_our_server(serve: Serve, program: list[str], encoding: str) -> None:
    running = await serve(echo())
    async with legacy_client(program, running.port, encoding) as client:
        for number in range(3):
            fields = {"n": number, "text": "é" * number, "list": [1, 2.5, None, True, {"a": "b"}]}
            assert await client.ask(**fields) == fields
        assert await client.ask(fail=1) == failure("ERR_HANDLER_FAILED")
        assert await client.ask(close=1) is None
    await running.settle()
    assert running.server.statistics().sessions_opened == 1


@PROGRAM
@ENCODING
async def test_its_client_decodes_the_errors_of_our_server(serve: Serve, program: list[str], encoding: str) -> None:
    running = await serve(echo(session_limit=1, max_packet=100, timeout=TIMEOUT))
    async with legacy_client(program, running.port, encoding) as first:
        assert await first.ask(a=1) == {"a": 1}
        async with legacy_client(program, running.port) as second:
            assert await second.ask(a=1) == failure("ERR_SESSION_LIMIT_REACHED")
        assert await first.ask() == failure("ERR_REQUEST_MALFORMED"), "{} is too short"
        assert await first.ask() is None
    async with legacy_client(program, running.port, encoding) as third:
        assert await third.ask(a=1) == {"a": 1}
        assert await third.ask(text="x" * 100) == failure("ERR_PACKET_TOO_LARGE")


@PROGRAM
async def test_its_client_sees_the_end_of_our_server(serve: Serve, program: list[str]) -> None:
    running = await serve(echo())
    async with legacy_client(program, running.port) as client:
        assert await client.ask(a=1) == {"a": 1}
        running.server.stop()
        await running.settle()
        assert await client.ask(a=1) is None


@PROGRAM
async def test_its_client_and_a_client_of_version_23_share_a_port(serve: Serve, program: list[str]) -> None:
    running = await serve(echo())
    async with (
        legacy_client(program, running.port) as old,
        AsyncClient("127.0.0.1", running.port, tls=False, version=23) as new,
    ):
        for number in range(3):
            assert await old.ask(old=number) == {"old": number}
            assert await new.request({"new": number}) == {"new": number}


@PROGRAM
@ENCODING
@VERSION
async def test_our_client_sends_requests_to_its_server(program: list[str], encoding: str, version: Version) -> None:
    """0.5 closes the connection behind each reply. The client connects again.

    It may send the next request before it learns of the close, so the requests have to be idempotent.
    """
    async with (
        legacy_server(program) as port,
        AsyncClient("127.0.0.1", port, tls=False, encoding=encoding, version=version) as client,
    ):
        for number in range(5):
            fields = {"n": number, "text": "x" * number, "list": [1, None, True, {"a": "b"}]}
            assert await client.request(fields, idempotent=True) == fields


@PROGRAM
@VERSION
async def test_a_request_that_its_server_does_not_answer(program: list[str], version: Version) -> None:
    async with (
        legacy_server(program) as port,
        AsyncClient("127.0.0.1", port, tls=False, version=version) as client,
    ):
        with pytest.raises(ServerDisconnected):
            await client.request({"silent": 1})
        assert await client.request({"a": 1}) == {"a": 1}


@PROGRAM
@VERSION
async def test_a_request_that_its_server_receives_in_parts(program: list[str], version: Version) -> None:
    """0.5 reads 1024 bytes, drops them, and waits for the packet until its timeout."""
    async with (
        legacy_server(program) as port,
        AsyncClient("127.0.0.1", port, tls=False, version=version) as client,
    ):
        assert await client.request({"text": "x" * 2000}) == failure("ERR_TIMED_OUT")
        assert await client.request({"a": 1}, idempotent=True) == {"a": 1}


@PROGRAM
async def test_version_23_is_an_error_at_its_server(program: list[str]) -> None:
    async with (
        legacy_server(program) as port,
        AsyncClient("127.0.0.1", port, tls=False, version=23) as client,
    ):
        assert await client.request({"a": 1}) == failure("ERR_HEADER_INVALID")


@PROGRAM
@ENCODING
async def test_our_blocking_client_sends_packets_to_its_server(program: list[str], encoding: str) -> None:
    def call(port: int) -> None:
        with Client(tls=False, encoding=encoding) as client:
            client.connect("127.0.0.1", port)
            client.send({"a": 1})
            assert client.receive() == {"a": 1}

    await with_server(program, call)


@PROGRAM
async def test_our_blocking_client_with_version_23_gets_an_error_of_its_server(program: list[str]) -> None:
    def call(port: int) -> None:
        with Client(tls=False, version=23) as client:
            client.connect("127.0.0.1", port)
            assert client.request({"a": 1}) == failure("ERR_HEADER_INVALID")

    await with_server(program, call)


async def with_server(program: list[str], call: Callable[[int], None]) -> None:
    """Call a function with the port of a server of 0.5, in a thread."""
    async with legacy_server(program) as port:
        await trio.to_thread.run_sync(call, port)
