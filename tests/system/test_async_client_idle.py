"""The trio client on idle connections: a request that crosses ERR_TIMED_OUT is sent again, and no other request is."""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from conftest import Certificates, Start
from peer import failure, json_packet
from scripted import all_outcomes, echo, outcome, packets, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Failure, Server
from asyncapy.client import AsyncClient, Pool
from asyncapy.errors import NotConnected, ReplyTimeout, ServerDisconnected, SessionTimedOut
from asyncapy_core.client.idle import END_WITHIN, LONGEST_DELAY

TIMED_OUT = failure("ERR_TIMED_OUT")
Answer = Callable[[Any, bytes], Awaitable[None]]


class IdleServer:
    """Answers each packet with itself, but with a function after a packet ``{"then": ...}`` on the first connection."""

    def __init__(self, answer: Answer) -> None:
        self.received: list[dict[str, Any]] = []
        self._answer = answer

    async def __call__(self, stream: Any, number: int) -> None:
        answer: Answer | None = None
        async for packet in packets(stream):
            self.received.append(json.loads(packet[6:]))
            if answer is not None:
                await answer(stream, packet)
                answer = None
            else:
                await stream.send_all(packet)
                answer = self._answer if number == 1 and b"then" in packet else None


async def time_out(stream: Any, packet: bytes) -> None:
    """Close the connection as a server does that has not read the packet."""
    await stream.send_all(json_packet(**TIMED_OUT))
    await stream.aclose()


async def refuse(stream: Any, packet: bytes) -> None:
    """Answer with ERR_TIMED_OUT, and keep the connection open."""
    await stream.send_all(json_packet(**TIMED_OUT))


async def idle(client: AsyncClient, seconds: float = 60) -> None:
    """Make a connection, the next request on which the `IdleServer` answers differently, and leave it idle."""
    assert await client.request({"then": 1}) == {"then": 1}
    await trio.sleep(seconds)


# The server


@pytest.mark.parametrize("encoding", ["json", "ziproto"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_asks_once_a_minute_gets_an_answer_each_minute(
    asyncapy_server: Start, autojump_clock: MockClock, certificates: Certificates, tls: bool, encoding: str
) -> None:
    """The client sends in the same moment in which the server times out; trio chooses the order by chance."""
    handled: Counter[int] = Counter()
    server = Server(timeout=60, tls_cert=certificates.server if tls else None)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        handled[packet["number"]] += 1
        return {"number": packet["number"]}

    running = await asyncapy_server(server)
    ca_file = certificates.ca_file if tls else None
    async with running.client(timeout=60, encoding=encoding, ca_file=ca_file) as client:
        for number in range(50):
            assert await client.request({"number": number}) == {"number": number}
            await trio.sleep(60)
    assert handled == dict.fromkeys(range(50), 1)


async def test_a_pool_that_is_asked_once_a_minute_gives_an_answer_each_minute(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    handled: Counter[int] = Counter()
    server = Server(timeout=60)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        handled[packet["number"]] += 1
        await trio.sleep(1)
        return {"number": packet["number"]}

    running = await asyncapy_server(server)

    async def ask(pool: Pool, number: int) -> None:
        assert await pool.request({"number": number}) == {"number": number}

    async with Pool("localhost", 1, size=3, tls=False, open_stream=running.connect) as pool:
        for minute in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(ask, pool, 5 * minute + number)
            await trio.sleep(60)
    assert handled == dict.fromkeys(range(100), 1)


async def test_a_request_whose_handler_never_answers_is_not_handled_twice(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    handled: list[Any] = []
    server = Server(timeout=60)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        handled.append(packet["number"])
        if packet["number"] == 1:
            await client.send(packet)

    running = await asyncapy_server(server)
    async with running.client(timeout=300) as client:
        assert await client.request({"number": 1}) == {"number": 1}
        await trio.sleep(59)
        assert await client.request({"number": 2}) == TIMED_OUT
    assert handled == [1, 2]


@pytest.mark.parametrize("idle_time", [0, 30])
async def test_a_handler_that_answers_err_timed_out_is_called_once_and_its_answer_delivered_shortly(
    asyncapy_server: Start, autojump_clock: MockClock, idle_time: float
) -> None:
    handled: list[Any] = []
    server = Server(timeout=60)

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> Any:
        handled.append(packet["number"])
        if packet["number"] == 2:
            raise Failure("ERR_TIMED_OUT")
        return {"number": packet["number"]}

    running = await asyncapy_server(server)
    async with running.client(timeout=60) as client:
        assert await client.request({"number": 1}) == {"number": 1}
        await trio.sleep(idle_time)
        began = trio.current_time()
        assert await client.request({"number": 2}) == TIMED_OUT
        assert trio.current_time() - began == pytest.approx(END_WITHIN if idle_time else 0)
        assert await client.request({"number": 3}) == {"number": 3}
    assert handled == [1, 2, 3]
    assert len([line for line in running.log if "New session" in line]) == 1


# The bytes


async def test_a_request_that_crosses_err_timed_out_is_sent_again_once(autojump_clock: MockClock) -> None:
    behave = IdleServer(time_out)
    async with scripted(behave) as server, server.client() as client:
        await idle(client)
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.connections == 2
    assert behave.received.count({"a": 1}) == 2


async def test_the_requests_behind_it_are_sent_again_before_later_ones_in_their_order(
    autojump_clock: MockClock,
) -> None:
    reading = trio.Event()

    async def time_out_late(stream: Any, packet: bytes) -> None:
        await reading.wait()
        await time_out(stream, packet)

    behave = IdleServer(time_out_late)
    async with scripted(behave) as server, server.client() as client, trio.open_nursery() as nursery:
        await idle(client)
        answers: list[int] = []

        async def ask(number: int) -> None:
            assert await client.request({"number": number}) == {"number": number}
            answers.append(number)

        for number in range(5):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
        reading.set()
    assert sorted(answers) == list(range(5))
    assert behave.received == [{"then": 1}, {"number": 0}, *({"number": number} for number in range(5))]
    assert server.connections == 2


async def test_the_second_err_timed_out_is_the_answer(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            if b"then" in packet:
                await stream.send_all(packet)
            else:
                await time_out(stream, packet)
                return

    async with scripted(behave) as server, server.client(raise_failures=True) as client:
        await idle(client)
        with pytest.raises(SessionTimedOut):
            await client.request({"a": 1})
        assert server.connections == 2


async def test_a_request_that_was_the_first_on_its_connection_is_not_sent_again(autojump_clock: MockClock) -> None:
    """The server has not been idle before it."""

    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            await time_out(stream, packet)
            return

    async with scripted(behave) as server, server.client() as client:
        assert await client.request({"a": 1}) == TIMED_OUT
        assert server.connections == 1


async def test_the_first_request_on_a_connection_is_sent_again_if_it_was_idle_before(
    autojump_clock: MockClock,
) -> None:
    """The request for which the client has connected has timed out in the meantime."""

    async def behave(stream: Any, number: int) -> None:
        if number > 1:
            await echo(stream, number)
        async for packet in packets(stream):
            await time_out(stream, packet)
            return

    async with scripted(behave) as server:

        async def open_slowly() -> trio.abc.Stream:
            await trio.sleep(0 if server.connections else 5)
            return await server.open_stream()

        async with AsyncClient("nowhere", 1, tls=False, open_stream=open_slowly, timeout=10) as client:
            assert await outcome(client, {"given": "up"}, timeout=1) is NotConnected
            await trio.sleep(60)
            assert server.connections == 1
            assert await client.request({"a": 1}) == {"a": 1}
            assert server.connections == 2


@pytest.mark.parametrize("seconds", [LONGEST_DELAY, 5, 59.9])
async def test_a_reply_that_takes_longer_is_the_answer_even_if_the_connection_ends(
    autojump_clock: MockClock, seconds: float
) -> None:
    """A handler may have waited for something that timed out."""

    async def slowly(stream: Any, packet: bytes) -> None:
        await trio.sleep(seconds)
        await time_out(stream, packet)

    async with scripted(IdleServer(slowly)) as server, server.client() as client:
        await idle(client)
        assert await client.request({"a": 1}) == TIMED_OUT
        assert server.connections == 1


async def test_a_reply_that_takes_longer_than_the_idle_time_is_the_answer(autojump_clock: MockClock) -> None:
    """A server with a short timeout may have handled the request, and sent no answer."""

    async def slowly(stream: Any, packet: bytes) -> None:
        await trio.sleep(0.5)
        await time_out(stream, packet)

    async with scripted(IdleServer(slowly)) as server, server.client() as client:
        await idle(client, 0.4)
        assert await client.request({"a": 1}) == TIMED_OUT
        assert server.connections == 1


async def test_err_timed_out_behind_a_reply_repeats_nothing(autojump_clock: MockClock) -> None:
    """The request was handled; the server has timed out while it waited for the next one."""

    async def answer_and_time_out(stream: Any, packet: bytes) -> None:
        await stream.send_all(packet)
        await time_out(stream, packet)

    behave = IdleServer(answer_and_time_out)
    async with scripted(behave) as server, server.client() as client:
        await idle(client)
        assert await client.request({"a": 1}) == {"a": 1}
        await trio.sleep(1)
        assert await client.request({"a": 2}) == {"a": 2}
        assert server.connections == 2
    assert behave.received.count({"a": 1}) == behave.received.count({"a": 2}) == 1


async def test_a_request_behind_one_that_was_answered_is_not_sent_again(autojump_clock: MockClock) -> None:
    """Its handler may have sent no answer."""

    async def answer_and_time_out(stream: Any, packet: bytes) -> None:
        await trio.sleep(1)  # until the second request is there
        await stream.send_all(packet)
        await time_out(stream, packet)

    async with scripted(IdleServer(answer_and_time_out)) as server, server.client() as client:
        await idle(client)
        assert await all_outcomes(client, [{"a": 1}, {"a": 2}]) == [{"a": 1}, TIMED_OUT]
        assert server.connections == 1


@pytest.mark.parametrize("behind", [json_packet(b=1), b"\x00"], ids=["a packet", "a part of one"])
async def test_err_timed_out_that_more_bytes_follow_is_the_answer(autojump_clock: MockClock, behind: bytes) -> None:
    async def answer(stream: Any, packet: bytes) -> None:
        await stream.send_all(json_packet(**TIMED_OUT) + behind)
        await stream.aclose()

    async with scripted(IdleServer(answer)) as server, server.client() as client:
        await idle(client)
        began = trio.current_time()
        assert await client.request({"a": 1}) == TIMED_OUT
        assert trio.current_time() == began
        assert server.connections == 1


@pytest.mark.parametrize("fields", [{"detail": "x"}, {"status": "late"}, {"error": "ERR_UNAVAILABLE"}], ids=str)
async def test_another_failure_is_the_answer_at_once(autojump_clock: MockClock, fields: dict[str, str]) -> None:
    reply = {**TIMED_OUT, **fields}

    async def answer(stream: Any, packet: bytes) -> None:
        await stream.send_all(json_packet(**reply))
        await stream.aclose()

    async with scripted(IdleServer(answer)) as server, server.client() as client:
        await idle(client)
        began = trio.current_time()
        assert await client.request({"a": 1}) == reply
        assert trio.current_time() == began
        assert server.connections == 1


async def test_the_end_of_the_connection_may_come_a_little_later(autojump_clock: MockClock) -> None:
    async def time_out_in_two_steps(stream: Any, packet: bytes) -> None:
        await refuse(stream, packet)
        await trio.sleep(END_WITHIN / 2)
        await stream.aclose()

    async with scripted(IdleServer(time_out_in_two_steps)) as server, server.client() as client:
        await idle(client)
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.connections == 2


async def test_requests_behind_an_answer_of_err_timed_out_get_their_own_replies(autojump_clock: MockClock) -> None:
    async with scripted(IdleServer(refuse)) as server, server.client() as client:
        await idle(client)
        requests = [{"a": number} for number in range(3)]
        assert await all_outcomes(client, requests) == [TIMED_OUT, {"a": 1}, {"a": 2}]
        assert server.connections == 1


async def test_a_request_that_is_made_while_the_reply_is_held_back_is_not_lost(autojump_clock: MockClock) -> None:
    async def time_out_in_two_steps(stream: Any, packet: bytes) -> None:
        await refuse(stream, packet)
        await trio.sleep(END_WITHIN / 2)
        await stream.aclose()

    behave = IdleServer(time_out_in_two_steps)
    outcomes: dict[int, Any] = {}
    async with scripted(behave) as server, server.client() as client:

        async def ask(number: int, delay: float) -> None:
            await trio.sleep(delay)
            outcomes[number] = await outcome(client, {"a": number})

        await idle(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1, 0)
            nursery.start_soon(ask, 2, END_WITHIN / 4)
        assert outcomes == {1: {"a": 1}, 2: {"a": 2}}
        assert server.connections == 2


async def test_a_reset_ends_the_connection_as_well(autojump_clock: MockClock) -> None:
    """A server that closes a socket with an unread request resets the connection."""
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        reading = packets(stream)
        await stream.send_all(await anext(reading))
        if connections == 1:
            await stream.receive_some(1)
            await stream.send_all(json_packet(**TIMED_OUT))
        else:
            await echo(stream, connections)
        await stream.aclose()

    async with trio.open_nursery() as nursery:

        async def open_stream() -> trio.abc.Stream:
            nonlocal connections
            connections += 1
            ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
            nursery.start_soon(serve, theirs)
            return ours

        async with AsyncClient("nowhere", 1, tls=False, open_stream=open_stream) as client:
            await idle(client)
            assert await client.request({"a": 1}) == {"a": 1}
    assert connections == 2


# Time limits, cancellation and the end of the client


async def test_no_new_connection_within_the_timeout_of_the_request_is_an_error_that_says_so(
    autojump_clock: MockClock,
) -> None:
    async with scripted(IdleServer(time_out)) as server:

        async def open_once() -> trio.abc.Stream:
            if server.connections:
                raise ConnectionRefusedError("nobody there")
            return await server.open_stream()

        async with AsyncClient("nowhere", 1, tls=False, open_stream=open_once) as client:
            await idle(client)
            began = trio.current_time()
            with pytest.raises(NotConnected, match=r"not sent again within 7 s: cannot connect.*nobody there"):
                await client.request({"a": 1}, timeout=7)
            assert trio.current_time() - began == pytest.approx(7)
            assert client.pending == 0


async def test_a_request_that_is_sent_again_has_the_rest_of_its_time(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            if b"then" in packet:
                await stream.send_all(packet)
            elif number == 1:
                await trio.sleep(1)
                await time_out(stream, packet)
                return

    async with scripted(behave) as server, server.client() as client:
        await idle(client)
        began = trio.current_time()
        assert await outcome(client, {"a": 1}, timeout=5) is ReplyTimeout
        assert trio.current_time() - began == pytest.approx(5)
        assert server.connections == 2


async def test_the_timeout_of_the_request_ends_the_wait_for_the_end_of_the_connection(
    autojump_clock: MockClock,
) -> None:
    async with scripted(IdleServer(refuse)) as server, server.client() as client:
        await idle(client)
        began = trio.current_time()
        assert await outcome(client, {"a": 1}, timeout=END_WITHIN / 2) == TIMED_OUT
        assert trio.current_time() - began == pytest.approx(END_WITHIN / 2)
        assert await client.request({"a": 2}) == {"a": 2}
        assert server.connections == 1


@pytest.mark.parametrize("answer", [refuse, time_out])
async def test_a_cancelled_request_is_not_sent_again(autojump_clock: MockClock, answer: Answer) -> None:
    async def in_two_steps(stream: Any, packet: bytes) -> None:
        await refuse(stream, packet)
        await trio.sleep(END_WITHIN / 2)
        if answer is time_out:
            await stream.aclose()

    behave = IdleServer(in_two_steps)
    async with scripted(behave) as server, server.client() as client:
        await idle(client)
        with trio.move_on_after(END_WITHIN / 4):
            await client.request({"a": 1})
        assert client.pending == 0
        assert await client.request({"a": 2}) == {"a": 2}
        assert server.connections == 2
    assert behave.received.count({"a": 1}) == 1


@pytest.mark.parametrize("answer", [refuse, time_out])
async def test_a_cancelled_request_behind_it_is_not_sent_again_and_the_connection_is_given_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    async def in_two_steps(stream: Any, packet: bytes) -> None:
        await refuse(stream, packet)
        await trio.sleep(END_WITHIN / 2)
        if answer is time_out:
            await stream.aclose()

    behave = IdleServer(in_two_steps)
    outcomes: list[Any] = []
    async with scripted(behave) as server, server.client() as client:
        await idle(client)

        async def ask() -> None:
            outcomes.append(await outcome(client, {"a": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            with trio.move_on_after(END_WITHIN / 4):
                await client.request({"a": 2})
        assert outcomes == [TIMED_OUT if answer is refuse else {"a": 1}]
        assert await client.request({"a": 3}) == {"a": 3}
        assert server.connections == 2
    assert behave.received.count({"a": 2}) <= 1
    assert not caplog.records


async def test_a_connection_that_was_given_up_is_closed_when_the_reply_that_is_held_back_is_delivered(
    autojump_clock: MockClock,
) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            if number == 1 and b"then" not in packet:
                await refuse(stream, packet)
                await trio.sleep_forever()
            await stream.send_all(packet)

    outcomes: list[Any] = []
    async with scripted(behave) as server, server.client() as client:
        await idle(client)

        async def ask() -> None:
            outcomes.append(await outcome(client, {"a": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert await outcome(client, {"a": 2}, timeout=END_WITHIN / 2) is ReplyTimeout
            began = trio.current_time()
            assert await client.request({"a": 3}) == {"a": 3}
            assert trio.current_time() - began == pytest.approx(END_WITHIN / 2)
    assert outcomes == [TIMED_OUT]


async def test_the_end_of_the_client_delivers_a_reply_that_is_held_back(autojump_clock: MockClock) -> None:
    outcomes: list[Any] = []
    async with scripted(IdleServer(refuse)) as server, trio.open_nursery() as nursery, server.client() as client:

        async def ask() -> None:
            outcomes.append(await outcome(client, {"a": 1}))

        await idle(client)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
    assert outcomes == [TIMED_OUT]


class Recording(trio.abc.Stream):
    """A stream that records the data that it is given to send, and ``b""`` for the end of the received data."""

    def __init__(self, stream: trio.abc.Stream, record: list[bytes]) -> None:
        self._stream = stream
        self._record = record

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._record.append(bytes(data))
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self._stream.receive_some(max_bytes)
        if not received:
            self._record.append(b"")
        return received

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_request_that_is_made_in_the_moment_in_which_the_connection_ends_is_in_doubt_only_if_it_was_sent_before(
    autojump_clock: MockClock,
) -> None:
    """trio chooses by chance whether the sender or the reader of the client runs first."""

    async def behave(stream: Any, number: int) -> None:
        await stream.send_all(await anext(packets(stream)))
        await trio.sleep(60)
        await stream.aclose()

    record: list[bytes] = []
    async with scripted(behave) as server:

        async def open_stream() -> trio.abc.Stream:
            return Recording(await server.open_stream(), record)

        async with AsyncClient("nowhere", 1, tls=False, open_stream=open_stream) as client:
            for number in range(100):
                if await outcome(client, {"number": number}) is ServerDisconnected:
                    assert record[-1] == b""
                    assert json.loads(record[-2][6:]) == {"number": number}
                    assert await client.request({"number": -1}) == {"number": -1}
                await trio.sleep(60)


# Pushed packets


async def pushed_once(client: AsyncClient) -> None:
    assert await client.request({"a": 1}) == {"a": 1}
    await trio.sleep(2)
    assert await client.request({"a": 2}) == {"a": 2}


def pushing(*packets_behind: dict[str, Any]) -> Callable[[Any, int], Awaitable[None]]:
    """Return a server that sends these packets a second after each reply."""

    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            await stream.send_all(packet)
            await trio.sleep(1)
            for fields in packets_behind:
                await stream.send_all(json_packet(**fields))

    return behave


@pytest.mark.parametrize(
    "fields",
    [{"key": "sesame"}, {**TIMED_OUT, "detail": "sesame"}, failure("ERR_NO_HANDLER"), failure("ERR_OF_MINE")],
    ids=str,
)
async def test_a_pushed_packet_is_named_in_the_log_without_its_fields(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, fields: dict[str, str]
) -> None:
    async with scripted(pushing(fields)) as server, server.client() as client:
        await pushed_once(client)
        assert server.connections == 2, "the connection was given up"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncapy.client", logging.WARNING)
    line = record.getMessage()
    assert line.startswith("The connection to nowhere:1 was given up: the server sent a packet that answers no request")
    assert line.endswith("the synchronous Client receives pushed packets")
    assert not [value for value in fields.values() if value in line]


async def test_pushed_packets_are_named_once_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted(pushing({"b": 1}, {"b": 2})) as server, server.client() as client:
        for _ in range(10):
            await pushed_once(client)
            await trio.sleep(2)
        assert server.connections == 20
    assert len(caplog.records) == 1


CODES = ["ERR_TIMED_OUT", "ERR_SESSION_LIMIT_REACHED", "ERR_SERVER_BUSY", "ERR_REQUEST_MALFORMED"]
CODES += ["ERR_HEADER_INVALID", "ERR_PACKET_TOO_LARGE"]


@pytest.mark.parametrize("code", CODES)
async def test_a_failure_with_which_a_server_closes_an_idle_connection_is_no_pushed_packet(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    async with scripted(pushing(failure(code))) as server, server.client() as client:
        await pushed_once(client)
        assert server.connections == 2
    assert not caplog.records


async def test_the_second_answer_of_a_handler_is_named_as_well(
    asyncapy_server: Start, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        await client.send(packet)
        await trio.sleep(1)
        await client.send(packet)

    running = await asyncapy_server(server)
    async with running.client() as client:
        await pushed_once(client)
    named = [record.name for record in caplog.records if record.levelno >= logging.WARNING]
    assert named == ["asyncapy.server", "asyncapy.client"], "the server names the handler"


async def test_a_late_reply_is_no_pushed_packet(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            await trio.sleep(5 if b"slow" in packet else 0)
            await stream.send_all(packet)

    async with scripted(behave) as server, server.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(outcome, client, {"slow": 1}))
        await wait_all_tasks_blocked()
        assert await outcome(client, {"a": 1}, timeout=1) is ReplyTimeout
        await trio.sleep(10)
        assert await client.request({"a": 2}) == {"a": 2}
    assert not caplog.records


async def test_a_late_reply_behind_err_timed_out_is_no_pushed_packet(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse_late(stream: Any, packet: bytes) -> None:
        await trio.sleep(1)
        await stream.send_all(json_packet(**TIMED_OUT) + json_packet(late=1))

    outcomes: list[Any] = []
    async with scripted(IdleServer(refuse_late)) as server, server.client() as client:
        await idle(client)

        async def ask() -> None:
            outcomes.append(await outcome(client, {"a": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert await outcome(client, {"a": 2}, timeout=0.5) is ReplyTimeout
    assert outcomes == [TIMED_OUT]
    assert not caplog.records
