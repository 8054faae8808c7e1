"""Handlers, seen from the peer's side of a real socket."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve, Start
from peer import JSON, Peer, json_packet, packet
from trio.testing import MockClock

from asyncapy import Server
from asyncapy.core import Client, Packet, Session
from asyncapy.errors import ClientDisconnected, EncodeError, StopPropagation
from asyncapy.filters import Filter, Filters
from asyncapy_codecs import JsonCodec

UUID = re.compile(r"\(([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})\)")


def lines_of(running: Running, session: object) -> list[str]:
    """Return the log lines of a session, without the first."""
    return [line for line in running.logged(str(session)) if "New session started" not in line]


# Groups


async def test_lower_groups_come_first_whatever_order_they_were_registered_in(serve: Serve) -> None:
    server = Server(port=0)

    def add(group: int) -> None:
        @server.add_handler(group=group)
        async def tell(client: Any, packet: Any) -> None:
            await client.send({"group": group})

    for group in (3, -1, 0, -7, 10):
        add(group)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        for group in (-7, -1, 0, 3, 10):
            assert await peer.json() == {"group": group}
        await peer.half_close()
        assert await peer.closed()


async def test_of_each_group_the_first_handler_that_matches_gets_the_packet(serve: Serve) -> None:
    server = Server(port=0)

    def add(name: str, *filters: Filter, group: int = 0) -> None:
        async def tell(client: Any, packet: Any) -> None:
            await client.send({"handler": name})

        server.register_handler(tell, *filters, group=group)

    add("a", Filters.Fields(a=None))
    add("a again", Filters.Fields(a=None))
    add("any")
    add("never")
    add("second a", Filters.Fields(a=None), group=1)
    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) + json_packet(b=1))
        for handler in ("a", "second a", "any"):
            assert await peer.json() == {"handler": handler}
        await peer.half_close()
        assert await peer.closed()


async def test_all_filters_of_a_handler_have_to_pass(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler(Filters.HasFields(a=r"\d+"), Filters.Ip("127.0.0.1"), ~Filters.HasFields(b=None))
    async def picky(client: Any, packet: Any) -> None:
        await client.send({"picky": True})

    running = await serve(server)
    async with await running.connect() as peer, await Peer.connect_from("127.0.0.2", running.port) as stranger:
        assert await peer.ask(a=1) == {"picky": True}
        await peer.send(json_packet(a="x") + json_packet(a=1, b=1))
        assert await peer.failure() == "ERR_NO_HANDLER"
        assert await peer.failure() == "ERR_NO_HANDLER"
        await stranger.send(json_packet(a=1))
        assert await stranger.failure() == "ERR_NO_HANDLER"


async def test_the_groups_example_of_the_documentation_answers_twice_and_closes(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def echo_server(client: Any, packet: Any) -> None:
        await client.send(packet)
        await client.close()

    @server.add_handler(group=-1)
    async def echo_server_2(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(test=1) == {"test": 1}
        assert await peer.json() == {"test": 1}
        assert await peer.closed()
    assert not running.logged("ERROR")


# Propagation


def stopping(how: str) -> Any:
    async def plain(client: Any, packet: Any) -> None:
        await client.send({"group": -1})
        packet.stop_propagation()

    async def awaited(client: Any, packet: Any) -> None:
        await client.send({"group": -1})
        await packet.stop_propagation()

    async def raised(client: Any, packet: Any) -> None:
        await client.send({"group": -1})
        raise StopPropagation

    async def in_a_nursery(client: Any, packet: Any) -> None:
        async def stop() -> None:
            packet.stop_propagation()

        await client.send({"group": -1})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(stop)

    async def in_two_nurseries(client: Any, packet: Any) -> None:
        async with trio.open_nursery():
            await in_a_nursery(client, packet)

    async def twice_in_a_nursery(client: Any, packet: Any) -> None:
        await client.send({"group": -1})
        raise ExceptionGroup("both", [StopPropagation(), StopPropagation()])

    return locals()[how]


@pytest.mark.parametrize(
    "how", ["plain", "awaited", "raised", "in_a_nursery", "in_two_nurseries", "twice_in_a_nursery"]
)
async def test_a_packet_that_was_stopped_reaches_no_later_group(serve: Serve, how: str) -> None:
    server = Server(port=0)
    server.register_handler(stopping(how), ~Filters.HasFields(bystander=None), group=-1)

    @server.add_handler()
    async def later(client: Any, packet: Any) -> None:
        await client.send({"group": 0})

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        for _ in range(3):
            assert await peer.ask(a=1) == {"group": -1}
        await peer.half_close()
        assert await peer.closed()
    assert not running.logged("ERROR")


async def test_what_is_raised_beside_stop_propagation_is_a_failure(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def both(client: Any, packet: Any) -> None:
        raise ExceptionGroup("both", [StopPropagation(), ExceptionGroup("inner", [ValueError("beside it")])])

    @server.add_handler(group=1)
    async def later(client: Any, packet: Any) -> None:
        await client.send({"later": True})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) * 2)
        assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert await peer.failure() == "ERR_HANDLER_FAILED"
    assert len(running.logged("(beside it)")) == 1, "at most one line per second for each place"


# Failures


async def test_a_handler_that_failed_is_called_again_for_the_next_packet(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def divide(client: Any, packet: Any) -> None:
        await client.send({"result": 12 / packet["by"]})

    running = await serve(server)
    async with await running.connect() as peer:
        for _ in range(3):
            await peer.send(json_packet(by=0) + json_packet(by=4))
            assert await peer.failure() == "ERR_HANDLER_FAILED"
            assert await peer.json() == {"result": 3.0}
    assert len(running.logged("ZeroDivisionError")) == 1, "at most one line per second for each place"


async def test_a_packet_that_cannot_be_sent_is_an_error_in_the_handler_and_nothing_is_sent(serve: Serve) -> None:
    server = Server(port=0)
    raised: list[Exception] = []

    @server.add_handler()
    async def impossible(client: Any, packet: Any) -> None:
        for fields in ({"object": object()}, {"nan": float("nan")}, {}):
            with pytest.raises(EncodeError) as caught:
                await client.send(fields)
            raised.append(caught.value)
        await client.send({"possible": True})

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"possible": True}
    assert len(raised) == 3


async def test_a_packet_in_an_encoding_that_nobody_brings_is_an_error_in_the_handler(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def impossible(client: Any, packet: Any) -> None:
        await client.send(Packet({"a": 1}, "morse"))

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_HANDLER_FAILED"
    assert len(running.logged("failed for 127.0.0.1: UnknownCodec")) == 1


# Sending and closing


async def test_send_takes_a_packet_a_mapping_text_or_bytes(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def four(client: Any, packet: Any) -> None:
        await client.send(Packet({"a": 1}, "json"))
        await client.send({"a": 2})
        await client.send('{"a": 3}')
        await client.send(b'{"a": 4}')

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        for number in (1, 2, 3, 4):
            assert await peer.json() == {"a": number}


async def test_send_with_close_closes_behind_the_packet_and_drops_what_was_not_handled(serve: Serve) -> None:
    server = Server(port=0)
    handled: list[int] = []

    @server.add_handler()
    async def last(client: Any, packet: Any) -> None:
        handled.append(packet["number"])
        await client.send(packet, close=True)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(10)))
        assert await peer.json() == {"number": 0}
        assert await peer.closed()
    await running.settle()
    assert handled == [0]
    assert not running.logged("ERROR")


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_close_closes_behind_all_that_was_sent(serve: Serve, size: int) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def several(client: Any, packet: Any) -> None:
        for number in range(3):
            await client.send({"number": number, "text": "x" * size})
        await client.close()
        await client.close()

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        for number in range(3):
            assert await peer.json() == {"number": number, "text": "x" * size}
        assert await peer.closed()


@pytest.mark.parametrize("waits", [False, True])
async def test_sending_after_close_raises_and_lets_the_session_end_quietly(serve: Serve, waits: bool) -> None:
    server = Server(port=0)
    raised: list[ClientDisconnected] = []
    sessions: list[Session] = []

    @server.add_handler(Filters.Fields(a=None))
    async def too_late(client: Any, packet: Any) -> None:
        sessions.append(client.session)
        await client.send({"in": "time"})
        await client.close()
        if waits:
            await trio.sleep(0.02)
        try:
            await client.send({"too": "late"})
        except ClientDisconnected as error:
            raised.append(error)
            raise

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with running.undisturbed(), await running.connect() as peer:
        assert await peer.ask(a=1) == {"in": "time"}
        assert await peer.closed()
    assert len(raised) == 1
    assert raised[0].client is sessions[0].get_client()
    (line,) = lines_of(running, sessions[0])
    assert line.startswith("[INFO] ")


async def test_sending_to_a_peer_that_has_left_raises_and_lets_the_session_end_quietly(serve: Serve) -> None:
    server = Server(port=0)
    gone = trio.Event()
    raised: list[ClientDisconnected] = []
    sessions: list[Session] = []

    @server.add_handler(Filters.Fields(a=None))
    async def too_late(client: Any, packet: Any) -> None:
        sessions.append(client.session)
        await client.send({"in": "time"})
        await gone.wait()
        try:
            await client.send({"too": "late"})
        except ClientDisconnected as error:
            raised.append(error)
            raise

    @server.add_handler(group=1)
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with running.undisturbed():
        peer = await running.connect()
        assert await peer.ask(a=1) == {"in": "time"}
        await peer.reset()
        gone.set()
        await running.settle(1)
    assert len(raised) == 1
    (line,) = lines_of(running, sessions[0])
    assert line.startswith("[INFO] ")


async def test_the_end_of_its_own_client_in_a_nursery_is_quiet_too(serve: Serve) -> None:
    server = Server(port=0)
    sessions: list[Session] = []

    @server.add_handler()
    async def too_late(client: Any, packet: Any) -> None:
        sessions.append(client.session)
        await client.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, {"a": 1})
            nursery.start_soon(client.send, {"a": 2})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.closed()
    await running.settle()
    (line,) = lines_of(running, sessions[0])
    assert line.startswith("[INFO] ")


async def test_the_end_of_another_client_is_a_failure_of_this_handler(serve: Serve) -> None:
    server = Server(port=0)
    known: list[Client] = []

    @server.add_handler(Filters.Fields(join=None))
    async def join(client: Any, packet: Any) -> None:
        known.append(client)
        await client.send({"joined": True}, close=packet["join"] == "and leave")

    @server.add_handler(Filters.Fields(say=None))
    async def say(client: Any, packet: Any) -> None:
        for other in known:
            await other.send(packet)

    running = await serve(server)
    async with await running.connect() as other:
        assert await other.ask(join="and leave") == {"joined": True}
        assert await other.closed()
    await running.settle()
    async with await running.connect() as peer:
        await peer.send(json_packet(say="hello"))
        assert await peer.failure() == "ERR_HANDLER_FAILED"
        assert await peer.ask(join="and stay") == {"joined": True}
    assert len(running.logged("failed for 127.0.0.1: ClientDisconnected")) == 1


async def test_the_end_of_the_own_client_beside_a_mistake_is_logged_as_a_failure(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def both(client: Any, packet: Any) -> None:
        await client.close()
        try:
            await client.send({"a": 1})
        except ClientDisconnected as error:
            raise ExceptionGroup("both", [error, KeyError("a mistake")]) from None

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        assert await peer.closed()
    await running.settle()
    assert len(running.logged("a mistake")) == 1


async def test_the_first_packet_of_a_stream_arrives_before_the_handler_ends(serve: Serve) -> None:
    server = Server(port=0)
    go_on = trio.Event()

    @server.add_handler()
    async def stream(client: Any, packet: Any) -> None:
        await client.send({"part": "first"})
        await go_on.wait()
        for number in range(100):
            await client.send({"part": number})
            await trio.lowlevel.checkpoint()

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"part": "first"}
        assert not go_on.is_set()
        go_on.set()
        for number in range(100):
            assert await peer.json() == {"part": number}


async def test_each_packet_of_a_stream_arrives_while_the_handler_waits_for_the_next(serve: Serve) -> None:
    server = Server(port=0)
    steps = [trio.Event() for _ in range(5)]

    @server.add_handler()
    async def stream(client: Any, packet: Any) -> None:
        for number, step in enumerate(steps):
            await client.send({"part": number})
            await step.wait()

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1))
        for number, step in enumerate(steps):
            assert await peer.json() == {"part": number}
            step.set()


async def test_replies_to_packets_before_a_slow_one_do_not_wait_for_it(serve: Serve) -> None:
    server = Server(port=0)
    go_on = trio.Event()

    @server.add_handler()
    async def slow_last(client: Any, packet: Any) -> None:
        if packet["number"] == 2:
            await go_on.wait()
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(b"".join(json_packet(number=number) for number in range(3)))
        for number in range(2):
            assert await peer.json() == {"number": number}
        go_on.set()
        assert await peer.json() == {"number": 2}


# Other clients


async def serve_chat(serve: Serve, **settings: Any) -> Running:
    server = Server(port=0, **settings)
    members: list[Client] = []

    @server.add_handler(Filters.Fields(join=None))
    async def join(client: Any, packet: Any) -> None:
        members.append(client)
        await client.send({"joined": packet["join"]})

    @server.add_handler(Filters.Fields(say=None))
    async def say(client: Any, packet: Any) -> None:
        for member in members:
            await member.send({"heard": packet["say"]})

    return await serve(server)


async def test_a_handler_sends_to_other_clients_at_once(serve: Serve) -> None:
    running = await serve_chat(serve)
    async with await running.connect() as one, await running.connect() as other:
        for peer in (one, other):
            assert await peer.ask(join="me") == {"joined": "me"}
        for number in range(5):
            with trio.fail_after(10):
                assert await one.ask(say=number) == {"heard": number}
                assert await other.json() == {"heard": number}
        await other.send(json_packet(say="back"))
        with trio.fail_after(10):
            assert await other.json() == {"heard": "back"}
            assert await one.json() == {"heard": "back"}


async def test_a_client_that_only_listens_is_sent_to_while_it_has_half_a_packet_on_its_way(serve: Serve) -> None:
    running = await serve_chat(serve)
    async with await running.connect() as one, await running.connect() as other:
        await other.send(json_packet(join="me") + json_packet(join="again")[:7])
        assert await other.json() == {"joined": "me"}
        await one.send(json_packet(say="hello"))
        with trio.fail_after(10):
            assert await other.json() == {"heard": "hello"}
        await other.send(json_packet(join="again")[7:])
        assert await other.json() == {"joined": "again"}


async def test_a_task_that_outlives_the_handler_goes_on_sending(serve: Serve) -> None:
    server = Server(port=0)
    wake = trio.Event()

    async with trio.open_nursery() as nursery:

        @server.add_handler()
        async def subscribe(client: Any, packet: Any) -> None:
            async def later() -> None:
                await wake.wait()
                await client.send({"event": 1})

            nursery.start_soon(later)
            await client.send({"subscribed": True})

        running = await serve(server)
        async with await running.connect() as peer:
            assert await peer.ask(a=1) == {"subscribed": True}
            await trio.testing.wait_all_tasks_blocked()
            wake.set()
            with trio.fail_after(10):
                assert await peer.json() == {"event": 1}


async def test_packets_that_many_handlers_send_to_one_client_arrive_whole(serve: Serve) -> None:
    running = await serve_chat(serve)
    async with await running.connect() as listener:
        assert await listener.ask(join="me") == {"joined": "me"}

        async def talk(name: int) -> None:
            async with await running.connect() as talker:
                for number in range(20):
                    await talker.send(json_packet(say=f"{name}.{number}." + "x" * 20_000))
                await talker.half_close()
                assert await talker.closed()

        heard: dict[str, list[str]] = {str(name): [] for name in range(5)}
        async with trio.open_nursery() as nursery:
            for name in range(5):
                nursery.start_soon(talk, name)
            for _ in range(100):
                reply = await listener.json()
                assert reply is not None
                name, number, text = reply["heard"].split(".")
                assert text == "x" * 20_000
                heard[name].append(number)
        assert all(numbers == [str(number) for number in range(20)] for numbers in heard.values())


async def test_get_sessions_lists_the_sessions_of_the_own_address_oldest_first(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def tell(client: Any, packet: Any) -> None:
        sessions = client.get_sessions()
        await client.send({"me": str(client.session.id), "all": [str(session.session_id) for session in sessions]})

    running = await serve(server)
    async with await running.connect() as one, await Peer.connect_from("127.0.0.2", running.port) as stranger:
        first = await one.ask(a=1)
        assert first is not None
        assert first["all"] == [first["me"]]
        elsewhere = await stranger.ask(a=1)
        assert elsewhere is not None
        assert elsewhere["all"] == [elsewhere["me"]]
        async with await running.connect() as two:
            second = await two.ask(a=1)
            assert second is not None
            assert second["all"] == [first["me"], second["me"]]
            assert await one.ask(a=1) == {"me": first["me"], "all": [first["me"], second["me"]]}
        await running.settle(2)
        assert await one.ask(a=1) == first


async def test_a_session_knows_its_client_its_id_and_its_date(serve: Serve) -> None:
    server = Server(port=0)
    seen: list[Any] = []

    @server.add_handler()
    async def note(client: Any, packet: Any) -> None:
        seen.append((client, packet))
        await client.send(packet)

    running = await serve(server)
    before = time.time()
    async with await Peer.connect_from("127.0.0.5", running.port) as peer:
        assert await peer.ask(a=1) == {"a": 1}
    client, received = seen[0]
    assert isinstance(client, Client)
    assert client.address == "127.0.0.5"
    assert client.server is server
    assert client.encoding == "json"
    assert str(client) == "Client (127.0.0.5)"
    assert isinstance(client.session, Session)
    assert client.session.get_client() is client.session.client is client
    assert client.session.id == client.session.session_id
    assert str(client.session) == str(client.session.id)
    assert before - 1 <= client.session.date <= time.time() + 1
    assert isinstance(received, Packet)
    assert received.sender is client
    assert received.encoding == "json"
    assert str(received) == 'Packet({"a": 1})'


async def test_a_handler_closes_the_idle_session_of_another_client(serve: Serve) -> None:
    server = Server(port=0)
    results: list[int] = []

    @server.add_handler()
    async def close_others(client: Any, packet: Any) -> None:
        for session in client.get_sessions():
            if session is not client.session:
                await session.close()
        results.append(len(client.get_sessions()))
        await client.send({"closed": True})

    running = await serve(server)
    async with await running.connect() as idle, await running.connect() as half:
        await half.send(b"\x00\x00")
        await running.settle(2)
        async with await running.connect() as closer:
            assert await closer.ask(a=1) == {"closed": True}
            with trio.fail_after(10):
                assert await idle.closed()
                assert await half.closed()
        assert results == [1], "a closed session is not active"


async def test_a_handler_closes_the_session_of_a_client_whose_handler_is_at_work(serve: Serve) -> None:
    server = Server(port=0)
    begun = trio.Event()
    closed = trio.Event()
    raised: list[Exception] = []

    @server.add_handler(Filters.Fields(work=None))
    async def work(client: Any, packet: Any) -> None:
        begun.set()
        await closed.wait()
        try:
            await client.send({"work": "done"})
        except ClientDisconnected as error:
            raised.append(error)
            raise

    @server.add_handler(Filters.Fields(close=None))
    async def close_others(client: Any, packet: Any) -> None:
        for session in client.get_sessions():
            if session is not client.session:
                await session.close()
        closed.set()
        await client.send({"closed": True})

    running = await serve(server)
    async with await running.connect() as worker, await running.connect() as closer:
        await worker.send(json_packet(work=1) * 2)
        await begun.wait()
        assert await closer.ask(close=1) == {"closed": True}
        with trio.fail_after(10):
            assert await worker.closed()
    assert len(raised) == 1
    assert not running.logged("ERROR")


# Time and blocking work


async def test_run_sync_task_runs_blocking_work_in_a_thread_while_others_are_served(serve: Serve) -> None:
    server = Server(port=0)
    release = threading.Event()
    threads: list[threading.Thread] = []

    def block(factor: int, number: int) -> int:
        threads.append(threading.current_thread())
        assert release.wait(10)
        return factor * number

    @server.add_handler(Filters.Fields(number=None))
    async def work(client: Any, packet: Any) -> None:
        await client.send({"result": await server.run_sync_task(block, 2, packet["number"])})

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer, await running.connect() as other:
        await peer.send(json_packet(number=21))
        assert await other.ask(a=1) == {"a": 1}
        release.set()
        assert await peer.json() == {"result": 42}
    assert threads[0] is not threading.current_thread()


async def test_what_blocking_work_raises_is_raised_in_the_handler(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def work(client: Any, packet: Any) -> None:
        try:
            await server.run_sync_task(int, "x")
        except ValueError:
            await client.send({"caught": True})

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"caught": True}


async def test_a_handler_that_waits_keeps_nobody_else_waiting(serve: Serve) -> None:
    server = Server(port=0)
    go_on = trio.Event()

    @server.add_handler(Filters.Fields(wait=None))
    async def wait(client: Any, packet: Any) -> None:
        await go_on.wait()
        await client.send(packet)

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as slow, await running.connect() as quick:
        await slow.send(json_packet(wait=1))
        for number in range(10):
            assert await quick.ask(number=number) == {"number": number}
        go_on.set()
        assert await slow.json() == {"wait": 1}


async def test_a_handler_that_streams_to_a_quick_reader_keeps_nobody_else_waiting(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler(Filters.Fields(flood=None))
    async def flood(client: Any, packet: Any) -> None:
        for number in range(150_000):
            await client.send({"number": number})
        await client.close()

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    def read_all(port: int) -> int:
        total = 0
        with socket.create_connection(("127.0.0.1", port), 10) as connected:
            connected.sendall(json_packet(flood=1))
            while data := connected.recv(1 << 20):
                total += len(data)
        return total

    running = await serve(server)
    turns = 0
    async with await running.connect() as peer, trio.open_nursery() as nursery:

        async def read() -> None:
            assert await trio.to_thread.run_sync(read_all, running.port) > 2_000_000
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        while True:
            await trio.sleep(0.001)
            assert await peer.ask(a=1) == {"a": 1}
            turns += 1
    assert turns > 5, "a stream of 150,000 packets leaves other clients few turns"


# Slow readers


async def test_a_reader_that_never_reads_is_closed_after_send_timeout(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = Server(send_timeout=4)
    raised: list[ClientDisconnected] = []
    sessions: list[Session] = []
    took: list[float] = []

    @server.add_handler(Filters.Fields(flood=None))
    async def flood(client: Any, packet: Any) -> None:
        sessions.append(client.session)
        try:
            while True:
                began = trio.current_time()
                await client.send({"text": "x" * 500_000})
        except ClientDisconnected as error:
            took.append(trio.current_time() - began)
            raised.append(error)
            raise

    @server.add_handler()
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await asyncapy_server(server)
    async with Peer(await running.connect()) as peer, Peer(await running.connect()) as bystander:
        await peer.send(json_packet(flood=1))
        await trio.sleep(3)
        assert await bystander.ask(a=1) == {"a": 1}
        assert raised == []
        await trio.sleep(2)
        assert await bystander.ask(a=1) == {"a": 1}
        got = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await peer.stream.receive_some():
                got += data
        whole = packet(JSON, b'{"text":"' + b"x" * 500_000 + b'"}')
        assert got == (whole * (len(got) // len(whole) + 1))[: len(got)], "the server sent bytes after the cut"
    assert len(raised) == 1
    assert took == [4]
    (line,) = [line for line in running.log if str(sessions[0].session_id) in line][1:]
    assert line.startswith("[INFO] ")


async def test_a_reader_that_is_slow_but_reads_gets_everything(
    asyncapy_server: Start, autojump_clock: MockClock
) -> None:
    server = Server(send_timeout=5)

    @server.add_handler()
    async def large(client: Any, packet: Any) -> None:
        await client.send({"text": "x" * 3_000_000})

    running = await asyncapy_server(server)
    async with Peer(await running.connect()) as peer:
        await peer.send(json_packet(a=1))
        whole = packet(JSON, b'{"text":"' + b"x" * 3_000_000 + b'"}')
        got = b""
        while len(got) < len(whole):
            got += await peer.read(min(150_000, len(whole) - len(got)))
            await trio.sleep(1)
        assert got == whole


async def test_what_is_queued_for_a_client_is_bounded_and_the_senders_wait(serve: Serve) -> None:
    server = Server(port=0, max_output=200_000)
    listeners: list[Client] = []
    sent = [0]

    @server.add_handler(Filters.Fields(listen=None))
    async def listen(client: Any, packet: Any) -> None:
        listeners.append(client)
        await client.send({"listening": True})

    @server.add_handler(Filters.Fields(flood=None))
    async def flood(client: Any, packet: Any) -> None:
        for _ in range(400):
            await listeners[0].send({"text": "x" * 100_000})
            sent[0] += 1
        await client.send({"done": True})

    running = await serve(server)
    async with await Peer.connect_from("127.0.0.1", running.port, receive_buffer=4096) as listener:
        assert await listener.ask(listen=1) == {"listening": True}
        async with await running.connect() as flooder:
            await flooder.send(json_packet(flood=1))
            seen = -1
            while seen != sent[0]:
                seen = sent[0]
                await trio.sleep(0.1)
            assert sent[0] < 200, "the output of 40 MB is not bounded"
            for _ in range(400):
                assert await listener.reply() == (JSON, b'{"text":"' + b"x" * 100_000 + b'"}')
            assert await flooder.json() == {"done": True}


async def test_a_peer_that_sends_and_never_reads_is_not_read_from_for_ever(serve: Serve) -> None:
    running = await serve(send_timeout=0.5)
    data = packet(JSON, b'{"text":"' + b"x" * 50_000 + b'"}')
    async with await Peer.connect_from("127.0.0.1", running.port, receive_buffer=4096) as peer:
        total = 0

        async def flood() -> None:
            nonlocal total
            while total < 200_000_000:
                await peer.send(data)
                total += len(data)

        with pytest.raises(trio.BrokenResourceError):
            await flood()
        assert total < 50_000_000
    await running.settle()


# While running


async def test_a_handler_that_is_registered_while_running_gets_the_next_packet(serve: Serve) -> None:
    server = Server(port=0)

    async def new(client: Any, packet: Any) -> None:
        await client.send({"new": packet["number"]})

    @server.add_handler()
    async def first(client: Any, packet: Any) -> None:
        if packet["number"] == 0:
            server.register_handler(new, group=1)
        await client.send({"old": packet["number"]})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(number=0) + json_packet(number=1))
        assert await peer.json() == {"old": 0}
        assert await peer.json() == {"old": 1}
        assert await peer.json() == {"new": 1}


async def test_an_ip_filter_may_be_changed_while_running(serve: Serve) -> None:
    server = Server(port=0)
    allowed = Filters.Ip(["127.0.0.1"])

    @server.add_handler(allowed)
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await Peer.connect_from("127.0.0.4", running.port) as peer:
        await peer.send(json_packet(a=1))
        assert await peer.failure() == "ERR_NO_HANDLER"
        allowed.ips.append("127.0.0.4")
        assert await peer.ask(a=1) == {"a": 1}


# Filters that wait


class Slow(Filter):
    """An async filter that notes its packets."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    async def check(self, c: Client, p: Packet) -> bool:
        self.asked.append(p["name"])
        await trio.sleep(0.01)
        if p["name"] == "broken":
            raise RuntimeError("the filter is broken")
        return bool(p["name"] == "good")


@pytest.mark.parametrize("combine", ["alone", "and", "or"])
async def test_an_async_filter_is_awaited(serve: Serve, combine: str) -> None:
    server = Server(port=0)
    slow = Slow([])
    has = Filters.HasFields(name=None)
    whole: Filter = {"alone": slow, "and": has & slow, "or": ~has | slow}[combine]

    @server.add_handler(whole)
    async def echo(client: Any, packet: Any) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(name="good") == {"name": "good"}
        for name in ("bad", "broken"):
            await peer.send(json_packet(name=name))
            assert await peer.failure() == "ERR_NO_HANDLER"
        assert await peer.ask(name="good") == {"name": "good"}
    assert slow.asked == ["good", "bad", "broken", "good"]
    assert len(running.logged("the filter is [...]")) == 1


async def test_a_filter_that_raises_does_not_pass_even_inverted(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler(~Slow([]))
    async def guarded(client: Any, packet: Any) -> None:
        await client.send({"guarded": True})

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(name="broken") + json_packet(name="good"))
        assert await peer.failure() == "ERR_NO_HANDLER"
        assert await peer.failure() == "ERR_NO_HANDLER"
        assert await peer.ask(name="bad") == {"guarded": True}


async def test_at_debug_each_reply_goes_out_before_the_next_packet_is_looked_at(serve: Serve) -> None:
    server = Server(port=0, logging_level=10)

    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> None:
        await client.send(packet)

    running = await serve(server)
    async with await running.connect() as peer:
        await peer.send(json_packet(a=1) + json_packet(a=2))
        assert [await peer.json(), await peer.json()] == [{"a": 1}, {"a": 2}]
    steps = ("Expected stream length", "Calling", "Sending response", "Response sent")
    logged = [step for line in running.lines for step in steps if step in line]
    assert logged == [*steps, *steps]


@pytest.mark.parametrize("unsendable", [{"a": object()}, Packet({"a": 1}, "yaml")], ids=["fields", "encoding"])
async def test_behind_a_close_it_does_not_matter_what_is_sent(serve: Serve, unsendable: Any) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def close(client: Client, packet: Packet) -> None:
        await client.send({"a": 1}, close=True)
        await client.send(unsendable)

    running = await serve(server)
    async with await running.connect() as peer:
        assert await peer.ask(a=1) == {"a": 1}
        assert await peer.closed()
    assert not running.logged("[ERROR]")


async def test_a_broken_codec_that_quotes_the_payload_does_not_bring_it_into_the_log(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quote(self: JsonCodec, payload: bytes) -> dict[str, Any]:
        raise RuntimeError(f"cannot read {payload!r}")

    monkeypatch.setattr(JsonCodec, "decode", quote)
    running = await serve(Server(port=0))
    async with await running.connect() as peer:
        await peer.send(json_packet(key="very-secret"))
        assert await peer.failure() == "ERR_REQUEST_MALFORMED"
    assert running.logged("is broken: it raised RuntimeError (cannot read b'[...]')")
    assert not running.logged("secret")
