"""Context managers around sessions: `asyncapy_session` of plugins, and `Server.on_session`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal

import pytest
import trio
from conftest import Serve, Start
from hooks import Plugin, manager
from numbered_peer import Answer, NumberedPeer
from peer import Peer, json_packet
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Client, Packet, Server
from asyncapy_core.testing import serving

versions = pytest.mark.parametrize("version", [22, 23])

tenant: ContextVar[str] = ContextVar("tenant")


def noting(calls: list[str], title: str) -> Callable[[Client], AbstractAsyncContextManager[None]]:
    """Return a function whose context managers note that they are entered and left."""

    @asynccontextmanager
    async def manage(client: Client) -> AsyncIterator[None]:
        assert client.session is not None
        calls.append(f"{title} begins")
        try:
            yield
        finally:
            calls.append(f"{title} ends")

    return manage


def echoing(server: Server) -> Server:
    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    return server


@versions
async def test_the_hook_asyncapy_session_is_entered_before_the_first_packet_and_left_after_the_last(
    asyncapy_server: Start, version: Literal[22, 23]
) -> None:
    calls: list[str] = []
    plugins = manager(b=Plugin(asyncapy_session=noting(calls, "b")), a=Plugin(asyncapy_session=noting(calls, "a")))
    server = Server(plugins=plugins)
    server.on_session(noting(calls, "own"))

    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        await trio.lowlevel.checkpoint()
        calls.append(str(packet["n"]))
        return packet

    running = await asyncapy_server(server)
    async with running.client(version=version) as client:
        for number in (1, 2, 3):
            assert await client.request({"n": number}) == {"n": number}
    await wait_all_tasks_blocked()
    assert calls == ["b begins", "a begins", "own begins", "1", "2", "3", "own ends", "a ends", "b ends"]
    assert server.sessions == []


@versions
async def test_handlers_see_the_context_variables_of_their_session(
    asyncapy_server: Start, version: Literal[22, 23]
) -> None:
    server = Server()

    @server.on_session
    async def choose(client: Client) -> AsyncIterator[None]:
        token = tenant.set(client.address)
        yield
        assert tenant.get() == client.address
        tenant.reset(token)

    @server.add_handler()
    async def tell(client: Client, packet: Packet) -> dict[str, str]:
        before = tenant.get()
        tenant.set("of a packet")
        if "wait" in packet.fields:
            await trio.lowlevel.checkpoint()
        return {"before": before, "after": tenant.get()}

    running = await asyncapy_server(server)
    async with (
        running.client(version=version) as one,
        running.client(version=version, address="127.0.0.2") as two,
    ):
        for fields in ({"a": 1}, {"wait": 1}, {"a": 1}, {"wait": 1}):
            assert await one.request(dict(fields)) == {"before": "127.0.0.1", "after": "of a packet"}
            assert await two.request(dict(fields)) == {"before": "127.0.0.2", "after": "of a packet"}
    await wait_all_tasks_blocked()
    assert not [line for line in running.log if "ERROR" in line]


async def test_a_session_is_left_after_its_handlers(serve: Serve) -> None:
    calls: list[str] = []
    begun, go_on = trio.Event(), trio.Event()
    server = Server(port=0)
    server.on_session(noting(calls, "own"))

    @server.add_handler()
    async def wait(client: Client, packet: Packet) -> None:
        begun.set()
        try:
            await go_on.wait()
        finally:
            calls.append("handled")

    running = await serve(server)
    for version in (22, 23):
        if version == 22:
            peer = await Peer.connect(running.port)
            await peer.send(json_packet(a=1))
        else:
            numbered = await NumberedPeer.connect(running.port)
            await numbered.request(a=1)
        await begun.wait()
        if version == 22:
            await peer.stream.aclose()
        else:
            await numbered.reset()
        go_on.set()
        await running.settle(0)
        with trio.fail_after(5):
            while "own ends" not in calls:  # noqa: ASYNC110  # the server has no event for this
                await trio.sleep(0.005)
        assert calls == ["own begins", "handled", "own ends"]
        calls.clear()
        begun, go_on = trio.Event(), trio.Event()


async def test_none_leaves_a_session_as_it_is(asyncapy_server: Start) -> None:
    server = echoing(Server(plugins=manager(none=Plugin(asyncapy_session=lambda: None))))
    server.on_session(lambda client: None)
    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}


async def test_servers_without_these_hooks_do_not_pay_for_them(asyncapy_server: Start) -> None:
    running = await asyncapy_server(echoing(Server()))
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
        assert running.server._state is not None
        assert running.server._state.contexts is None


@asynccontextmanager
async def raises_first(client: Client) -> AsyncIterator[None]:
    raise ValueError("a slip")
    yield


@asynccontextmanager
async def raises_last(client: Client) -> AsyncIterator[None]:
    yield
    raise ValueError("a slip")


@versions
@pytest.mark.parametrize("manage", [raises_first, raises_last])
async def test_an_exception_of_a_context_manager_ends_its_session_and_names_its_plugin(
    asyncapy_server: Start, manage: Any, version: Literal[22, 23]
) -> None:
    calls: list[str] = []
    plugins = manager(a=Plugin(asyncapy_session=noting(calls, "a")), b=Plugin(asyncapy_session=manage))
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    for _ in range(2):
        stream = await running.connect()
        async with stream:
            if manage is raises_first:
                assert await stream.receive_some() == b""
        await wait_all_tasks_blocked()
        assert calls == ["a begins", "a ends"]
        assert running.server.statistics().connections == 0
        calls.clear()
    lines = [line for line in running.log if "plugin 'b' of (registered) in asyncapy_session" in line]
    assert lines
    assert "a slip" in lines[0]


async def broken() -> None: ...


def plain(client: Client) -> Iterator[None]:
    yield


def failing(client: Client) -> None:
    raise ValueError("a slip")


WRONG: list[tuple[Callable[..., Any], str]] = [
    (failing, "a slip"),
    (lambda client: 7, "expected an async context manager or None, got 7"),
    (
        lambda client: broken(),
        "this hook cannot be async; write 'def' instead of 'async def', or, if 'broken' is",
    ),
    (contextlib.contextmanager(plain), "decorate an async generator function with contextlib.async"),
    (lambda client: contextlib.nullcontext, "expected an async context manager or None"),
]


@pytest.mark.parametrize(("manage", "reason"), WRONG)
async def test_a_plugin_that_returns_no_context_manager_is_named_and_the_session_goes_on(
    asyncapy_server: Start, manage: Any, reason: str
) -> None:
    calls: list[str] = []
    plugins = manager(
        a=Plugin(asyncapy_session=noting(calls, "a")),
        b=Plugin(asyncapy_session=manage),
        c=Plugin(asyncapy_session=noting(calls, "c")),
    )
    running = await asyncapy_server(echoing(Server(plugins=plugins)))
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await wait_all_tasks_blocked()
    assert calls == ["a begins", "c begins", "c ends", "a ends"]
    (line,) = [line for line in running.log if "plugin 'b' of (registered) in asyncapy_session" in line]
    assert reason in line


@pytest.mark.parametrize("required", [True, False])
async def test_a_required_plugin_or_function_without_a_context_manager_ends_the_session(
    asyncapy_server: Start, required: bool
) -> None:
    server = echoing(Server(plugins=manager(b=Plugin(asyncapy_session=failing)) if required else None))
    if required:
        server.configure(plugins_require=["b"])
    else:
        server.on_session(failing)
    running = await asyncapy_server(server)
    async with await running.connect() as stream:
        assert await stream.receive_some() == b""
    title = "plugin 'b' of (registered)" if required else "function 'failing' of server.on_session"
    assert [line for line in running.log if f"{title} in asyncapy_session" in line]


async def test_a_context_manager_that_takes_too_long_ends_its_session(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    @asynccontextmanager
    async def hangs(client: Client) -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    plugins = manager(hangs=Plugin(asyncapy_session=hangs))
    running = await asyncapy_server(echoing(Server(plugins=plugins, timeout=20)))
    before = trio.current_time()
    async with await running.connect() as stream:
        assert await stream.receive_some() == b""
    assert trio.current_time() - before == 20
    (line,) = [line for line in running.log if "plugin 'hangs' of (registered) in asyncapy_session" in line]
    assert "the session was not entered in time" in line


async def test_a_context_manager_that_is_not_left_in_time_is_cancelled(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    @asynccontextmanager
    async def hangs(client: Client) -> AsyncIterator[None]:
        yield
        await trio.sleep_forever()

    running = await asyncapy_server(echoing(Server(plugins=manager(hangs=Plugin(asyncapy_session=hangs)))))
    before = trio.current_time()
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await trio.sleep(11)
    (line,) = [line for line in running.log if "plugin 'hangs' of (registered) in asyncapy_session" in line]
    assert "the session was not left in time" in line
    assert trio.current_time() - before == 11


@versions
async def test_a_stop_drains_the_sessions_and_leaves_their_context_managers(version: Literal[22, 23]) -> None:
    calls: list[str] = []
    server = Server(port=0, logging_level="CRITICAL", plugins=manager(a=Plugin(asyncapy_session=noting(calls, "a"))))
    echoing(server)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            if version == 22:
                async with await Peer.connect(server.port) as peer:
                    assert await peer.ask(a=1) == {"a": 1}
                    server.stop()
                    assert await peer.closed()
            else:
                numbered = await NumberedPeer.connect(server.port)
                assert await numbered.ask(a=1) == [Answer("REPLY", 1, {"a": 1})]
                server.stop()
                leaving = await numbered.read()
                assert leaving is not None
                assert leaving.kind == "LEAVING"
                await numbered.stream.aclose()
    assert calls == ["a begins", "a ends"]


async def test_a_stop_cancels_context_managers_that_are_being_entered(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    @asynccontextmanager
    async def hangs(client: Client) -> AsyncIterator[None]:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")
        yield

    server = echoing(Server(plugins=manager(hangs=Plugin(asyncapy_session=hangs))))
    async with serving(server) as running:
        stream = await running.connect()
        await wait_all_tasks_blocked()
        before = trio.current_time()
        server.stop()
        await running.ended()
        assert trio.current_time() - before < 1
        await stream.aclose()
    assert ended == ["cancelled"]
    assert not [line for line in running.log if "asyncapy_session" in line]


async def test_a_context_manager_may_end_its_session_by_cancelling_it(asyncapy_server: Start) -> None:
    server = echoing(Server())
    scopes: list[trio.CancelScope] = []

    @server.on_session
    async def limited(client: Client) -> AsyncIterator[None]:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            yield

    running = await asyncapy_server(server)
    for version in (22, 23):
        async with await running.connect() as stream:
            if version == 22:
                await stream.send_all(json_packet(a=1))
            else:
                numbered = NumberedPeer(stream)
                await numbered.request(a=1)
            await stream.receive_some()
            scopes.pop().cancel()
            assert await stream.receive_some() == b""
    await wait_all_tasks_blocked()
    assert server.sessions == []


async def test_packets_of_a_task_of_a_session_are_no_answers_of_its_handlers(asyncapy_server: Start) -> None:
    server = Server()
    begun, pushed = trio.Event(), trio.Event()

    @server.on_session
    async def push(client: Client) -> AsyncIterator[None]:
        async def later() -> None:
            await begun.wait()
            await client.send({"pushed": 1})
            pushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            yield

    @server.add_handler()
    async def answer(client: Client, packet: Packet) -> dict[str, int]:
        begun.set()
        await pushed.wait()
        return {"answer": 1}

    running = await asyncapy_server(server)
    async with Peer(await running.connect()) as peer:
        await peer.send(json_packet(a=1))
        assert await peer.json() == {"pushed": 1}
        assert await peer.json() == {"answer": 1}
    await wait_all_tasks_blocked()
    assert not [line for line in running.log if "ERROR" in line]


@versions
async def test_a_task_of_a_session_that_fails_ends_the_session(
    asyncapy_server: Start, version: Literal[22, 23]
) -> None:
    fail = trio.Event()

    @asynccontextmanager
    async def work(client: Client) -> AsyncIterator[None]:
        async def failing() -> None:
            await fail.wait()
            raise ValueError("a slip")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            yield
            nursery.cancel_scope.cancel()

    running = await asyncapy_server(echoing(Server(plugins=manager(work=Plugin(asyncapy_session=work)))))
    async with running.client(version=version) as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await wait_all_tasks_blocked()
    assert not [line for line in running.log if "ERROR" in line]
    async with await running.connect() as stream:
        await wait_all_tasks_blocked()
        fail.set()
        assert await stream.receive_some() == b""
    await wait_all_tasks_blocked()
    (line,) = [line for line in running.log if "ERROR" in line]
    assert "plugin 'work' of (registered) in asyncapy_session failed" in line
    assert "a slip" in line


async def test_a_packet_that_is_sent_as_a_session_is_entered_comes_first(asyncapy_server: Start) -> None:
    server = echoing(Server())

    @server.on_session
    async def greet(client: Client) -> AsyncIterator[None]:
        await client.send({"hello": client.address})
        yield

    running = await asyncapy_server(server)
    async with Peer(await running.connect()) as peer:
        await peer.send(json_packet(a=1))
        assert await peer.json() == {"hello": "127.0.0.1"}
        assert await peer.json() == {"a": 1}


async def test_a_client_that_leaves_is_no_failure_of_a_context_manager(asyncapy_server: Start) -> None:
    server = echoing(Server())

    @server.on_session
    async def part(client: Client) -> AsyncIterator[None]:
        yield
        await client.send({"bye": client.address})

    running = await asyncapy_server(server)
    async with running.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
    await wait_all_tasks_blocked()
    assert not [line for line in running.log if "ERROR" in line]
    assert [
        line for line in running.log if "'part' of server.on_session in asyncapy_session: the client has left" in line
    ]


async def later(client: Client) -> None: ...


async def test_other_functions_are_refused_where_they_are_given() -> None:
    server = Server()
    with pytest.raises(TypeError, match="on_session calls its function with a client; got function '<lambda>'"):
        server.on_session(lambda: None)  # type: ignore[type-var]  # the mistake
    with pytest.raises(TypeError, match=r"got function 'plain' of server\.on_session, which is no 'async def'"):
        server.on_session(plain)  # type: ignore[type-var]  # the mistake
    with pytest.raises(TypeError, match=r"got function 'later' of .*, which is an 'async def' without 'yield'"):
        server.on_session(later)  # type: ignore[type-var]  # the mistake
