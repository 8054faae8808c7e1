"""`Server.admit` with a transport that is no socket."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from conftest import Serve
from numbered_peer import numbered
from peer import json_packet
from trio.testing import MockClock

from asyncapy_core import Server, Transport, Woken
from asyncapy_core.errors import ConnectionLost

LEAVING = numbered("LEAVING", 1)


class Pipe:
    """A transport whose peer is the test: `push` and `finish` are its input, ``sent`` is its output."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.sent = bytearray()
        self.room = room
        self.ended = False
        self.aborted = False
        self._input: list[bytes] = []
        self._changed = trio.Event()
        self._woken = False

    def push(self, data: bytes) -> None:
        self._input.append(data)
        self._changed.set()

    def finish(self) -> None:
        self.push(b"")

    async def until_sent(self, data: bytes) -> None:
        with trio.fail_after(5):
            while data not in self.sent:  # noqa: ASYNC110  # as in Running.settle
                await trio.sleep(0.001)

    def receive_now(self, size: int) -> bytes | None:
        if self.aborted:
            raise ConnectionLost("aborted")
        if not self._input:
            return None
        data = self._input.pop(0)
        if len(data) > size:
            self._input.insert(0, data[size:])
        return data[:size]

    async def receive(self, size: int) -> bytes:
        while (data := self.receive_now(size)) is None:
            self._changed, self._woken = trio.Event(), False
            await self._changed.wait()
            if self._woken:
                raise Woken("woken")
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        if self.aborted:
            raise ConnectionLost("aborted")
        accepted = bytes(data)[: max(0, self.room - len(self.sent))]
        self.sent += accepted
        return len(accepted)

    async def send(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest := rest[self.send_now(rest) :]:  # noqa: ASYNC110  # the room may change at any time
            await trio.sleep(0.001)

    def send_eof(self) -> None:
        self.ended = True

    def fileno(self) -> int:
        return -1

    def wake(self) -> None:
        self._woken = True
        self._changed.set()

    def abort(self) -> None:
        self.aborted = True
        self.wake()


def admitted(server: Server, pipe: Pipe, address: str = "192.0.2.7") -> None:
    transport: Transport = pipe
    server.admit(transport, address)


async def test_a_session_is_served_over_any_transport(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> dict[str, Any]:
        return {"from": client.address, "n": packet["n"]}

    running = await serve(server)
    pipe = Pipe()
    admitted(server, pipe)
    for byte in json_packet(n=1):
        pipe.push(bytes((byte,)))
    await pipe.until_sent(b'{"from":"192.0.2.7","n":1}')
    pipe.push(json_packet(n=2) * 2)
    await pipe.until_sent(b'"n":2}\x00\x00\x00\x1c\x16\x00{"from":"192.0.2.7","n":2}')
    assert server.statistics().sessions == 1
    pipe.finish()
    await running.settle()
    assert (pipe.ended, pipe.aborted) == (True, True)
    assert not running.logged("[ERROR]")


class Breaking(Pipe):
    """A transport whose writes fail from the first one after `break_down` on."""

    broken = False

    def break_down(self) -> None:
        self.broken = True

    def send_now(self, data: bytes | memoryview) -> int:
        if self.broken:
            raise ConnectionLost("the write has failed")
        return super().send_now(data)


TOO_LARGE = (1_000_000_000).to_bytes(4, "big") + bytes((23, 0, 0)) + (10).to_bytes(4, "big")
"""The session reads nothing after it."""

REFUSED = numbered("REQUEST", 10, {}, encoding=9)


@pytest.mark.parametrize(
    ("last", "more"),
    [
        (REFUSED, False),
        (numbered("REQUEST", 9, {}) + TOO_LARGE, False),
        (numbered("EVENT", 1), False),
        (numbered("REQUEST", 10, {}), False),
        (b"", False),
        (b"", True),
    ],
    ids=["refused", "too large behind an answer", "fault", "answer", "end", "answer after the end"],
)
async def test_a_write_that_fails_cancels_the_requests_in_flight(serve: Serve, last: bytes, more: bool) -> None:
    server, begun, cancelled, free, never = Server(port=0), [], [], trio.Event(), trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> dict[str, Any]:
        if "wait" in packet:
            begun.append(packet["wait"])
            try:
                await (free if packet["wait"] == 1 else never).wait()
            except trio.Cancelled:
                cancelled.append(packet["wait"])
                raise
        return {}

    running = await serve(server)
    pipe = Breaking()
    admitted(server, pipe)
    for number in (1, 2, 3):
        pipe.push(numbered("REQUEST", number, {"wait": number}))
    with trio.fail_after(5):
        while len(begun) < 3:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.001)
        if not more:
            pipe.break_down()
        pipe.push(last)
        await trio.testing.wait_all_tasks_blocked(0.01)
        if not last:
            pipe.break_down()
            free.set()
        while server.statistics().connections:  # noqa: ASYNC110  # as above
            await trio.sleep(0.001)
        while set(cancelled) | {1} != {1, 2, 3}:  # noqa: ASYNC110  # as above
            await trio.sleep(0.001)
    await running.settle()
    assert not running.logged("[ERROR]")


async def test_a_request_that_waits_its_turn_is_not_begun_when_a_write_has_failed(serve: Serve) -> None:
    server, begun, free = Server(port=0, max_in_flight=1), [], trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> dict[str, Any]:
        begun.append(packet["n"])
        await free.wait()
        return {}

    running = await serve(server)
    pipe = Breaking()
    admitted(server, pipe)
    pipe.push(numbered("REQUEST", 1, {"n": 1}) + numbered("REQUEST", 2, {"n": 2}) + TOO_LARGE)
    await pipe.until_sent(numbered("LEAVING", 10))
    pipe.break_down()
    free.set()
    with trio.fail_after(5):
        while server.statistics().connections:  # noqa: ASYNC110  # as above
            await trio.sleep(0.001)
    await running.settle()
    assert begun == [1]


async def test_a_packet_that_arrived_while_the_process_stood_still_is_read_in_a_drain(
    serve: Serve, mock_clock: MockClock
) -> None:
    server = Server(port=0)
    await serve(server)
    other, late = Pipe(), Pipe()
    admitted(server, other)  # it keeps the drain from its end
    await trio.testing.wait_all_tasks_blocked()
    server.stop()
    admitted(server, late)
    late.push(numbered("REQUEST", 1, {}))
    mock_clock.jump(1)  # before the task of the connection runs
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.autojump_threshold = 0  # for the rest of the drain
    assert bytes(late.sent) == numbered("LEAVING", 0)


@pytest.mark.parametrize("version", [22, 23])
async def test_the_version_of_a_long_packet_is_read_if_it_arrives_at_the_deadline(
    serve: Serve, autojump_clock: MockClock, version: int
) -> None:
    class Late(Pipe):
        """A transport that gets the byte of the version when the wait for it is cancelled."""

        async def receive(self, size: int) -> bytes:
            try:
                return await super().receive(size)
            except trio.Cancelled:
                self.push(bytes((version,)))
                raise

    server = Server(port=0, max_packet=100)
    await serve(server)
    pipe = Late()
    admitted(server, pipe)
    pipe.push((103).to_bytes(4, "big"))  # too long for version 22
    await trio.sleep(1)
    assert (b"ERR_PACKET_TOO_LARGE" in pipe.sent) is (version == 22)
    pipe.finish()


async def test_a_push_that_cannot_be_written_tells_the_handler_that_its_client_is_gone(serve: Serve) -> None:
    server, seen = Server(port=0, cancel_on_disconnect=True), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        seen.append(client)
        await client.gone

    running = await serve(server)
    pipe = Breaking()
    admitted(server, pipe)
    pipe.push(json_packet(n=1))
    with trio.fail_after(5):
        while not seen:  # noqa: ASYNC110  # as above
            await trio.sleep(0.001)
        pipe.break_down()
        with pytest.raises(ConnectionError):
            seen[0].send_nowait({"push": 1})
        await seen[0].gone
    await running.settle()


async def test_a_client_of_version_23_that_leaves_after_its_answers_is_not_lost(serve: Serve) -> None:
    server = Server(port=0)

    class Gone(Pipe):
        """A transport whose peer has closed it at the end of its input: what is sent after that resets it."""

        def receive_now(self, size: int) -> bytes | None:
            if LEAVING in self.sent:
                raise ConnectionLost("the connection was reset")
            return super().receive_now(size)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> dict[str, Any]:
        return {}

    running = await serve(server)
    pipe = Gone()
    admitted(server, pipe)
    pipe.push(numbered("REQUEST", 1, {}))
    await pipe.until_sent(b"{}")
    pipe.finish()
    await running.settle()
    assert LEAVING in pipe.sent
    assert running.logged("{Client handler} The connection was closed")
    assert not running.logged("has left")


async def test_limits_and_deadlines_hold_for_any_transport(serve: Serve) -> None:
    server = Server(port=0, session_limit=1, timeout=0.05)
    running = await serve(server)
    first, second = Pipe(), Pipe()
    admitted(server, first)
    admitted(server, second)
    await second.until_sent(b"ERR_SESSION_LIMIT_REACHED")
    await first.until_sent(b"ERR_TIMED_OUT")
    first.finish()
    second.finish()
    await running.settle()


async def test_a_stop_ends_sessions_over_any_transport(serve: Serve) -> None:
    server = Server(port=0)
    running = await serve(server)
    idle, closed = Pipe(), Pipe()
    admitted(server, idle)
    admitted(server, closed)
    await trio.testing.wait_all_tasks_blocked()
    server.stop()
    with trio.fail_after(5):
        while server.addresses:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.005)
    assert idle.aborted
    assert closed.aborted
    assert not running.logged("[ERROR]")


async def test_a_transport_that_breaks_costs_its_own_session_only(serve: Serve) -> None:
    server = Server(port=0)
    running = await serve(server)

    class Broken(Pipe):
        def receive_now(self, size: int) -> bytes | None:
            raise ZeroDivisionError("a fault of the transport")

    async with running.undisturbed():
        admitted(server, Broken())
        with trio.fail_after(5):
            while not running.logged("ZeroDivisionError"):  # noqa: ASYNC110  # as in Running.settle
                await trio.sleep(0.005)


def test_a_server_that_does_not_serve_admits_nothing() -> None:
    with pytest.raises(RuntimeError, match="call admit\\(\\) while it serves"):
        admitted(Server(), Pipe())
