"""The plugin ``metrics``: a scrape has the values of `Server.statistics`."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from peer import Peer
from ports import free_port
from scraping import Samples, fetch, labelled, parse, scrape, start, with_metrics

import asyncapy_core
import asyncapy_metrics
from asyncapy_core import Durations, HandlerStatistics, Server, ServerStatistics
from asyncapy_core.errors import ConfigError, Failure
from asyncapy_filters import Fields, HasFields
from asyncapy_metrics.families import BOUNDS, MAX_CHARACTERS, MAX_METHODS, calls_by_method, label_value


def with_handlers(options: dict[str, Any] | None = None, /, **settings: Any) -> Server:
    server = with_metrics(options, **settings)

    @server.add_handler(HasFields(how=None))
    async def act(client: Any, packet: Any) -> dict[str, Any]:
        if packet["how"] == "fail":
            raise OSError("no disk")
        if packet["how"].startswith("ERR_"):
            raise Failure(packet["how"])
        return {"done": packet["how"]}

    @server.add_handler(Fields(other=None), group=1)
    async def later(client: Any, packet: Any) -> dict[str, Any]:
        return {"later": True}

    return server


def expected(now: ServerStatistics) -> Samples:
    """The samples that are made of statistics; durations, threads, and the process have tests of their own."""
    found: Samples = {
        labelled("asyncapy_sessions"): now.sessions,
        labelled("asyncapy_sessions_opened_total"): now.sessions_opened,
        labelled("asyncapy_connections", state="open"): now.connections - now.closing,
        labelled("asyncapy_connections", state="closing"): now.closing,
        labelled("asyncapy_connections", state="refused"): now.refused,
        labelled("asyncapy_connections", state="abandoned"): now.abandoned,
        labelled("asyncapy_connections", state="handshake"): now.handshakes,
        labelled("asyncapy_received_bytes_total"): now.bytes_received,
        labelled("asyncapy_sent_bytes_total"): now.bytes_sent,
        labelled("asyncapy_buffered_bytes"): now.bytes_incomplete,
        labelled("asyncapy_queued_bytes"): now.bytes_queued,
        labelled("asyncapy_deadlines"): now.deadlines,
    }
    for handler in now.handlers:
        for outcome, count in {"ok": 0, **handler.outcomes}.items():
            labels = {"rpc_method": handler.name, "rpc_status_code": outcome}
            if outcome.startswith("ERR_"):
                labels["error_type"] = outcome
            found[labelled("asyncapy_requests_total", **labels)] = count
    for code, count in now.refusals.items():
        found[labelled("asyncapy_refusals_total", rpc_status_code=code)] = count
    return found


async def use(running: Running) -> Peer:
    """Let a client do something of everything, and return its connection."""
    peer = await running.connect()
    for how in ("a", "b", "fail", "ERR_GONE", "ERR_GONE"):
        assert await peer.ask(how=how) is not None
    assert await peer.ask(unknown=1) is not None  # ERR_NO_HANDLER
    await peer.stream.send_all(b"\0\0\0\x40\x16\0half a packet")
    with trio.fail_after(5):
        while not running.server.statistics().bytes_incomplete:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.001)
    return peer


async def test_a_scrape_has_the_statistics_of_the_server(serve: Serve) -> None:
    server = with_handlers()
    running, port = await start(serve, server)
    async with await use(running):
        samples = await scrape(port)
        now = expected(server.statistics())
    assert now.items() <= samples.items()
    assert samples[labelled("asyncapy_sessions")] == 1
    assert samples[labelled("asyncapy_buffered_bytes")] > 0
    assert samples[labelled("asyncapy_requests_total", rpc_method="later", rpc_status_code="ok")] == 0
    gone = {"rpc_status_code": "ERR_GONE", "error_type": "ERR_GONE"}
    assert samples[labelled("asyncapy_requests_total", rpc_method="act", **gone)] == 2
    assert samples[labelled("asyncapy_refusals_total", rpc_status_code="ERR_NO_HANDLER")] == 1
    own = {key for key in samples if key[0].startswith("asyncapy_")} - now.keys()
    assert {name for name, _ in own} == {
        "asyncapy_build_info",
        "asyncapy_threads",
        "asyncapy_threads_limit",
        "asyncapy_threads_waiting",
    }


async def test_durations_are_a_histogram_if_they_are_measured(serve: Serve) -> None:
    server = with_handlers(measure=True)
    running, port = await start(serve, server)
    async with await use(running):
        samples = await scrape(port)
    act, later = server.statistics().handlers
    assert not later.durations
    name = "rpc_server_call_duration_seconds"
    for outcome, durations in act.durations.items():
        labels = {"rpc_system_name": "asyncaproto", "rpc_method": "act", "rpc_status_code": outcome}
        if outcome != "ok":
            labels["error_type"] = outcome
        assert samples[labelled(f"{name}_count", **labels)] == durations.count == act.outcomes[outcome]
        assert samples[labelled(f"{name}_sum", **labels)] == durations.total
        for bound in BOUNDS:
            below = sum(number for most, number in durations.buckets.items() if most <= bound)
            assert samples[labelled(f"{name}_bucket", **labels, le=str(bound))] == below
        assert samples[labelled(f"{name}_bucket", **labels, le="+Inf")] == durations.count
    assert len([key for key in samples if key[0] == f"{name}_count"]) == 3


async def test_there_are_no_durations_without_measure(serve: Serve) -> None:
    running, port = await start(serve, with_handlers())
    async with await use(running):
        _, text = await fetch(port)
    assert b"duration" not in text


async def test_clients_that_leave_and_cancelled_requests_have_no_error_type() -> None:
    outcomes = {"ok": 1, "disconnected": 2, "cancelled": 3}
    now = HandlerStatistics("wait", 0, outcomes, {})
    assert {name: calls.count for name, calls in calls_by_method([now])["wait"].items()} == outcomes


async def test_the_threads_of_the_process_are_counted(serve: Serve) -> None:
    server = with_metrics()
    entered = trio.Event()
    token = trio.lowlevel.current_trio_token()
    leave = threading.Event()

    def block() -> None:
        token.run_sync_soon(entered.set)
        leave.wait(20)

    @server.add_handler()
    async def blocking(client: Any, packet: Any) -> dict[str, Any]:
        await server.run_sync_task(block)
        return {"done": True}

    running, port = await start(serve, server)
    async with await running.connect() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.ask(a=1))
        await entered.wait()
        try:
            samples = await scrape(port)
        finally:
            leave.set()
    total = trio.to_thread.current_default_thread_limiter().total_tokens
    assert samples[labelled("asyncapy_threads")] == 1
    assert samples[labelled("asyncapy_threads_limit")] == total
    assert samples[labelled("asyncapy_threads_waiting")] == 0
    assert samples[labelled("process_open_fds")] > 3


HOSTILE = [
    ('quo"te', 'quo"te'),
    ("back\\slash", "back\\slash"),
    ("new\nline", "new\\nline"),
    ("null\0", "null\\x00"),
    ("lone\ud800surrogate", "lone\\ud800surrogate"),
    ("größe", "größe"),
    ("\u2028", "\\u2028"),
    ('} 1\nfaked{a="', '} 1\\nfaked{a="'),
    ("x" * 1_000_000, "x" * MAX_CHARACTERS),
    ("\n" * 1_000_000, "\\n" * (MAX_CHARACTERS // 2)),
]


async def test_a_hostile_name_or_code_is_escaped_and_cut(serve: Serve) -> None:
    server = with_metrics()
    for name, _ in HOSTILE:

        async def handler(client: Any, packet: Any, name: str = name) -> None:
            raise Failure(name)

        handler.__name__ = name
        server.register_handler(handler, Fields(number=str(len(server.handlers.get(0, ())))))
    running, port = await start(serve, server)
    async with await running.connect() as peer:
        for number in range(len(HOSTILE)):
            await peer.ask(number=str(number))
        samples = await scrape(port)
    for _, value in HOSTILE:
        assert samples[labelled("asyncapy_requests_total", rpc_method=value, rpc_status_code="ok")] == 0


def test_a_label_has_printable_characters_only() -> None:
    for name, value in HOSTILE:
        assert label_value(name) == value
        assert len(value) <= MAX_CHARACTERS
        value.encode()


def statistics(name: str, **durations: Durations) -> HandlerStatistics:
    return HandlerStatistics(name, 0, {"ok": 2}, durations)


def test_handlers_of_one_name_are_one_method() -> None:
    first = statistics("add", ok=Durations(2, 0.5, {BOUNDS[3]: 1, BOUNDS[5]: 1}))
    second = statistics("add", ok=Durations(1, 0.25, {BOUNDS[3]: 1}))
    (calls,) = calls_by_method([first, second])["add"].values()
    assert (calls.count, calls.measured, calls.total) == (4, 3, 0.75)
    assert [number for _, number in calls.cumulative()][2:7] == [0, 2, 2, 3, 3]
    assert calls.cumulative()[-1] == ("+Inf", 3)


def test_a_duration_beyond_the_bounds_is_in_the_last_bucket() -> None:
    calls = calls_by_method([statistics("slow", ok=Durations(1, 40, {2**36 / 1e9: 1}))])["slow"]["ok"]
    assert calls.cumulative()[-2:] == [(str(BOUNDS[-1]), 0), ("+Inf", 1)]


def test_the_number_of_methods_is_bounded() -> None:
    found = calls_by_method(statistics(f"f{number}") for number in range(MAX_METHODS + 3))
    assert len(found) == MAX_METHODS + 1
    assert found["_OTHER"]["ok"].count == 6
    assert found["f0"]["ok"].count == 2


async def test_a_server_without_a_port_for_metrics_has_none_and_imports_no_library() -> None:
    program = """
import sys, trio
from asyncapy import Server

server = Server(port=0, logging_level=40)

@server.beside
async def stop():
    server.stop()

trio.run(server.serve)
print("asyncapy_metrics.plugin" in sys.modules, "prometheus_client" in sys.modules, "h11" in sys.modules)
"""
    done = await trio.run_process([sys.executable, "-c", program], capture_stdout=True, stderr=subprocess.STDOUT)
    assert done.stdout == b"True False False\n"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"address": ""}, "address"),
        ({"path": "metrics"}, "path"),
        ({"path": "/a b"}, "path"),
        ({"path": "/a?b"}, "path"),
        ({"path": "/a\n"}, "path"),
        ({"ports": 1}, "ports"),
    ],
)
async def test_a_wrong_option_ends_the_start(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=f"options of plugin 'metrics'.*: {fault}:"):
        await with_metrics(options).serve()


async def test_the_path_is_an_option(serve: Serve) -> None:
    _, port = await start(serve, with_metrics({"path": "/-/numbers"}))
    response, body = await fetch(port, "/-/numbers?name=all")
    assert response.status_code == 200
    assert labelled("asyncapy_sessions") in parse(body)
    response, body = await fetch(port)
    assert (response.status_code, body) == (404, b"The metrics are at /-/numbers\n")


async def test_two_servers_of_a_process_have_ports_and_numbers_of_their_own(serve: Serve) -> None:
    first, first_port = await start(serve, with_handlers())
    second, second_port = await start(serve, with_handlers())
    async with await use(first), await second.connect() as peer:
        assert await peer.ask(how="a") == {"done": "a"}
        key = labelled("asyncapy_requests_total", rpc_method="act", rpc_status_code="ok")
        assert (await scrape(first_port))[key] == 2
        assert (await scrape(second_port))[key] == 1


async def test_counters_go_on_when_a_server_serves_again_on_the_same_port() -> None:
    port = free_port()
    server = with_handlers({"port": port})
    key = labelled("asyncapy_requests_total", rpc_method="act", rpc_status_code="ok")
    for run in (1, 2):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            async with await Peer.connect(addresses[0][1]) as peer:
                assert await peer.ask(how="a") == {"done": "a"}
            assert (await scrape(port))[key] == run
            server.stop()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


def test_the_plugin_uses_public_names_only() -> None:
    public = {"asyncapy_core": {*asyncapy_core.__all__}, "asyncapy_core.errors": {*vars(asyncapy_core.errors)}}
    for path in Path(asyncapy_metrics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyncapy_core"):
                assert {alias.name for alias in node.names} <= public[str(node.module)], path.name
