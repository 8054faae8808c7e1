"""An exception in code that runs for one peer, of any kind and at any place, affects that peer only."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from cancellation import make_cancelled
from conftest import Certificates, Running, Serve
from peer import Peer, json_packet, packet

from asyncapy import Server
from asyncapy.errors import UnexpectedEnd
from asyncapy_core import Filter, hookimpl
from asyncapy_core.net.tls import TlsTransport
from asyncapy_core.plugins import PluginManager
from asyncapy_core.server.admission import Admission

OWN = 7
"""The wire id of FailingCodec."""


class Foreign(BaseException):
    """A BaseException of a library."""


class Unprintable(Exception):
    """An exception whose text raises SystemExit."""

    def __str__(self) -> str:
        raise SystemExit(4)


class HugeText(Exception):
    """An exception with a text of ten million characters."""

    def __str__(self) -> str:
        return "x" * 10_000_000

    __repr__ = __str__


def too_deep() -> RecursionError:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error.with_traceback(None)  # pytest cannot print a thousand frames
    raise AssertionError("the recursion raised no RecursionError")


CANCELLED = trio.run(make_cancelled)
"""A cancellation whose scope has ended; code that shares results between tasks can raise one."""

KINDS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: ValueError("no"),
    "BaseException": lambda: Foreign("no"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "Cancelled": lambda: CANCELLED.with_traceback(None),
    "group": lambda: BaseExceptionGroup(
        "several",
        [SystemExit(3), ExceptionGroup("inner", [ValueError("no")]), CANCELLED.with_traceback(None), GeneratorExit()],
    ),
    "text that raises": Unprintable,
    "text that is huge": HugeText,
    "RecursionError": too_deep,
    "MemoryError": MemoryError,
}
"""Functions that make an exception of each kind."""


def failure(kind: str) -> BaseException:
    return KINDS[kind]()


def raise_it(fields: Any) -> None:
    raise failure(fields["fail"])


class Failing(Filter):
    """A plain filter that fails for the packets of its place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def check(self, c: Any, p: Any) -> bool:
        if p.get("place") == self.place:
            raise_it(p)
        return True


class FailingLater(Failing):
    """An async filter that fails for the packets of its place."""

    async def check(self, c: Any, p: Any) -> bool:  # type: ignore[override]  # a filter may be either
        if p.get("place") == self.place:
            await trio.lowlevel.checkpoint()
            raise_it(p)
        return True


class FailingCodec:
    """A codec whose payloads are ``decode:KIND`` and ``encode:KIND``."""

    name = "failing"
    wire_id = OWN

    def decode(self, payload: bytes) -> Any:
        place, _, kind = bytes(payload).decode().partition(":")
        if place == "decode":
            raise failure(kind)
        return {"place": "encode", "fail": kind}

    def encode(self, fields: Any) -> bytes:
        if "fail" in fields:
            raise failure(fields["fail"])
        return b"answered"


class Codecs:
    @hookimpl
    def asyncapy_codecs(self) -> list[Any]:
        return [FailingCodec()]


class ServerThatFails(Server):
    """A server that fails at each place where it runs user code for a peer."""

    def __init__(self) -> None:
        plugins = PluginManager()
        plugins.register(Codecs(), "failing")
        super().__init__(port=0, handler_timeout=0.4, plugins=plugins)  # much longer than a handler needs
        self.guard(Failing("guard"))
        self.guard(FailingLater("async guard"))
        self.register_handler(self.handle, Failing("filter"), FailingLater("async filter"))

    async def handle(self, client: Any, packet: Any) -> None:
        place = packet.get("place")
        if place == "handler":
            raise_it(packet)
        if place == "waiting handler":
            await trio.lowlevel.checkpoint()
            raise_it(packet)
        if place == "handler in a nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise_it(packet)
        if place == "cleaning up":
            try:
                await trio.sleep_forever()
            finally:
                raise_it(packet)
        if place == "after an answer":
            await client.send({"half": 1})
            raise_it(packet)
        if place == "after a close":
            await client.close()
            raise_it(packet)
        if place == "log":
            client.log.info("%s", KINDS[packet["fail"]]())
        await client.send(packet)


def for_peer(place: str, kind: str) -> bytes:
    if place in {"decode", "encode"}:
        return packet(OWN, f"{place}:{kind}".encode())
    return json_packet(place=place, fail=kind)


PLACES = {
    "handler": "ERR_HANDLER_FAILED",
    "waiting handler": "ERR_HANDLER_FAILED",
    "handler in a nursery": "ERR_HANDLER_FAILED",
    "filter": None,  # ERR_NO_HANDLER, or ERR_HANDLER_FAILED for an exception that could be a cancellation of the server
    "async filter": None,
    "guard": "ERR_NO_HANDLER",
    "async guard": None,
    "decode": None,
    "encode": None,
    "cleaning up": "ERR_HANDLER_FAILED",
    "after an answer": None,
    "after a close": None,
    "log": None,
}
"""The places where code runs for a peer, and the error code for the peer; None if there is no fixed code."""


async def fail_once(running: Running, place: str, kind: str) -> None:
    """Let code fail for a peer, and check the reply to the peer."""
    async with await running.connect() as peer:
        await peer.send(for_peer(place, kind))
        if place == "decode":
            assert await peer.reply() == (OWN, b"answered"), "the reply is in the encoding of the packet"
            assert await peer.closed()
        elif place == "encode":
            assert await peer.reply() == (OWN, b"answered"), "the error reply is in the encoding of the packet"
        elif place == "after a close":
            assert await peer.closed()
        elif place == "after an answer":
            assert await peer.json() == {"half": 1}
            assert await peer.closed(), "no second answer, and no later reply that could be taken for it"
        elif place == "log" or (place, kind) == ("handler in a nursery", "Cancelled"):
            assert await peer.json() == {"place": place, "fail": kind}  # trio takes it for the nursery's cancellation
        else:
            code = await peer.failure()
            assert PLACES[place] in (code, None)
            assert code in {"ERR_NO_HANDLER", "ERR_HANDLER_FAILED"}
            assert await peer.ask(a=1) == {"a": 1}, "the session goes on"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_failure_costs_its_peer_alone(serve: Serve, place: str, kind: str) -> None:
    running = await serve(ServerThatFails())
    async with running.undisturbed():
        await fail_once(running, place, kind)
    errors = [line for line in running.lines if line.startswith("[ERROR]")]
    if place == "log":
        assert not any("failed" in line for line in errors if "A log handler" not in line)
    else:
        assert len(errors) == ((place, kind) != ("handler in a nursery", "Cancelled"))


async def test_a_thousand_failures_in_random_order_cost_their_neighbours_nothing(serve: Serve) -> None:
    running = await serve(ServerThatFails())
    rounds = [random.Random(number).choice([(p, k) for p in PLACES for k in KINDS]) for number in range(1000)]
    answered = 0

    async def neighbour(done: trio.Event) -> None:
        nonlocal answered
        async with await Peer.connect_from("127.0.0.7", running.port) as peer:
            while not done.is_set():
                numbers = range(answered, answered + 20)
                await peer.send(b"".join(json_packet(number=number) for number in numbers))
                for number in numbers:
                    assert await peer.json() == {"number": number}
                answered += 20

    async def failing(turns: list[tuple[str, str]]) -> None:
        for place, kind in turns:
            await fail_once(running, place, kind)

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbour, done)
        async with trio.open_nursery() as failures:
            for first in range(8):
                failures.start_soon(failing, rounds[first::8])
        done.set()
    assert answered >= 20
    await running.settle()
    assert running.footprint["sessions"] == running.footprint["queued"] == running.server.statistics().deadlines == 0


class Breaking(Failing):
    """A filter that leaves an async generator open, with a cancel scope or a nursery inside."""

    async def check(self, c: Any, p: Any) -> bool:  # type: ignore[override]  # a filter may be either
        if p.get("place") == self.place:
            await leave_open(p["how"])
        return True


kept: list[Any] = []


async def with_timeout() -> AsyncIterator[int]:
    with trio.move_on_after(0.05):
        yield 1


async def with_scope() -> AsyncIterator[int]:
    with trio.CancelScope() as scope:
        yield 1
        scope.cancel()


async def with_nursery() -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.05)
        yield 1


async def with_failing_nursery() -> AsyncIterator[int]:
    async def fail() -> None:
        await trio.sleep(0.02)
        raise ValueError("in the background")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        yield 1


GENERATORS: dict[str, Callable[[], Any]] = {
    "timeout": with_timeout,
    "scope": with_scope,
    "nursery": with_nursery,
    "failing nursery": with_failing_nursery,
}


async def leave_open(how: str) -> None:
    generator = GENERATORS[how.removesuffix(", kept")]()
    if how.endswith(", kept"):
        kept.append(generator)
    async for _ in generator:
        break


@pytest.mark.filterwarnings("ignore:.*Async generator:ResourceWarning")
@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("place", ["handler", "filter"])
@pytest.mark.parametrize("how", [name + more for name in GENERATORS for more in ("", ", kept")])
async def test_a_generator_that_is_left_open_costs_its_own_session_at_most(
    serve: Serve, how: str, place: str, limit: float | None
) -> None:
    server = Server(port=0, handler_timeout=limit)

    @server.add_handler(Breaking("filter"))
    async def handler(client: Any, packet: Any) -> None:
        if packet.get("place") == "handler":
            await leave_open(packet["how"])
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as neighbour:
        for _ in range(2):  # two peers at a time, and two rounds
            async with await running.connect() as peer, await running.connect() as other:
                for each in (peer, other):
                    await each.send(json_packet(place=place, how=how))
                    await each.reply()
                with trio.move_on_after(0.2):
                    await peer.read(1)
        for number in range(50):
            assert await neighbour.ask(number=number) == {"number": number}
        await running.settle(connections=1)
    await running.settle()
    kept.clear()


@pytest.mark.filterwarnings("ignore:.*Async generator:ResourceWarning")
@pytest.mark.parametrize("how", list(GENERATORS))
async def test_a_generator_that_a_task_of_the_handler_leaves_open_costs_its_own_session_at_most(
    serve: Serve, how: str
) -> None:
    server = Server(port=0)

    async def child() -> None:
        await leave_open(how)
        await trio.sleep(0.1)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "bad" in packet:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as neighbour, await running.connect() as peer:
        await peer.send(json_packet(bad=1))
        await peer.reply()
        for number in range(50):
            assert await neighbour.ask(number=number) == {"number": number}


async def test_generators_of_two_servers_in_one_run_are_closed_by_their_own_tasks(serve: Serve) -> None:
    closed: list[int] = []

    def leaving(number: int) -> Server:
        server = Server(port=0)

        async def rows() -> AsyncIterator[int]:
            try:
                with trio.move_on_after(0.05):
                    yield 1
            finally:
                closed.append(number)

        @server.add_handler()
        async def handler(client: Any, packet: Any) -> None:
            async for _ in rows():
                break
            await client.send(packet)

        return server

    first, second = await serve(leaving(1)), await serve(leaving(2))
    async with await first.connect() as one, await second.connect() as two:
        for number in range(3):
            assert await one.ask(number=number) == {"number": number}
            assert await two.ask(number=number) == {"number": number}
            await trio.sleep(0.06)  # longer than the deadlines of the scopes
    assert sorted(closed) == [1, 1, 1, 2, 2, 2]


async def test_a_clean_up_that_answers_behind_the_failure_ends_the_session(serve: Serve) -> None:
    server = Server(port=0)

    async def rows(client: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await client.send({"late": 1})

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        async for _ in rows(client):
            raise OSError("no disk")

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) * 3)
        assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert await peer.json() == {"late": 1}
        assert await peer.closed(), "otherwise the late packet would be taken for the next answer"


async def test_a_clean_up_that_takes_longer_than_handler_timeout_is_cut_off(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.05)

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await trio.sleep_forever()

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        async for _ in rows():
            break

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_HANDLER_FAILED"


class HostileError(Exception):
    """An exception whose attributes all raise another one."""

    def __getattribute__(self, name: str) -> Any:
        raise HostileError


class HostileGroup(BaseExceptionGroup[Any]):
    """A group that claims to be a cancellation of the server."""

    def split(self, condition: Any) -> Any:
        return self, None


@pytest.mark.parametrize("place", [place for place in PLACES if place != "handler in a nursery"])  # trio inspects it
@pytest.mark.parametrize("make", [HostileError, lambda: HostileGroup("all", [ValueError("no")])], ids=["evil", "group"])
async def test_an_exception_that_misbehaves_costs_its_peer_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, make: Any, place: str
) -> None:
    monkeypatch.setitem(KINDS, "evil", make)
    running = await serve(ServerThatFails())
    async with await running.connect() as neighbour:
        async with await running.connect() as peer:
            await peer.send(for_peer(place, "evil"))
            with trio.move_on_after(0.3):
                await peer.read(1)
        assert await neighbour.ask(a=1) == {"a": 1}
        await running.settle(connections=1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio warns about open generators
async def test_a_server_with_a_shield_left_open_in_a_session_can_be_cancelled() -> None:
    server = Server(port=0)

    async def shielded() -> AsyncIterator[int]:
        with trio.CancelScope(shield=True):
            yield 1

    generators: list[Any] = []

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        generators.append(shielded())
        async for _ in generators[0]:
            break
        await client.send(packet)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            async with await Peer.connect(addresses[0][1]) as peer:
                assert await peer.ask(a=1) == {"a": 1}
                nursery.cancel_scope.cancel()
    generators.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio warns about open generators
async def test_a_task_that_cannot_end_does_not_keep_the_server_from_ending(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await leave_open("nursery, kept")
        await client.send(packet)

    running = await serve(server)
    for _ in range(3):
        async with await running.connect() as peer:
            await peer.ask(a=1)
        await running.settle()
    running.server.stop()
    with trio.fail_after(5):
        while running.server.addresses:  # noqa: ASYNC110  # the end of a server has no event
            await trio.sleep(0.01)
    assert running.logged("left a nursery open")
    kept.clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["tls", "proxy"])
async def test_a_failure_before_the_session_costs_its_peer_alone(
    serve: Serve, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
) -> None:
    async def fail(*_: Any) -> Any:
        raise failure(kind)

    running = await serve(Server(port=0, proxy_protocol_from="127.0.0.5", tls_cert=certificates.server))
    before = running.footprint
    with monkeypatch.context() as patch:
        patch.setattr(TlsTransport, "handshake", fail)
        if step == "proxy":
            patch.setattr("asyncapy_core.protocol.proxy_header.ProxyHeader.feed", lambda *_: raise_it({"fail": kind}))
        async with await Peer.connect_from("127.0.0.5", running.port) as peer:
            await peer.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 1\r\n")
            with contextlib.suppress(trio.BrokenResourceError):  # closed with bytes unread
                assert await peer.closed()
    async with await Peer.connect_tls(running.port, certificates.client_context()) as peer:
        assert await peer.ask(a=1) == {"a": 1}
    await running.settle()
    with trio.fail_after(5):
        while running.grown_since(before):  # noqa: ASYNC110  # the closing of a descriptor has no event
            await trio.sleep(0.005)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_while_a_connection_is_taken_in_costs_that_connection_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    running = await serve()
    async with running.undisturbed():
        with monkeypatch.context() as patch:
            patch.setattr(Admission, "_admit", lambda *_: raise_it({"fail": kind}))
            async with await running.connect() as peer:
                assert await peer.closed()
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}


# Start and end of a server


async def test_a_handler_that_cancels_the_tasks_of_the_server_ends_it_with_an_error() -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        nursery.cancel_scope.cancel()

    async def call(port: int) -> None:
        async with await Peer.connect(port) as peer:
            await peer.send(json_packet(a=1))
            assert await peer.closed()

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012  # the nursery is a block
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            nursery.start_soon(call, addresses[0][1])
    (error,) = caught.value.exceptions
    assert isinstance(error, UnexpectedEnd)
    assert "without a stop" in str(error)


class HookPlugin:
    """A plugin that notes the calls of its hooks, and fails in one of them if ``place`` names it."""

    def __init__(self, place: str = "", kind: str = "") -> None:
        self.place, self.kind = place, kind
        self.calls: list[str] = []

    def call(self, place: str) -> None:
        self.calls.append(place)
        if self.place == place:
            raise failure(self.kind)

    @hookimpl
    async def asyncapy_setup(self) -> None:
        self.call("setup hook")

    @hookimpl
    async def asyncapy_shutdown(self) -> None:
        self.call("shutdown hook")

    @hookimpl
    def asyncapy_codecs(self) -> list[Any]:
        self.call("codecs hook")
        return []

    @hookimpl
    def asyncapy_filters(self) -> dict[str, Any]:
        self.call("filters hook")
        return {}


def serve_for_a_moment(server: Server) -> None:
    async def stop_soon(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            server.stop()

    trio.run(stop_soon)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "place",
    ["setup", "shutdown", "setup hook", "optional setup hook", "shutdown hook", "codecs hook", "filters hook"],
)
def test_a_failure_at_the_start_or_the_end_leaves_nothing_open_and_is_told(place: str, kind: str) -> None:
    good, bad = HookPlugin(), HookPlugin(place.removeprefix("optional "), kind)
    plugins = PluginManager()
    plugins.register(good, "a_good")
    plugins.register(bad, "bad")
    closed: list[bool] = []

    class Mine(Server):
        async def setup(self) -> None:
            self.exit_stack.callback(closed.append, True)
            bad.call("setup")

        async def shutdown(self) -> None:
            bad.call("shutdown")

    server = Mine(port=0, plugins=plugins, plugins_require=["bad"] if place == "setup hook" else [])
    server.log.handlers.clear()
    if place.endswith("hook") and place != "setup hook":
        serve_for_a_moment(server)  # the plugin is quarantined or left out, or its failure is logged
        (record,) = [record for record in plugins.plugins if record.name == "bad"]
        assert record.state == ("quarantined" if place.startswith(("codecs", "filters")) else "loaded")
    else:
        with pytest.raises(BaseException) as caught:
            serve_for_a_moment(server)
        leaves = [caught.value]
        while isinstance(leaves[0], BaseExceptionGroup):
            leaves = list(leaves[0].exceptions)
        assert not isinstance(leaves[0], (trio.Cancelled, GeneratorExit)), "these would be lost"
    assert good.calls[-1] == "shutdown hook", "the other plugin is shut down"
    assert closed == ([] if place == "setup hook" else [True])
    assert server.addresses == ()


async def test_a_cancelled_that_two_handlers_share_fails_the_second_alone(serve: Serve) -> None:
    server = Server(port=0, handler_timeout=0.1)
    shared: list[trio.Cancelled] = []

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "look" in packet:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as error:
                shared.append(error)
                raise
        if "again" in packet:
            raise shared[0]
        await client.send(packet)

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as first, await running.connect() as second:
        await first.send(json_packet(look=1))
        assert await first.failure() == "ERR_HANDLER_FAILED"
        await second.send(json_packet(again=1))
        assert await second.failure() == "ERR_HANDLER_FAILED"
        assert await second.ask(a=1) == {"a": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_log_handler_that_fails_costs_its_lines_alone(serve: Serve, kind: str) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise failure(kind)

    class BrokenFilter(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise failure(kind)

    written: list[str] = []

    class Sound(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    running = await serve()
    running.server.log.handlers[:] = [Broken(), Sound()]
    async with running.undisturbed():
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}
        running.server.log.addFilter(BrokenFilter())
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}
    running.server.stop()
    with trio.fail_after(5):
        while running.server.addresses:  # noqa: ASYNC110  # the end of a server has no event
            await trio.sleep(0.01)
    assert any("New session" in line for line in written)
    assert [line for line in written if "A log handler failed" in line]
