"""Functions beside a server: `asyncapy_run` of plugins, and `Server.beside`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio
from conftest import Start
from hooks import Plugin, manager
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Client, Packet, Server
from asyncapy.errors import PluginError
from asyncapy_core.testing import serving
from asyncapy_core.testing.memory import LogLines


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


async def test_the_hook_asyncapy_run_runs_from_the_setup_to_the_end_of_the_last_session(
    autojump_clock: MockClock,
) -> None:
    events: list[str] = []

    async def run(server: Server, task_status: trio.TaskStatus[None]) -> None:
        events.append(f"begins {server.sessions}")
        await trio.sleep(3)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            events.append("ends")

    plugin = Plugin(
        asyncapy_run=run,
        asyncapy_setup=lambda: events.append("setup"),
        asyncapy_shutdown=lambda: events.append("shutdown"),
    )
    server = Server(plugins=manager(a=plugin))

    @server.add_handler()
    async def wait(client: Client, packet: Packet) -> Packet:
        server.stop()
        await trio.sleep(5)
        events.append("handled")
        return packet

    before = trio.current_time()
    async with serving(server) as running:
        assert trio.current_time() - before == 3
        async with running.client() as client:
            assert await client.request({"a": 1}) == {"a": 1}
        await running.ended()
    assert events == ["setup", "begins []", "handled", "ends", "shutdown"]


async def test_functions_are_started_one_after_the_other(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    events: list[str] = []

    def runs(name: str, seconds: float) -> Callable[..., Any]:
        async def run(task_status: trio.TaskStatus[None]) -> None:
            events.append(f"{name} begins")
            await trio.sleep(seconds)
            events.append(f"{name} started")
            task_status.started()
            await trio.sleep_forever()

        return run

    plugins = manager(b=Plugin(asyncapy_run=runs("b", 1)), a=Plugin(asyncapy_run=runs("a", 2)))
    server = echoing(Server(plugins=plugins))
    server.beside(runs("own", 3))
    before = trio.current_time()
    running = await asyncapy_server(server)
    assert trio.current_time() - before == 6
    assert events == [f"{name} {event}" for name in ("b", "a", "own") for event in ("begins", "started")]
    await running.stop()


async def test_a_function_that_returns_is_not_called_again(asyncapy_server: Start, autojump_clock: MockClock) -> None:
    calls: list[int] = []
    server = echoing(Server())

    @server.beside
    async def once() -> None:
        calls.append(1)

    running = await asyncapy_server(server)
    await trio.sleep(1000)
    assert calls == [1]
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def test_a_function_that_raises_is_called_again_later_and_later_and_is_named(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    async def run() -> None:
        times.append(trio.current_time())
        raise ValueError("a slip")

    running = await asyncapy_server(echoing(Server(plugins=manager(fails=Plugin(asyncapy_run=run)))))
    await trio.sleep(200)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    for pause, longest in zip(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30, 30], strict=False):
        assert 0.75 * longest <= pause <= longest
    assert len(pauses) >= 9
    named = [line for line in running.log if "plugin 'fails' of (registered) in asyncapy_run failed" in line]
    assert "a slip" in named[0]
    again = [
        line for line in running.log if "asyncapy_run of plugin 'fails' of (registered) is called again in" in line
    ]
    assert len(again) == len(times)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def test_the_pause_is_short_again_after_a_function_has_run_for_a_minute(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    ends: list[float] = []
    begins: list[float] = []

    async def run() -> None:
        begins.append(trio.current_time())
        if len(begins) > 6:
            await trio.sleep(61)
        ends.append(trio.current_time())
        raise ValueError("a slip")

    await asyncapy_server(echoing(Server(plugins=manager(fails=Plugin(asyncapy_run=run)))))
    await trio.sleep(110)
    assert begins[6] - ends[5] > 10
    assert begins[7] - ends[6] <= 0.5


async def test_a_function_that_fails_before_it_has_started_does_not_hold_up_the_server(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    async def run(task_status: trio.TaskStatus[None]) -> None:
        raise ValueError("a slip")

    before = trio.current_time()
    running = await asyncapy_server(echoing(Server(plugins=manager(fails=Plugin(asyncapy_run=run)))))
    assert trio.current_time() == before
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def never_started(task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep_forever()


async def test_a_plugin_that_is_never_started_holds_up_the_server_for_a_minute_and_is_named(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    before = trio.current_time()
    running = await asyncapy_server(echoing(Server(plugins=manager(hangs=Plugin(asyncapy_run=never_started)))))
    assert trio.current_time() - before == 60
    text = "asyncapy_run of plugin 'hangs' of (registered) has not called task_status.started() within 60 s"
    assert [line for line in running.log if text in line]
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("required", [True, False])
async def test_the_server_waits_for_a_required_plugin_and_for_its_own_function(
    autojump_clock: MockClock, required: bool
) -> None:
    server = Server(port=0, plugins=manager(hangs=Plugin(asyncapy_run=never_started)) if required else manager())
    if required:
        server.configure(plugins_require=["hangs"])
    else:
        server.beside(never_started)
    lines: list[str] = []
    server.log.handlers.clear()
    server.log.addFilter(LogLines(lines))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await trio.sleep(105)
        assert server.addresses == ()
        server.stop()
    title = "plugin 'hangs' of (registered)" if required else "function 'never_started' of server.beside"
    waits = f"The start takes long: {title} has not called task_status.started() in asyncapy_run"
    assert len([line for line in lines if waits in line]) == 10
    assert any("Stopped before it listened" in line and title in line for line in lines)


async def fails_first(task_status: trio.TaskStatus[None]) -> None:
    raise ValueError("a slip")


async def fails_later(task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep(5)
    raise ValueError("a slip")


@pytest.mark.parametrize("run", [fails_first, fails_later])
async def test_a_required_plugin_that_raises_ends_the_server(
    autojump_clock: MockClock, run: Callable[..., Any]
) -> None:
    shut_down: list[int] = []
    plugin = Plugin(asyncapy_run=run, asyncapy_shutdown=lambda: shut_down.append(1))
    server = Server(port=0, logging_level="CRITICAL", plugins=manager(a=plugin), plugins_require=["a"])
    with pytest.raises(PluginError, match=r"plugin 'a' of \(registered\) failed in asyncapy_run: ValueError: a slip"):
        await server.serve()
    assert shut_down == [1]


async def test_a_required_plugin_that_returns_does_not_end_the_server(asyncapy_server: Start) -> None:
    async def run() -> None: ...

    server = echoing(Server(plugins=manager(a=Plugin(asyncapy_run=run)), plugins_require=["a"]))
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def test_a_function_that_is_not_async_is_named_and_not_called_again(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    calls: list[int] = []
    plugin = Plugin(asyncapy_run=lambda: calls.append(1))
    running = await asyncapy_server(echoing(Server(plugins=manager(plain=plugin))))
    await trio.sleep(1000)
    assert calls == [1]
    (line,) = [line for line in running.log if "plugin 'plain' of (registered) in asyncapy_run failed" in line]
    assert "it returned a NoneType; write 'async def' instead of 'def'" in line


async def test_a_task_that_runs_for_ever_does_not_keep_the_server_from_its_end(autojump_clock: MockClock) -> None:
    server = echoing(Server(drain_timeout=7))

    @server.beside
    async def stubborn() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded)
            await shielded()

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 7
    text = "asyncapy_run of function 'stubborn' of server.beside has not ended within 7 s after its cancellation"
    assert [line for line in running.log if text in line]


async def test_a_task_that_catches_each_cancellation_does_not_keep_the_server_from_its_end(
    autojump_clock: MockClock,
) -> None:
    server = echoing(Server(drain_timeout=7))

    @server.beside
    async def stubborn() -> None:
        while True:
            try:
                await trio.sleep_forever()
            except BaseException:  # the mistake
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)

    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 7
    assert [line for line in running.log if "asyncapy_run of function 'stubborn' of server.beside" in line]


async def test_a_task_that_catches_cancellations_is_named_and_waited_for(autojump_clock: MockClock) -> None:
    server = echoing(Server(drain_timeout=7))

    @server.beside
    async def stubborn() -> None:
        for _ in range(20):
            try:
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
            except BaseException:  # the mistake
                continue

    async with serving(server) as running:
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before == 7 + 19
    text = (
        "asyncapy_run of function 'stubborn' of server.beside goes on after its cancellation; the server waits for it"
    )
    assert len([line for line in running.log if text in line]) == 1


async def test_a_function_that_awaits_objects_of_another_library_is_named(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    class Foreign:
        def __await__(self) -> Generator[Any, Any, Any]:
            yield 7

    async def run() -> None:
        await Foreign()

    running = await asyncapy_server(echoing(Server(plugins=manager(foreign=Plugin(asyncapy_run=run)))))
    await trio.sleep(1)
    line, *_ = [line for line in running.log if "plugin 'foreign' of (registered) in asyncapy_run failed" in line]
    assert "trio.run received unrecognized yield message 7" in line
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def test_a_task_has_the_time_of_the_drain_to_clean_up(autojump_clock: MockClock) -> None:
    events: list[str] = []
    server = echoing(Server(drain_timeout=7))

    @server.beside
    async def tidy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(6)
                events.append("cleaned up")

    async with serving(server) as running:
        server.stop()
        await running.ended()
    assert events == ["cleaned up"]
    assert not [line for line in running.log if "ERROR" in line]


async def test_a_server_that_is_cancelled_ends_its_functions(autojump_clock: MockClock) -> None:
    events: list[str] = []
    server = Server(port=0, logging_level="CRITICAL")

    @server.beside
    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append("ended")

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert events == ["ended"]


async def test_a_group_of_exceptions_beside_the_server_is_a_failure(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = echoing(Server())
    begun = trio.Event()

    @server.beside
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fails_later, trio.TASK_STATUS_IGNORED)
            begun.set()

    running = await asyncapy_server(server)
    await begun.wait()
    await trio.sleep(6)
    assert [line for line in running.log if "function 'run' of server.beside in asyncapy_run failed" in line]
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


def test_other_functions_are_refused_where_they_are_given() -> None:
    server = Server()
    with pytest.raises(
        TypeError, match="beside takes an 'async def' function without 'yield'; got function '<lambda>'"
    ):
        server.beside(lambda: None)  # type: ignore[type-var]  # the mistake

    async def other(nursery: trio.Nursery) -> None: ...

    with pytest.raises(TypeError, match="those of the arguments server, task_status that it takes"):
        server.beside(other)
