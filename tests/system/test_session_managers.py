"""Context managers of sessions that break their rules: each failure is named, and ends its session only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import Literal

import pytest
import trio
from conftest import Start
from context_managers import (
    FAILING,
    Manager,
    cancels_by_hand,
    hangs,
    hangs_shielded,
    never_yields,
    raises_first,
    suppresses,
)
from hooks import Plugin, manager
from program import running as program
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Client, Packet, Server
from asyncapy_core.testing import ServerInMemory, serving

ENTERING = (never_yields, raises_first)
LEAVING = tuple(each for each in FAILING if each not in ENTERING)
versions = pytest.mark.parametrize("version", [22, 23])


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


def managed(manage: Manager, *, address: str = "", **settings: float) -> Server:
    """Return a server whose plugin ``bad`` has these context managers, only for one address if it is given."""

    def session(client: Client) -> object:
        return manage() if address in ("", client.address) else None

    return echoing(Server(plugins=manager(bad=Plugin(asyncapy_session=session)), **settings))  # type: ignore[arg-type]  # settings that are numbers


def named(running: ServerInMemory, title: str = "plugin 'bad' of (registered)") -> list[str]:
    return [line for line in running.log if line.startswith("[ERROR]") and title in line]


@versions
@pytest.mark.parametrize("manage", LEAVING)
async def test_one_that_fails_when_it_is_left_is_named_and_others_are_served(
    asyncapy_server: Start, manage: Manager, version: Literal[22, 23]
) -> None:
    running = await asyncapy_server(managed(manage, address="10.0.0.1"))
    async with running.client(version=version) as other:
        async with running.client(version=version, address="10.0.0.1") as client:
            assert await client.request({"a": 1}) == {"a": 1}
        await wait_all_tasks_blocked()
        assert named(running)
        assert await other.request({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("manage", LEAVING)
@pytest.mark.parametrize("how", ["stop", "cut", "cancel"])
async def test_the_end_of_the_server_leaves_them_and_names_those_that_fail(
    autojump_clock: MockClock, manage: Manager, how: str
) -> None:
    server = managed(manage)
    with trio.CancelScope() as scope:
        async with serving(server) as running, running.client() as client:
            assert await client.request({"a": 1}) == {"a": 1}
            if how == "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
            await (running.cut() if how == "cut" else running.stop())
    assert scope.cancelled_caught is (how == "cancel")
    if not (how == "cancel" and manage is cancels_by_hand):  # that cannot be told from the cancellation of the server
        assert named(running)


@pytest.mark.parametrize("inner", ["raises", "hangs", "catches"])
@pytest.mark.parametrize("manage", [*LEAVING, suppresses, hangs])
async def test_each_of_two_that_fail_is_named(
    asyncapy_server: Start, autojump_clock: MockClock, manage: Manager, inner: str
) -> None:
    server = managed(manage, address="10.0.0.1", timeout=5)

    @server.on_session
    async def second(client: Client) -> AsyncIterator[None]:
        if client.address == "10.0.0.1":
            try:
                await trio.sleep_forever() if inner != "raises" else None
            except trio.Cancelled:
                if inner != "catches":
                    raise
            if inner == "raises":
                raise OSError("no disk")
        yield

    running = await asyncapy_server(server)
    async with running.client() as other:
        async with await running.connect(address="10.0.0.1") as stream:
            assert await stream.receive_some() == b""
        await wait_all_tasks_blocked()
        (line,) = named(running, "function 'second' of server.on_session in asyncapy_session")
        assert ("no disk" if inner == "raises" else "the session was not entered in time") in line
        if manage is not cancels_by_hand:  # that cannot be told from the cancellation for the time
            assert bool(named(running)) is (manage in LEAVING)
        assert await other.request({"a": 1}) == {"a": 1}
    assert running.server.sessions == []


async def test_the_inner_of_two_that_is_not_left_in_time_is_named(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = managed(suppresses)

    @server.on_session
    async def second(client: Client) -> AsyncIterator[None]:
        yield
        await trio.sleep_forever()

    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await trio.sleep(11)
    (line,) = named(running, "function 'second' of server.on_session in asyncapy_session")
    assert "the session was not left in time" in line
    assert not named(running)


@pytest.mark.parametrize("manage", [hangs, hangs_shielded])
async def test_one_that_hangs_at_the_end_is_named_and_the_server_ends(
    autojump_clock: MockClock, manage: Manager
) -> None:
    async with serving(managed(manage, drain_timeout=5)) as running:
        async with running.client() as client:
            assert await client.request({"a": 1}) == {"a": 1}
        before = trio.current_time()
        await running.stop()
        assert trio.current_time() - before < 20
    assert [line for line in named(running) if "was not left in time" in line]


async def test_one_that_hangs_in_a_shield_while_it_is_entered_does_not_keep_the_server(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def stuck() -> AsyncIterator[None]:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        yield

    async with serving(managed(stuck, drain_timeout=5)) as running, await running.connect():
        await wait_all_tasks_blocked()
        before = trio.current_time()
        await running.stop()
        assert trio.current_time() - before < 20
    assert [line for line in running.log if "'stuck' at " in line and "its shields are removed" in line]


async def test_a_handler_in_a_shield_does_not_keep_the_server(autojump_clock: MockClock) -> None:
    server = Server(drain_timeout=5)

    @server.add_handler()
    async def stuck(client: Client, packet: Packet) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async with serving(server) as running:
        peers = [await running.connect() for _ in range(2)]
        for peer in peers:
            await peer.send_all(b"\x00\x00\x00\x09\x16\x00" + b'{"a":1}')
        await wait_all_tasks_blocked()
        before = trio.current_time()
        await running.stop()
        assert trio.current_time() - before < 20
    assert [line for line in running.log if "'stuck' at " in line and "its shields are removed" in line]


async def test_a_handler_has_time_to_end_what_it_has_shielded(autojump_clock: MockClock) -> None:
    server, done = Server(drain_timeout=5), trio.Event()

    @server.add_handler()
    async def save(client: Client, packet: Packet) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(8, shield=True):
                await trio.sleep(6)
                done.set()

    async with serving(server) as running:
        peer = await running.connect()
        await peer.send_all(b"\x00\x00\x00\x09\x16\x00" + b'{"a":1}')
        await wait_all_tasks_blocked()
        await running.stop()
    assert done.is_set()
    assert not [line for line in running.log if "shields" in line]


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
@pytest.mark.parametrize("manage", LEAVING)
def test_a_signal_ends_the_program_in_order(tmp_path: Path, manage: Manager, number: Signals) -> None:
    text = f"""
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from context_managers import {manage.__name__} as manage

server = Server(port=0)
server.on_session(lambda client: manage())

@server.add_handler()
async def echo(client, packet):
    return packet

server.start()
note("end")
"""
    with program(tmp_path, text) as running, running.connect() as caller:
        assert caller.ask(a=1) == {"a": 1}
        assert running.end(number) == 0
        assert running.out == ["end"]
        assert [line for line in running.err if "of server.on_session in asyncapy_session failed" in line]
