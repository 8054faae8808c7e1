"""The trio client with slow, silent and broken servers: no reply is lost or goes to the wrong request."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import pytest
import trio
from conftest import Certificates, Start
from peer import json_packet
from scripted import all_outcomes, echo, outcome, packets, scripted
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Server
from asyncapy.client import AsyncClient, Client
from asyncapy.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected
from asyncapy_codecs import JsonCodec


async def test_a_handler_that_never_answers_shifts_no_replies(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = Server()

    @server.add_handler()
    async def handler(client: Any, packet: Any) -> None:
        if "log" not in packet:
            await client.send(packet)

    running = await asyncapy_server(server)
    async with running.client(timeout=5) as client:
        assert await outcome(client, {"log": "x"}) is ReplyTimeout
        for number in range(3):
            assert await client.request({"echo": number}) == {"echo": number}
        assert client.pending == 0


async def test_what_was_sent_behind_a_request_without_reply_fails_and_what_was_sent_before_it_is_answered(
    autojump_clock: MockClock,
) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            if b"mute" not in packet:
                if b"slow" in packet:
                    await trio.sleep(3)
                await stream.send_all(packet)

    async with scripted(behave) as server, server.client() as client:
        results: dict[str, Any] = {}

        async def ask(name: str, seconds: float) -> None:
            results[name] = await outcome(client, {name: 1}, timeout=seconds)

        async with trio.open_nursery() as nursery:
            for name, seconds in (("slow", 10), ("mute", 2), ("behind", 10)):
                nursery.start_soon(ask, name, seconds)
                await wait_all_tasks_blocked()
        assert results == {"slow": {"slow": 1}, "mute": ReplyTimeout, "behind": ServerDisconnected}
        assert await client.request({"next": 1}) == {"next": 1}
        assert server.connections == 2


async def test_a_request_that_is_cancelled_takes_its_connection_with_it(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            await trio.sleep(5)
            await stream.send_all(packet)

    async with scripted(behave) as server, server.client() as client:
        with trio.move_on_after(1):
            await client.request({"cancelled": 1})
        assert client.pending == 0
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.connections == 2


async def test_a_packet_that_nobody_asked_for_ends_the_connection(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        async for packet in packets(stream):
            await stream.send_all(packet)
            await trio.sleep(1)
            await stream.send_all(json_packet(and_another=1))

    async with scripted(behave) as server, server.client() as client:
        assert await client.request({"a": 1}) == {"a": 1}
        await trio.sleep(2)
        assert await client.request({"a": 2}) == {"a": 2}
        assert server.connections == 2


async def test_a_connection_that_has_died_is_replaced(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        if number == 1:
            await trio.sleep_forever()
        await echo(stream, number)

    async with scripted(behave) as server, server.client(timeout=10) as client:
        assert await outcome(client, {"a": 1}) is ReplyTimeout
        assert await outcome(client, {"a": 2}) == {"a": 2}


async def test_a_client_that_is_being_cancelled_takes_no_more_requests(autojump_clock: MockClock) -> None:
    farewell: list[Any] = []

    async with scripted(echo) as server:
        with trio.CancelScope() as scope:
            async with server.client(timeout=None) as client:
                await client.request({"a": 1})
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await wait_all_tasks_blocked()
                        farewell.append(await outcome(client, {"bye": 1}))
    assert farewell == [NotConnected]


async def test_nothing_is_kept_of_requests_that_were_given_up_while_the_server_was_away(
    autojump_clock: MockClock,
) -> None:
    async def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError("nobody there")

    async with AsyncClient("nowhere", 1, tls=False, open_stream=refuse) as client, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(outcome, client, {"long": 1}, timeout=100))
        for _ in range(50):
            assert await outcome(client, {"short": 1}, timeout=0.5) is NotConnected
            assert client.pending == 1


async def test_only_what_had_begun_to_be_sent_is_in_doubt(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        if number == 1:
            await stream.receive_some(1000)
            await stream.aclose()
        else:
            await echo(stream, number)

    requests = [{"number": number, "much": "x" * 40_000} for number in range(10)]
    async with scripted(behave) as server, server.client() as client:
        outcomes = await all_outcomes(client, requests)
    lost = outcomes.count(ServerDisconnected)
    assert 1 <= lost <= 2
    assert outcomes == [ServerDisconnected] * lost + requests[lost:]


async def test_what_was_never_sent_is_told_from_what_has_no_reply(
    autojump_clock: MockClock,
) -> None:
    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()

    async with AsyncClient("nowhere", 1, tls=False, open_stream=never) as client:
        with pytest.raises(NotConnected, match=r"never sent within 5 s: there was no connection in time"):
            await client.request({"a": 1}, timeout=5)


async def test_each_task_gets_an_exception_of_its_own(autojump_clock: MockClock) -> None:
    async def behave(stream: Any, number: int) -> None:
        await stream.receive_some(1)
        await trio.sleep(1)
        await stream.aclose()

    caught: list[BaseException] = []

    async def ask(client: AsyncClient) -> None:
        try:
            await client.request({"a": 1})
        except ServerDisconnected as error:
            caught.append(error)

    async with scripted(behave) as server, server.client() as client, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, client)
    assert len({id(error) for error in caught}) == 5


async def test_a_handshake_that_breaks_is_tried_again(autojump_clock: MockClock, certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    async def behave(stream: Any, number: int) -> None:
        if number <= 3:
            await stream.receive_some(1)
            await stream.aclose()
        else:
            await echo(trio.SSLStream(stream, context, server_side=True, https_compatible=True), number)

    async with (
        scripted(behave) as server,
        AsyncClient("localhost", 1, ca_file=certificates.ca_file, open_stream=server.open_stream) as client,
    ):
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.connections == 4


async def test_a_client_without_the_certificate_that_is_wanted_is_told_so(
    asyncapy_server: Start, certificates: Certificates
) -> None:
    server = Server(tls_cert=certificates.server, tls_client_ca=certificates.ca_file)
    running = await asyncapy_server(server)
    async with running.client(tls=True, ca_file=certificates.ca_file) as client:
        with pytest.raises(RemoteError, match=r"(?i)certificate.required|reset|broken pipe|closed"):
            await client.request({"a": 1})


@pytest.mark.parametrize("port", ["8081", None, True, 0, 65536, -1])
def test_a_port_that_is_none_is_told_at_once(port: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="port is"):
        AsyncClient("localhost", port)
    with pytest.raises((TypeError, ValueError), match="port is"), Client() as client:
        client.connect("localhost", port)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), 1e12])
def test_a_time_that_is_none_is_told_at_once(timeout: float) -> None:
    for make in (Client, functools.partial(AsyncClient, "localhost", 1)):
        with pytest.raises(ValueError, match="or None to wait for ever"):
            make(timeout=timeout)


@pytest.mark.parametrize("version", [22, 23, None])
async def test_a_time_that_is_none_is_refused_when_it_is_set(version: Any) -> None:
    async with scripted(echo) as server, server.client(version=version) as client:
        for timeout in (0, -1, float("nan")):
            with pytest.raises(ValueError, match=f"timeout is {timeout}"):
                client.timeout = timeout
        assert client.timeout == 60
    plain = Client()
    with pytest.raises(ValueError, match="timeout is -1"):
        plain.timeout = -1
    assert plain.timeout == 60


@pytest.mark.parametrize("version", [22, 23, None])
async def test_the_timeout_may_be_removed_while_a_client_connects(autojump_clock: MockClock, version: Any) -> None:
    async with trio.open_nursery() as nursery:
        client = AsyncClient("nowhere", 1, tls=False, timeout=5, version=version, open_stream=trio.sleep_forever)
        async with client:

            async def ask() -> None:
                with pytest.raises(NotConnected, match=r"nowhere:1: no answer within 5 s"):
                    await client.request({"a": 1}, timeout=9)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            client.timeout = None
            await trio.sleep(20)


async def test_what_was_sent_before_the_client_was_closed_is_told_from_what_was_not(autojump_clock: MockClock) -> None:
    outcomes: list[Any] = []

    async def ask(client: AsyncClient) -> None:
        outcomes.append(await outcome(client, {"a": 1}))

    async def mute(stream: Any, number: int) -> None:
        await trio.sleep_forever()

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()

    async with scripted(mute) as server:
        for open_stream in (server.open_stream, never):
            client = AsyncClient("nowhere", 1, tls=False, open_stream=open_stream)
            async with trio.open_nursery() as nursery, client:
                nursery.start_soon(ask, client)
                await wait_all_tasks_blocked()
    assert outcomes == [ServerDisconnected, NotConnected]


async def test_a_codec_that_fails_on_a_reply_fails_that_connection_and_not_the_client(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, failures = JsonCodec.decode, [KeyError("a slip")]

    def fails_once(self: JsonCodec, payload: bytes) -> dict[str, Any]:
        if failures:
            raise failures.pop()
        return decode(self, payload)

    monkeypatch.setattr(JsonCodec, "decode", fails_once)
    async with scripted(echo) as server, server.client() as client:
        with pytest.raises(RemoteError, match=r"^the codec 'json' is broken: it raised KeyError"):
            await client.request({"a": 1})
        assert await client.request({"a": 1}) == {"a": 1}


async def test_a_stream_that_breaks_as_it_is_opened_is_tried_again(autojump_clock: MockClock) -> None:
    async with scripted(echo) as server:

        async def flaky() -> trio.abc.Stream:
            if server.connections < 3:
                server.connections += 1
                raise trio.BrokenResourceError("the proxy said no")
            return await server.open_stream()

        async with AsyncClient("nowhere", 1, tls=False, open_stream=flaky) as client:
            assert await client.request({"a": 1}) == {"a": 1}
