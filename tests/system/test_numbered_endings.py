"""The end of a session of version 23: LEAVING, the answers to the requests up to its number, the end of the stream."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from peer import zi_map

from asyncapy_core import Server


class Scene:
    """A server whose handlers do as the field ``do`` tells."""

    def __init__(self, **settings: Any) -> None:
        self.free = trio.Event()
        self.handled: list[int] = []
        self.sessions: list[Any] = []
        self.server = Server(port=0, **settings)
        self.server.register_handler(self.handle)

    async def handle(self, client: Any, packet: Any) -> Any:
        self.handled.append(packet["n"])
        self.sessions.append(client.session)
        do = packet.get("do")
        if do == "wait":
            await self.free.wait()
        elif do == "close":
            await client.close()
            with pytest.raises(ConnectionError):
                await client.send({"too": "late"})
            return None
        elif do == "send and close":
            await client.send({"n": packet["n"]}, close=True)
            return None
        elif do == "close later":
            await trio.lowlevel.checkpoint()
            await client.send({"n": packet["n"]})
            await client.close()
            await client.close()
            return None
        return {"n": packet["n"]}


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def requests(peer: NumberedPeer, *programs: str) -> None:
    await peer.send(
        b"".join(numbered("REQUEST", number, {"n": number, "do": do}) for number, do in enumerate(programs, 1))
    )


def reply(number: int) -> Answer:
    return Answer("REPLY", number, {"n": number})


async def test_a_stop_ends_an_idle_session(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await peer.ping()
        running.server.stop()
        assert await peer.read_all() == [Answer("LEAVING", 0, None)]


@pytest.mark.parametrize("turns", range(12))
async def test_a_stop_at_any_moment_ends_the_session(serve: Serve, turns: int) -> None:
    scene = Scene()
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await peer.ask(n=0)
        await peer.send(numbered("REQUEST", 5, {"n": 5}))
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        running.server.stop()
        with trio.fail_after(5):
            answers = await peer.read_all()
        assert answers in ([Answer("LEAVING", 1, None)], [reply(5), Answer("LEAVING", 5, None)])


@pytest.mark.parametrize("turns", range(8))
async def test_the_last_answer_ends_a_session_that_is_leaving_at_any_moment(serve: Serve, turns: int) -> None:
    scene = Scene()
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait")
        await peer.ping()
        running.server.stop()
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scene.free.set()
        with trio.fail_after(5):
            answers = await peer.read_all()
        assert sorted(answers) == sorted([Answer("LEAVING", 1, None), reply(1)])


async def test_a_stop_answers_requests_in_flight_and_never_handles_those_that_wait_or_arrive(serve: Serve) -> None:
    scene = Scene(max_in_flight=2)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "wait", "wait", "")
        await peer.ping()
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 2, None)
        await peer.send(numbered("REQUEST", 9, {"n": 9}) + numbered("PONG", 1))
        await peer.cancel(2)
        assert await peer.read() == Answer("END", 2, None)
        await peer.cancel(3)
        await trio.testing.wait_all_tasks_blocked(0.01)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]
    assert scene.handled == [1, 2]


@pytest.mark.parametrize("fault", [numbered("EVENT", 0), numbered("REQUEST", 9, {"x": "x" * 200_000})[:150_000]])
async def test_a_fault_after_leaving_is_no_second_end(serve: Serve, fault: bytes) -> None:
    scene = Scene(max_buffered=100_000)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait")
        await peer.ping()
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 1, None)
        await peer.send(fault)
        await trio.testing.wait_all_tasks_blocked(0.01)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]


@pytest.mark.parametrize("between", [b"", numbered("PING", 1), numbered("REQUEST", 3, {"op": "wait"})])
@pytest.mark.parametrize("op", ["close", "stop"])
async def test_a_cancel_that_came_together_with_the_last_request_is_handled(
    serve: Serve, op: str, between: bytes
) -> None:
    server = Server(port=0)

    @server.operation("wait")
    async def wait(client: Any, packet: Any) -> None:
        await trio.sleep_forever()

    @server.operation("close")
    async def close(client: Any, packet: Any) -> None:
        await client.close()

    @server.operation("stop")
    async def stop(client: Any, packet: Any) -> None:
        server.stop()

    running = await serve(server)
    async with await connect(running) as peer:
        await peer.send(numbered("REQUEST", 1, {"op": "wait"}))
        await peer.ping()
        await peer.send(numbered("REQUEST", 2, {"op": op}) + between + numbered("CANCEL", 1))
        answers = await peer.read_all()
        assert sorted(answers) == [Answer("END", 1, None), Answer("END", 2, None), Answer("LEAVING", 2, None)]


async def test_a_half_closed_session_leaves_on_a_stop_as_well(serve: Serve) -> None:
    scene = Scene(max_in_flight=1)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "")
        await peer.ping()
        await peer.half_close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 1, None)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]
    assert scene.handled == [1]


async def test_a_drain_time_that_has_passed_cancels_the_requests_in_flight(serve: Serve) -> None:
    scene = Scene(drain_timeout=0.2)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "wait")
        await peer.ping()
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 2, None)
        with trio.fail_after(3):
            await peer.read_all()


@pytest.mark.parametrize("do", ["close", "send and close", "close later"])
async def test_a_handler_that_closes_ends_its_request_and_then_the_session(serve: Serve, do: str) -> None:
    scene = Scene(max_in_flight=2)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", do, "", "")
        answer = await peer.read()
        assert answer == (Answer("END", 2, None) if do == "close" else reply(2))
        leaving = await peer.read()
        assert leaving is not None
        assert (leaving.kind, leaving.number) == ("LEAVING", 2)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]
    assert scene.handled == [1, 2]
    await running.settle()
    await scene.sessions[0].close()  # does nothing


async def test_a_session_that_is_closed_from_elsewhere_leaves(serve: Serve) -> None:
    scene = Scene()
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait")
        await peer.ping()
        await scene.sessions[0].close()
        await scene.sessions[0].close()
        assert await peer.read() == Answer("LEAVING", 1, None)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]


async def test_the_client_of_a_request_can_be_closed_after_the_end_of_the_session(serve: Serve) -> None:
    server, clients = Server(port=0), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        clients.append(client)
        if "wait" in packet:
            await trio.lowlevel.checkpoint()
        return {}

    running = await serve(server)
    async with await connect(running) as peer:
        await peer.ask()
        await peer.ask(wait=1)
        await peer.ask(wait=1)
    await running.settle()
    for client in clients:
        assert client.gone
        await client.close()
        for last in (False, True):
            with pytest.raises((ConnectionError, RuntimeError)):
                await client.send({"too": "late"}, last=last)
        with pytest.raises(ConnectionError):
            client.send_nowait({"too": "late"})
        async with client.answering():
            pass
    assert not running.logged("has ended its request")


WRONG_VERSION = bytes((0, 0, 0, 9, 22, 0)) + b"1234567"
FAULTS: list[tuple[bytes, str, int]] = [
    (WRONG_VERSION, "ERR_HEADER_INVALID", 0),
    (numbered("REQUEST", 3, {}).replace(b"\x17\x00\x00", b"\x17\x00\x0a"), "ERR_HEADER_INVALID", 0),
    (numbered("REQUEST", 3, {}).replace(b"\x17\x00\x00", b"\x17\x00\x7f"), "ERR_HEADER_INVALID", 0),
    (numbered("REQUEST", 2, {}), "ERR_HEADER_INVALID", 0),
    (numbered("REQUEST", 0, {}), "ERR_HEADER_INVALID", 0),
    *((numbered(kind, 3), "ERR_HEADER_INVALID", 0) for kind in ("REPLY", "PART", "END", "FAILURE", "EVENT", "LEAVING")),
    (numbered("CANCEL", 1, {}), "ERR_REQUEST_MALFORMED", 0),
    (numbered("PING", 1, {}), "ERR_REQUEST_MALFORMED", 0),
    ((6).to_bytes(4, "big") + bytes((23, 0, 0, 0, 0, 0)), "ERR_REQUEST_MALFORMED", 0),
    ((1_000_000_000).to_bytes(4, "big") + bytes((23, 0, 0)) + (7).to_bytes(4, "big"), "ERR_PACKET_TOO_LARGE", 7),
    ((1_000_000_000).to_bytes(4, "big") + bytes((23, 0, 0)) + (1).to_bytes(4, "big"), "ERR_PACKET_TOO_LARGE", 0),
    ((1_000_000_000).to_bytes(4, "big") + bytes((23, 0, 6)) + (7).to_bytes(4, "big"), "ERR_PACKET_TOO_LARGE", 0),
    (numbered("REQUEST", 7, {}, encoding=9), "ERR_HEADER_INVALID", 7),
]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("fault", "code", "number"), FAULTS)
async def test_a_fault_of_a_packet_ends_the_session_after_the_answers(
    serve: Serve, fault: bytes, code: str, number: int, waits: bool
) -> None:
    scene = Scene()
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait" if waits else "", "wait" if waits else "")
        await peer.send(fault + numbered("REQUEST", 9, {"n": 9}))
        before = [] if waits else [await peer.read(), await peer.read()]
        assert before == ([] if waits else [reply(1), reply(2)])
        assert await peer.read() == Answer("FAILURE", number, {"status": "failure", "error": code})
        assert await peer.read() == Answer("LEAVING", max(number, 2), None)
        scene.free.set()
        assert sorted(await peer.read_all()) == ([reply(1), reply(2)] if waits else [])
    assert scene.handled == [1, 2]
    assert running.server.statistics().refusals[code] == 1


@pytest.mark.parametrize(
    ("fault", "encoding"),
    [
        ((1_000_000_000).to_bytes(4, "big") + bytes((23, 0, 0)) + (7).to_bytes(4, "big"), 0),
        ((1_000_000_000).to_bytes(4, "big") + bytes((23, 1, 0)) + (7).to_bytes(4, "big"), 1),
        (numbered("REQUEST", 7, {}, encoding=9), 1),
        (numbered("REQUEST", 1, {}, encoding=0), 1),
    ],
)
async def test_the_failure_of_a_refused_request_has_its_encoding_if_the_server_knows_it(
    serve: Serve, fault: bytes, encoding: int
) -> None:
    running = await serve(Scene().server)
    async with await connect(running) as peer:
        await peer.send(numbered("REQUEST", 3, payload=zi_map(n="1"), encoding=1))
        assert await peer.read() == Answer("REPLY", 3, zi_map(n="1"), 1)
        await peer.send(fault)
        failure = await peer.read()
        assert failure is not None
        assert (failure.kind, failure.encoding) == ("FAILURE", encoding)
        assert failure.number == (7 if b"\x00\x00\x00\x07" in fault[6:11] else 0)


async def test_requests_that_wait_before_a_refused_one_are_handled(serve: Serve) -> None:
    scene = Scene(max_in_flight=1)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "", "wait", "")
        await peer.send(numbered("REQUEST", 5, {}, encoding=9))
        failure = {"status": "failure", "error": "ERR_HEADER_INVALID"}
        assert await peer.read() == Answer("FAILURE", 5, failure)
        assert await peer.read() == Answer("LEAVING", 5, None)
        scene.free.set()
        assert await peer.read_all() == [reply(1), reply(2), reply(3), reply(4)]


async def test_requests_that_wait_before_a_refused_one_are_handled_by_a_server_that_stops_as_well(serve: Serve) -> None:
    scene = Scene(max_in_flight=1)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "")
        await peer.send(numbered("REQUEST", 5, {}, encoding=9))
        assert await peer.read() is not None
        running.server.stop()
        assert await peer.read() == Answer("LEAVING", 5, None)
        scene.free.set()
        assert await peer.read_all() == [reply(1), reply(2)]


async def test_requests_that_wait_before_a_fault_without_a_number_are_not_handled(serve: Serve) -> None:
    scene = Scene(max_in_flight=1)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await requests(peer, "wait", "", "")
        await peer.send(numbered("EVENT", 0))
        assert (await peer.read(), await peer.read())[1] == Answer("LEAVING", 1, None)
        scene.free.set()
        assert await peer.read_all() == [reply(1)]
    assert scene.handled == [1]


async def test_a_version_23_packet_in_a_session_of_version_22_is_a_fault(serve: Serve) -> None:
    running = await serve(Scene().server)
    async with await running.connect() as peer:
        assert await peer.ask(n=1) == {"n": 1}
        await peer.send(numbered("PING", 1))
        assert await peer.failure() == "ERR_HEADER_INVALID"
        assert await peer.closed()
