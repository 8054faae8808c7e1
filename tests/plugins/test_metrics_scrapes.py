"""The port for metrics: slow, half and hostile scrapes, many connections, a port in use, and the end of the server."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
import trio
from conftest import Serve
from scraping import exchange, fetch, labelled, metrics_port, parse, received, scrape, start, with_metrics
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy_core.errors import PluginError
from asyncapy_filters import Fields
from asyncapy_metrics.exposition import SHARE, Exposition
from asyncapy_metrics.families import MAX_CHARACTERS, MAX_METHODS
from asyncapy_metrics.http import MAX_HEAD, READ
from asyncapy_metrics.scrapes import MAX_CONNECTIONS, SECONDS

SESSIONS = labelled("asyncapy_sessions")


async def connect(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


async def test_the_answer_of_head_has_the_headers_of_get_and_no_body(serve: Serve) -> None:
    _, port = await start(serve, with_metrics())
    response, body = await fetch(port, method="HEAD")
    headers = dict(response.headers)
    assert (response.status_code, body) == (200, b"")
    assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert int(headers[b"content-length"]) > 1000
    assert headers[b"connection"] == b"close"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
async def test_another_method_is_refused(serve: Serve, method: str) -> None:
    _, port = await start(serve, with_metrics())
    response, body = await fetch(port, method=method)
    assert (response.status_code, body) == (405, b"Use GET or HEAD.\n")
    assert dict(response.headers)[b"allow"] == b"GET, HEAD"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400 Bad Request"),  # Host is missing
        (b"GET\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"400 Bad Request"),  # TLS
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", b"400 Bad Request"),
        (b"GET /m\xe9trics HTTP/1.1\r\nHost: a\r\n\r\n", b"400 Bad Request"),
        (b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEAD // 3), b"431 Request Header Fields Too Large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", b"501 Not Implemented"),
        (b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nbody", b"405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000, b"200 OK"),
        (b"GET http://a/metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 3, b"200 OK"),  # only the first is answered
    ],
)
async def test_each_request_gets_one_whole_answer_and_the_end_of_the_connection(
    serve: Serve, request_: bytes, status: bytes
) -> None:
    running, port = await start(serve, with_metrics())
    reply = await exchange(port, request_)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    (length,) = (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    assert len(body) == length > 0
    assert not running.logged("failed")


async def test_a_request_may_arrive_byte_by_byte(serve: Serve) -> None:
    _, port = await start(serve, with_metrics())
    async with await connect(port) as stream:
        for byte in b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n":
            await stream.send_all(bytes([byte]))
        assert (await received(stream)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("half", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"])
async def test_half_a_request_holds_its_connection_for_ten_seconds(
    serve: Serve, half: bytes, autojump_clock: MockClock
) -> None:
    _, port = await start(serve, with_metrics())
    autojump_clock.autojump_threshold = 0.02  # so that sockets are served before the clock jumps
    async with await connect(port) as stream:
        await stream.send_all(half)
        before = trio.current_time()
        assert await received(stream) == b""
        assert trio.current_time() - before == pytest.approx(SECONDS, abs=0.1)
    assert SESSIONS in await scrape(port)


@pytest.mark.parametrize("half", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_a_peer_that_leaves_harms_nothing(serve: Serve, half: bytes) -> None:
    running, port = await start(serve, with_metrics())
    for reset in (False, True):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            if reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.sendall(half)
    assert SESSIONS in await scrape(port)
    assert not running.logged("failed")


async def test_an_answer_that_is_not_read_holds_its_connection_for_ten_seconds(
    serve: Serve, autojump_clock: MockClock
) -> None:
    server = with_metrics()
    for number in range(MAX_METHODS):  # the answer is larger than the buffers of the system

        async def handler(client: Any, packet: Any) -> None: ...

        handler.__name__ = f"{number:04}" + "x" * MAX_CHARACTERS
        server.register_handler(handler, Fields(number=str(number)))
    for each in server.handlers[0]:
        each.outcomes.measure("ok", 1)
    _, port = await start(serve, server)
    autojump_clock.autojump_threshold = 0.02
    async with await connect(port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        with trio.fail_after(5):
            head, _, body = (await stream.receive_some(READ)).partition(b"\r\n\r\n")
        await trio.sleep(SECONDS + 0.1)
        with contextlib.suppress(trio.BrokenResourceError):
            while more := await stream.receive_some():
                body += more
    (length,) = (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    assert len(body) < length


async def test_many_silent_connections_keep_out_no_scrape(serve: Serve) -> None:
    running, port = await start(serve, with_metrics())
    before = running.footprint["descriptors"]
    streams = [await connect(port) for _ in range(3 * MAX_CONNECTIONS)]
    assert SESSIONS in await scrape(port)
    for stream in streams[: 2 * MAX_CONNECTIONS + 1]:
        assert await received(stream) == b""
    assert running.footprint["descriptors"] - before <= 3 * MAX_CONNECTIONS + MAX_CONNECTIONS
    for stream in streams:
        await stream.aclose()


async def test_scrapes_at_the_same_time_are_all_answered(serve: Serve) -> None:
    _, port = await start(serve, with_metrics())
    found = []

    async def ask() -> None:
        found.append(await scrape(port))

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_CONNECTIONS):
            nursery.start_soon(ask)
    assert len(found) == MAX_CONNECTIONS
    assert all(SESSIONS in each for each in found)


async def test_texts_that_are_asked_for_together_are_written_twice_at_most() -> None:
    server = with_metrics()
    taken: list[int] = []
    statistics = server.statistics

    def counted() -> Any:
        taken.append(1)
        return statistics()

    server.statistics = counted  # type: ignore[method-assign]  # the work is counted
    exposition = Exposition(server)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(exposition.text)
    assert len(taken) <= 2
    assert parse(await exposition.text())[SESSIONS] == 0
    assert len(taken) <= 3


async def test_a_scrape_that_is_given_up_spoils_no_other() -> None:
    exposition = Exposition(with_metrics())
    given_up = trio.CancelScope()
    texts: list[bytes] = []

    async def ask() -> None:
        texts.append(await exposition.text())

    async def ask_and_give_up() -> None:
        with given_up:
            await ask()

    exposition._thread.acquire_on_behalf_of_nowait("the test")  # so that the first text cannot be written
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_give_up)
        await wait_all_tasks_blocked()
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        given_up.cancel()
        await wait_all_tasks_blocked()
        exposition._thread.release_on_behalf_of("the test")
    assert len(texts) == 5
    assert all(SESSIONS in parse(text) for text in texts)


async def test_texts_take_a_part_of_the_time_only(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    seconds = iter(range(10_000))
    monkeypatch.setattr("asyncapy_metrics.exposition.time.thread_time", lambda: next(seconds))
    exposition = Exposition(with_metrics())
    await exposition.text()
    parts = next(seconds) // 2
    before = trio.current_time()
    await exposition.text()
    assert trio.current_time() - before == pytest.approx(parts / SHARE)


async def test_a_text_that_is_given_up_takes_its_part_of_the_time_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    given_up = trio.CancelScope()
    seconds = iter(range(10_000))

    def thread_time() -> int:
        if (now := next(seconds)) == 11:
            given_up.cancel()
        return now

    monkeypatch.setattr("asyncapy_metrics.exposition.time.thread_time", thread_time)
    exposition = Exposition(with_metrics())
    with given_up:
        await exposition.text()
    assert given_up.cancelled_caught
    before = trio.current_time()
    await exposition.text()
    assert trio.current_time() - before == pytest.approx(6 / SHARE)


async def test_the_loop_runs_between_the_parts_of_a_text() -> None:
    server = with_metrics(measure=True)
    for number in range(50):

        async def handler(client: Any, packet: Any) -> None: ...

        handler.__name__ = f"handler_{number}"
        server.register_handler(handler)
    exposition = Exposition(server)
    turns: list[int] = []
    done = trio.Event()

    async def count() -> None:
        while not done.is_set():
            turns.append(1)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await exposition.text()
        done.set()
    assert len(turns) >= 50


async def test_a_port_in_use_is_named_and_the_server_serves_and_takes_it_when_it_is_free(
    serve: Serve, autojump_clock: MockClock
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        running = await serve(with_metrics({"port": taken}))
        assert running.logged("plugin 'metrics'")
        assert running.logged(f"cannot listen on 127.0.0.1:{taken}: Address already in use")
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"a": 1}
    await trio.sleep(60)
    assert metrics_port(running) == taken


async def test_a_port_in_use_ends_the_start_if_the_plugin_is_required() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = with_metrics({"port": other.getsockname()[1]}, plugins_require=("metrics",))
        with pytest.raises(PluginError, match=r"metrics.*cannot listen on 127\.0\.0\.1:.* Address already in use"):
            await server.serve()


@pytest.mark.parametrize("address", ["no.such.host.invalid", "192.0.2.1", "." * 300])
async def test_an_address_that_cannot_be_used_is_named(serve: Serve, address: str) -> None:
    running = await serve(with_metrics({"address": address}))
    assert running.logged(
        f"plugin 'metrics' of (registered) in asyncapy_run failed: BindError (cannot listen on {address[:40]}"
    )


async def test_ipv6_is_logged_in_brackets(serve: Serve) -> None:
    running = await serve(with_metrics({"address": "::1"}))
    assert running.logged(f"Metrics on http://[::1]:{metrics_port(running)}/metrics")


async def test_scrapes_are_answered_while_the_server_drains_and_not_after_it(serve: Serve) -> None:
    server = with_metrics()
    begun, go_on = trio.Event(), trio.Event()

    @server.add_handler()
    async def wait(client: Any, packet: Any) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return {"done": True}

    running, port = await start(serve, server)
    silent = await connect(port)
    async with await running.connect() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: peer.ask(a=1))
        await begun.wait()
        server.stop()
        assert (await scrape(port))[SESSIONS] == 1
        go_on.set()
    with trio.fail_after(5):
        assert await received(silent) == b""  # an open connection does not delay the end
    await silent.aclose()
    with pytest.raises(OSError, match="all attempts to connect"):
        await connect(port)


async def test_a_scrape_does_not_wait_for_the_threads_of_handlers() -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in borrowers:
        limiter.acquire_on_behalf_of_nowait(borrower)
    try:
        with trio.fail_after(5):
            samples = parse(await Exposition(with_metrics()).text())
    finally:
        for borrower in borrowers:
            limiter.release_on_behalf_of(borrower)
    assert samples[labelled("asyncapy_threads")] == samples[labelled("asyncapy_threads_limit")]
