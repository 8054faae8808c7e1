"""`Server.statistics` of servers that serve."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import trio
from conftest import Serve
from hooks import manager
from peer import Peer, json_packet

from asyncapy_core import Durations, Server, ServerStatistics, hookimpl
from asyncapy_core.errors import Failure
from asyncapy_core.interfaces import ServerInterface
from asyncapy_core.routing.outcomes import MAX_OUTCOMES
from asyncapy_core.testing import serving
from asyncapy_filters import Fields, HasFields


def with_handlers(**settings: Any) -> Server:
    server = Server(port=0, **settings)

    @server.add_handler(HasFields(how=None))
    async def act(client: Any, packet: Any) -> dict[str, Any]:
        if packet["how"] == "wait":
            await trio.sleep(0.05)
        if packet["how"] == "fail":
            raise OSError("no disk")
        if packet["how"].startswith("ERR_"):
            raise Failure(packet["how"])
        if packet["how"] == "stop":
            await client.send({"stopped": True})
            packet.stop_propagation()
        return {"done": packet["how"]}

    @server.add_handler(Fields(other=None), group=1)
    async def later(client: Any, packet: Any) -> dict[str, Any]:
        return {"later": True}

    return server


async def test_requests_are_counted_by_handler_and_outcome(serve: Serve) -> None:
    server = with_handlers()
    running = await serve(server)
    async with await running.connect() as peer:
        for how in ("a", "b", "stop", "fail", "ERR_GONE", "ERR_GONE"):
            assert await peer.ask(how=how) is not None
        assert await peer.ask(other=1) == {"later": True}
    act, other = server.statistics().handlers
    assert (act.name, act.group, other.name, other.group) == ("act", 0, "later", 1)
    assert dict(act.outcomes) == {"ok": 3, "ERR_HANDLER_FAILED": 1, "ERR_GONE": 2}
    assert act.requests == 6
    assert dict(other.outcomes) == {"ok": 1}
    assert act.durations == other.durations == {}


async def test_durations_are_measured_on_request(serve: Serve) -> None:
    server = with_handlers(measure=True)
    running = await serve(server)
    async with await running.connect() as peer:
        for how in ("a", "wait", "wait", "fail"):
            assert await peer.ask(how=how) is not None
    durations = server.statistics().handlers[0].durations
    assert {outcome: each.count for outcome, each in durations.items()} == {"ok": 3, "ERR_HANDLER_FAILED": 1}
    ok = durations["ok"]
    assert ok.total >= 0.1
    assert sum(number for bound, number in ok.buckets.items() if bound > 0.05) >= 2
    assert ok.quantile(1) == max(ok.buckets)
    assert ok.quantile(0.99) >= 0.05


async def test_a_client_that_leaves_before_its_answer_is_counted_as_disconnected(serve: Serve) -> None:
    server = Server(port=0, cancel_on_disconnect=True)
    begun = trio.Event()

    @server.add_handler()
    async def wait(client: Any, packet: Any) -> None:
        begun.set()
        await trio.sleep_forever()

    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(a=1))
    await begun.wait()
    await peer.reset()
    await running.settle()
    with trio.fail_after(5):
        while server.statistics().abandoned:  # noqa: ASYNC110  # as in Running.settle
            await trio.sleep(0.005)
    assert dict(server.statistics().handlers[0].outcomes) == {"disconnected": 1}


async def test_a_client_that_leaves_during_a_function_of_on_error_is_counted_as_disconnected(serve: Serve) -> None:
    server = Server(port=0, cancel_on_disconnect=True)
    begun = trio.Event()

    @server.on_error(OSError)
    async def wait(client: Any, packet: Any, error: Any) -> None:
        begun.set()
        await trio.sleep_forever()

    @server.add_handler()
    async def fail(client: Any, packet: Any) -> None:
        raise OSError("no disk")

    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(a=1))
    await begun.wait()
    await peer.reset()
    await running.settle()
    with trio.fail_after(5):
        while server.statistics().abandoned:  # noqa: ASYNC110  # as in Running.settle
            await trio.sleep(0.005)
    assert dict(server.statistics().handlers[0].outcomes) == {"disconnected": 1}
    assert not running.logged("ERROR")


async def test_refusals_are_counted_by_their_reason(serve: Serve) -> None:
    server = with_handlers(session_limit=1)

    @server.guard
    def known(client: Any, packet: Any) -> bool:
        if "banned" in packet:
            raise Failure("ERR_FORBIDDEN")
        return True

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(unheard=1) == {"status": "failure", "error": "ERR_NO_HANDLER"}
        assert await peer.ask(banned=1) == {"status": "failure", "error": "ERR_FORBIDDEN"}
        async with await running.connect() as refused:
            assert await refused.failure() == "ERR_SESSION_LIMIT_REACHED"
        await peer.send(bytes(4))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    assert dict(server.statistics().refusals) == {
        "ERR_NO_HANDLER": 1,
        "ERR_FORBIDDEN": 1,
        "ERR_SESSION_LIMIT_REACHED": 1,
        "ERR_REQUEST_MALFORMED": 1,
    }
    assert [each.requests for each in server.statistics().handlers] == [0, 0]


async def test_sessions_and_bytes_are_counted_before_and_after_the_end_of_a_connection(serve: Serve) -> None:
    server = with_handlers()
    running = await serve(server)
    request, reply = json_packet(how="a"), bytes(6) + b'{"done":"a"}'
    for number in (1, 2):
        async with await running.connect() as peer:
            for _ in range(2):
                assert await peer.ask(how="a") == {"done": "a"}
            during = server.statistics()
        await running.settle()
        after = server.statistics()
        assert (during.sessions, during.connections, during.sessions_opened) == (1, 1, number)
        assert (after.sessions, after.connections, after.sessions_opened) == (0, 0, number)
        for statistics in (during, after):
            assert statistics.bytes_received == 2 * number * len(request)
            assert statistics.bytes_sent == 2 * number * len(reply)


async def test_bytes_that_a_peer_does_not_read_are_counted_as_queued(serve: Serve) -> None:
    server = Server(port=0, max_output=100_000_000)
    text = "x" * 500_000

    @server.add_handler()
    async def answer(client: Any, packet: Any) -> None:
        for _ in range(40):
            client.send_nowait({"text": text})

    running = await serve(server)
    peer = await running.connect()
    await peer.send(json_packet(a=1))
    with trio.fail_after(5):
        while not (server.statistics().bytes_queued and server.statistics().deadlines):  # noqa: ASYNC110  # as above
            await trio.sleep(0.005)
    await peer.reset()
    await running.settle()
    assert server.statistics().bytes_queued == 0


async def test_bytes_of_an_incomplete_packet_are_counted(serve: Serve) -> None:
    running = await serve()
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1)[:7])
        with trio.fail_after(5):
            while running.server.statistics().bytes_incomplete != 7:  # noqa: ASYNC110  # as in Running.settle
                await trio.sleep(0.005)


async def test_a_server_that_does_not_serve_has_statistics_too() -> None:
    server = with_handlers()
    async with serving(server) as running, running.client() as client:
        assert await client.request({"how": "a"}) == {"done": "a"}
    statistics = server.statistics()
    assert (statistics.sessions, statistics.sessions_opened, statistics.deadlines) == (0, 1, 0)
    assert statistics.handlers[0].requests == 1
    async with serving(server) as running, running.client() as client:
        assert await client.request({"how": "a"}) == {"done": "a"}
    assert server.statistics().handlers[0].requests == 2
    assert server.statistics().sessions_opened == 2


@pytest.mark.parametrize("measure", [False, True])
async def test_the_codes_of_failures_take_bounded_memory(serve: Serve, measure: bool) -> None:
    server = with_handlers(measure=measure)
    running = await serve(server)
    async with await running.connect() as peer:
        for number in range(MAX_OUTCOMES + 20):
            assert await peer.ask(how=f"ERR_{number}") is not None
    (act, _) = server.statistics().handlers
    assert len(act.outcomes) == MAX_OUTCOMES + 1
    assert act.outcomes["other"] == 20
    assert act.requests == MAX_OUTCOMES + 20
    if measure:
        assert act.durations["other"].count == 20


def test_a_quantile_is_the_bound_of_a_bucket() -> None:
    durations = Durations(10, 1.0, {0.001: 5, 0.01: 4, 1.0: 1})
    assert [durations.quantile(fraction) for fraction in (0, 0.5, 0.51, 0.9, 0.91, 1)] == [
        0.001,
        0.001,
        0.01,
        0.01,
        1.0,
        1.0,
    ]
    assert Durations(0, 0.0, {}).quantile(0.5) == 0
    for wrong in (-0.1, 1.1, 50):
        with pytest.raises(ValueError, match=r"a fraction is 0 to 1, such as 0\.99"):
            durations.quantile(wrong)


async def test_the_statistics_of_a_moment_do_not_change(serve: Serve) -> None:
    server = with_handlers()
    running = await serve(server)
    before = server.statistics()
    async with await Peer.connect(running.port) as peer:
        assert await peer.ask(how="a") == {"done": "a"}
        assert await peer.ask(unheard=1) is not None
    assert before.handlers[0].outcomes == {}
    assert before.refusals == {}


async def test_a_plugin_reads_the_counters_as_records_that_do_not_change() -> None:
    taken: list[ServerStatistics] = []

    class Plugin:
        @hookimpl
        async def asyncapy_run(self, server: ServerInterface, task_status: trio.TaskStatus[None]) -> None:
            taken.append(server.statistics())
            task_status.started()

    server = with_handlers(plugins=manager(counting=Plugin()))
    async with serving(server) as running, running.client() as client:
        assert await client.request({"how": "a"}) == {"done": "a"}
        taken.append(server.statistics())
        assert await client.request({"how": "b"}) == {"done": "b"}
        assert await client.request({"nothing": 1}) is not None
        taken.append(server.statistics())
    assert [now.sessions_opened for now in taken] == [0, 1, 1]
    assert [now.handlers[0].requests for now in taken] == [0, 1, 2]
    assert [dict(now.refusals) for now in taken] == [{}, {}, {"ERR_NO_HANDLER": 1}]
    assert taken[0].bytes_received < taken[1].bytes_received < taken[2].bytes_received
    with pytest.raises(TypeError):
        taken[0].refusals["ERR_NO_HANDLER"] = 1  # type: ignore[index]  # it is read-only
    with pytest.raises(FrozenInstanceError):
        taken[0].sessions = 7  # type: ignore[misc]  # it is frozen
