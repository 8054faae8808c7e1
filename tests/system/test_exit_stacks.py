"""Context managers in `server.exit_stack` that break their rules: the plugin is named, and the server lives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from conftest import Start
from context_managers import FAILING, Manager, hangs, hangs_shielded, raises, suppresses, yields_twice
from hooks import Plugin, manager
from trio.testing import MockClock

from asyncapy import Client, Packet, Server
from asyncapy.errors import BindError, PluginError
from asyncapy_core.testing import ServerInMemory


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


async def answer(running: ServerInMemory) -> None:
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


def entering(manage: Manager) -> Callable[..., Any]:
    """Return a setup that enters a context manager into the exit stack of the server."""

    async def setup(server: Server) -> None:
        await server.exit_stack.enter_async_context(manage())

    return setup


async def shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(61)


async def hangs_in_a_shield() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def catches() -> None:
    with contextlib.suppress(trio.Cancelled):
        await trio.sleep_forever()


def fails() -> None:
    raise OSError("no disk")


OTHERS = {
    "hangs": trio.sleep_forever,
    "hangs in a shield": hangs_in_a_shield,
    "is shielded": shielded,
    "catches": catches,
    "fails": fails,
}


@pytest.mark.parametrize("setup", [shielded, catches])
async def test_a_setup_that_ends_after_its_time_is_left_out_and_shut_down(
    asyncapy_server: Start, autojump_clock: MockClock, setup: Callable[..., Any]
) -> None:
    events: list[str] = []
    late = Plugin(
        asyncapy_setup=setup,
        asyncapy_wrap=lambda: events.append("late wraps"),
        asyncapy_shutdown=lambda: events.append("late shutdown"),
    )
    other = Plugin(asyncapy_setup=lambda: events.append("other"))
    running = await asyncapy_server(echoing(Server(plugins=manager(other=other, late=late))))
    await answer(running)
    await running.stop()
    assert events == ["other", "late shutdown", "other"]
    assert [line for line in running.log if "plugin 'late' of (registered) was in setup for more than 60 s" in line]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("manage", [*FAILING, suppresses])
async def test_a_context_manager_of_a_plugin_is_named_and_the_server_starts_and_ends(
    asyncapy_server: Start, autojump_clock: MockClock, manage: Manager, other: str
) -> None:
    plugins = manager(bad=Plugin(asyncapy_setup=entering(manage)), second=Plugin(asyncapy_setup=OTHERS[other]))
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    await answer(running)
    await running.stop()
    errors = [line for line in running.log if line.startswith("[ERROR]")]
    assert [line for line in errors if "plugin 'second' of (registered)" in line]
    assert bool([line for line in errors if "plugin 'bad' of (registered)" in line]) is (manage is not suppresses)


@pytest.mark.parametrize("other", [None, *OTHERS])
@pytest.mark.parametrize("manage", [hangs, hangs_shielded])
async def test_a_context_manager_of_a_plugin_that_hangs_is_named_and_the_server_starts_and_ends(
    asyncapy_server: Start, autojump_clock: MockClock, manage: Manager, other: str | None
) -> None:
    setup = (lambda: None) if other is None else OTHERS[other]
    plugins = manager(bad=Plugin(asyncapy_setup=entering(manage)), second=Plugin(asyncapy_setup=setup))
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    await answer(running)
    await running.stop()
    assert [line for line in running.log if "manager of plugin 'bad' of (registered) in server.exit_stack was" in line]


async def test_a_stop_ends_a_setup_that_is_shielded(autojump_clock: MockClock) -> None:
    plugins = manager(bad=Plugin(asyncapy_setup=hangs_in_a_shield))
    server = Server(port=0, logging_level="CRITICAL", plugins=plugins, plugins_require=["bad"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await trio.sleep(100)
        server.stop()
    assert trio.current_time() < 200


async def test_a_shutdown_that_hangs_in_a_shield_is_named_and_the_others_are_shut_down(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    events: list[str] = []
    plugins = manager(
        other=Plugin(asyncapy_shutdown=lambda: events.append("other")),
        bad=Plugin(asyncapy_shutdown=hangs_in_a_shield),
    )
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    await running.stop()
    assert events == ["other"]
    assert [line for line in running.log if "plugin 'bad' of (registered) failed in shutdown" in line]


async def test_what_a_plugin_has_entered_is_left_when_its_setup_fails(asyncapy_server: Start) -> None:
    events: list[str] = []

    async def setup(server: Server) -> None:
        nursery = await server.exit_stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(trio.sleep_forever)
        server.exit_stack.callback(events.append, "left")
        fails()

    other = Plugin(asyncapy_setup=lambda: events.append("other"))
    running = await asyncapy_server(echoing(Server(plugins=manager(bad=Plugin(asyncapy_setup=setup), other=other))))
    assert events == ["left", "other"]
    await answer(running)


async def test_a_task_of_a_setup_that_fails_during_the_setup_is_named(asyncapy_server: Start) -> None:
    async def task() -> None:
        fails()

    async def setup(server: Server) -> None:
        nursery = await server.exit_stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(task)
        await trio.sleep_forever()

    running = await asyncapy_server(echoing(Server(plugins=manager(bad=Plugin(asyncapy_setup=setup)))))
    await answer(running)
    assert [line for line in running.log if "plugin 'bad' of (registered) failed in setup" in line]
    assert [line for line in running.log if "plugin 'bad' of (registered) in server.exit_stack failed: OSError" in line]


@pytest.mark.parametrize("kind", ["scope", "task"])
async def test_a_plugin_that_cancels_the_server_with_its_exit_stack_is_named(kind: str) -> None:
    cancel = trio.Event()

    async def task() -> None:
        await cancel.wait()
        fails()

    async def setup(server: Server) -> None:
        nursery = await server.exit_stack.enter_async_context(trio.open_nursery())
        if kind == "task":
            nursery.start_soon(task)
        else:
            server.state.cancel = nursery.cancel_scope.cancel

    server = Server(port=0, logging_level="CRITICAL", plugins=manager(bad=Plugin(asyncapy_setup=setup)))

    async def serve(*, task_status: trio.TaskStatus[object]) -> None:
        with pytest.raises(PluginError, match=r"plugin 'bad' of \(registered\) in server.exit_stack has cancelled"):
            await server.serve(task_status=task_status)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            cancel.set()
            if kind == "scope":
                server.state.cancel()


@pytest.mark.parametrize("manage", [suppresses, yields_twice, raises])
@pytest.mark.parametrize("owner", ["plugin", "application"])
async def test_the_reason_for_which_a_server_does_not_start_is_raised_whatever_is_in_the_exit_stack(
    manage: Manager, owner: str
) -> None:
    class Mine(Server):
        async def setup(self) -> None:
            if owner == "application":
                await entering(manage)(self)

    setup = entering(manage) if owner == "plugin" else lambda: None
    server = Mine("192.0.2.1", 0, logging_level="CRITICAL", plugins=manager(bad=Plugin(asyncapy_setup=setup)))
    with pytest.raises(BindError, match=r"192\.0\.2\.1"):
        await server.serve()


async def test_a_context_manager_of_the_application_that_fails_at_the_end_is_raised() -> None:
    class Mine(Server):
        async def setup(self) -> None:
            await entering(raises)(self)

    server = Mine(port=0, logging_level="CRITICAL", plugins=manager())

    async def serve(*, task_status: trio.TaskStatus[object]) -> None:
        with pytest.raises(ValueError, match="a slip"):
            await server.serve(task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        server.stop()
