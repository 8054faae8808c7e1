"""Answers, failures and events of version 23: who gets which packet, in which encoding, and under which number."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from strict_msgpack import strict

from asyncapy import Server
from asyncapy.errors import AlreadyAnswered, Failure
from asyncapy.filters import Filters
from asyncapy_core import SharedPacket
from asyncapy_core.routing.filter import Filter

BROKEN = {"status": "failure", "error": "ERR_HANDLER_FAILED"}
MALFORMED = {"status": "failure", "error": "ERR_REQUEST_MALFORMED"}
NO_HANDLER = {"status": "failure", "error": "ERR_NO_HANDLER"}
ZIPROTO = 1
ZI_EMPTY, ZI_N = b"\x80", b"\x81\xa1n\x07"
"""The maps {} and {"n": 7} in ZiProto."""


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_push_of_a_session_is_an_event_without_a_number(serve: Serve, waits: bool) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if waits:
            await trio.lowlevel.checkpoint()
        await client.session.send({"event": 1})
        client.session.send_nowait({"event": 2})
        await client.session.send(SharedPacket({"event": 3}))
        client.session.send_nowait(SharedPacket({"event": 4}))
        return {"n": 1}

    running = await serve(server)
    async with await connect(running) as peer:
        for number in (1, 2):
            await peer.request()
            events = [await peer.read() for _ in range(4)]
            assert events == [Answer("EVENT", 0, {"event": event}) for event in (1, 2, 3, 4)]
            assert await peer.read() == Answer("REPLY", number, {"n": 1})


@pytest.mark.parametrize("first", [0, ZIPROTO])
async def test_an_event_has_the_encoding_of_the_first_request_and_an_answer_that_of_its_own(
    serve: Serve, first: int
) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        assert client.encoding == ("json", "ziproto")[packet["encoding"]]
        for _ in range(packet["waits"]):
            await trio.lowlevel.checkpoint()
        await client.session.send({"event": 1})
        client.send_nowait(SharedPacket({"n": 7}))
        await client.send({"n": 7})
        return {"n": 7}

    running = await serve(server)
    async with await connect(running) as peer:
        for number, encoding in enumerate((first, 1 - first, first, 1 - first, first), 1):
            payload = b"\x82\xa8encoding\x01\xa5waits" + bytes((number % 2,)) if encoding else None
            fields = {"encoding": 0, "waits": number % 2}
            await peer.send(numbered("REQUEST", number, fields, encoding=encoding, payload=payload))
            packets = [await peer.read() for _ in range(4)]
            kinds = []
            for packet in packets:
                assert packet is not None
                kinds.append((packet.kind, packet.number))
                assert packet.encoding == (first if packet.kind == "EVENT" else encoding)
                decoded = strict(packet.fields) if packet.encoding else packet.fields
                assert decoded == ({"event": 1} if packet.kind == "EVENT" else {"n": 7})
            assert kinds == [("EVENT", 0), ("PART", number), ("PART", number), ("REPLY", number)]


async def test_an_end_and_a_failure_have_the_encoding_of_their_request(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler(Filters.HasFields(n=None))
    async def fail(client: Any, packet: Any) -> Any:
        raise Failure("ERR_GONE")

    @server.add_handler()
    async def end(client: Any, packet: Any) -> Any: ...

    running = await serve(server)
    async with await connect(running) as peer:
        await peer.ask()
        await peer.send(numbered("REQUEST", 5, encoding=ZIPROTO, payload=ZI_EMPTY))
        assert await peer.read() == Answer("END", 5, None, ZIPROTO)
        await peer.send(numbered("REQUEST", 6, encoding=ZIPROTO, payload=ZI_N))
        failure = await peer.read()
        assert failure is not None
        assert (failure.kind, failure.number, failure.encoding) == ("FAILURE", 6, ZIPROTO)
        assert strict(failure.fields) == {"status": "failure", "error": "ERR_GONE"}
        await peer.send(numbered("REQUEST", 7, encoding=ZIPROTO, payload=b"\xc1"))
        failure = await peer.read()
        assert failure is not None
        assert (failure.kind, failure.number, failure.encoding) == ("FAILURE", 7, ZIPROTO)
        assert strict(failure.fields) == MALFORMED


@pytest.mark.parametrize("payload", [b"", b"[1]", b"1", b'{"a":', b"\xff", b'{"a":1}x'], ids=repr)
async def test_a_malformed_payload_is_a_failure_of_its_request_alone(serve: Serve, payload: bytes) -> None:
    server = Server(port=0)
    release = trio.Event()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "wait" in packet:
            await release.wait()
        return {}

    running = await serve(server)
    async with await connect(running) as peer:
        await peer.send(numbered("REQUEST", 1, payload=payload))
        assert await peer.read() == Answer("FAILURE", 1, MALFORMED)
        await peer.send(numbered("REQUEST", 2, {"wait": 1}) + numbered("REQUEST", 3, payload=payload))
        assert await peer.read() == Answer("FAILURE", 3, MALFORMED)
        release.set()
        assert await peer.read() == Answer("REPLY", 2, {})
        await peer.send(numbered("REQUEST", 4, {}))
        assert await peer.read() == Answer("REPLY", 4, {})
    assert running.server.statistics().refusals["ERR_REQUEST_MALFORMED"] == 2


async def test_a_client_whose_request_has_ended_sends_events_and_that_is_logged_once(serve: Serve) -> None:
    server, clients = Server(port=0), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        clients.append(client)

    running = await serve(server)
    async with await connect(running) as peer:
        for number in (1, 2):
            assert await peer.ask() == [Answer("END", number, None)]
            await clients[-1].send({"late": 1})
            clients[-1].send_nowait({"late": 2})
            assert [await peer.read(), await peer.read()] == [
                Answer("EVENT", 0, {"late": 1}),
                Answer("EVENT", 0, {"late": 2}),
            ]
        with pytest.raises(AlreadyAnswered):
            await clients[0].send({"late": 3}, last=True)
    assert len(running.logged("Client.answering")) == 1


@pytest.mark.parametrize("how", ["raises", "fails", "is wrong", "cannot be sent", "waits", "sends first", "cleans up"])
@pytest.mark.parametrize("by_group", [False, True])
async def test_a_failed_handler_is_named_for_further_packets(serve: Serve, how: str, by_group: bool) -> None:
    server, clients = Server(port=0), []

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await trio.lowlevel.checkpoint()

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        clients.append(client)
        if how == "waits":
            await trio.lowlevel.checkpoint()
        elif how == "sends first":
            await client.send({"n": 1})
        elif how == "cleans up":
            async for _ in ticks():
                break
        elif how == "is wrong":
            return 7
        elif how == "cannot be sent":
            return {"n": object()}
        raise Failure("ERR_GONE", x=object()) if how == "fails" else ValueError("a failure")

    if by_group:

        @server.add_handler(Filters.HasFields(more=None), group=1)
        async def handle_more(client: Any, packet: Any) -> None: ...

    running = await serve(server)
    async with await connect(running) as peer:
        for number in (1, 2):
            assert (await peer.ask())[-1] == Answer("FAILURE", number, BROKEN)
            await clients[-1].send({"late": 1})
            assert await peer.read() == Answer("EVENT", 0, {"late": 1})
    (line,) = running.logged("Client.answering")
    assert "'handle'" in line
    failures = [line for line in running.logged("ERROR") if "Handler 'handle'" in line]
    assert len(failures) >= 1


async def test_after_the_last_answer_a_send_raises_an_error(serve: Serve) -> None:
    server, raised = Server(port=0), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "wait" in packet:
            await trio.lowlevel.checkpoint()
        await client.send({"n": 1}, last=True)
        for last in (False, True):
            try:
                await client.send({"n": 2}, last=last)
            except AlreadyAnswered as error:
                raised.append(error)
        try:
            client.send_nowait({"n": 2})
        except AlreadyAnswered as error:
            raised.append(error)

    running = await serve(server)
    async with await connect(running) as peer:
        for fields in ({}, {"wait": 1}, {"wait": 1}):
            ((kind, _, answer, _),) = await peer.ask(**fields)
            assert (kind, answer) == ("REPLY", {"n": 1})
            await peer.ping()
    assert len(raised) == 9


async def test_a_value_that_is_returned_after_the_last_answer_is_a_failure_in_the_log(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        await client.send({"n": 1}, last=True)
        return {"n": 2}

    running = await serve(server)
    async with await connect(running) as peer:
        assert await peer.ask() == [Answer("REPLY", 1, {"n": 1})]
        assert await peer.ask() == [Answer("REPLY", 2, {"n": 1})]
    assert running.logged("AlreadyAnswered")


@pytest.mark.parametrize("how", ["no answer", "answers", "last", "raises", "two tasks"])
async def test_a_background_task_may_go_on_with_an_answer(serve: Serve, how: str) -> None:
    server = Server(port=0, max_in_flight=2)

    async def go_on(client: Any, answering: Any, release: trio.Event) -> None:
        try:
            async with answering:
                await release.wait()
                if how == "answers":
                    await client.send({"n": 2})
                elif how == "last":
                    await client.send({"n": 2}, last=True)
                elif how == "raises":
                    raise ValueError("a failure")
        except ValueError:
            pass

    async with trio.open_nursery() as nursery:
        releases: list[trio.Event] = []

        @server.add_handler()
        async def handle(client: Any, packet: Any) -> None:
            if "silent" in packet:
                return
            releases.append(trio.Event())
            await client.send({"n": 1})
            for _ in range(2 if how == "two tasks" else 1):
                nursery.start_soon(go_on, client, client.answering(), releases[-1])

        running = await serve(server)
        async with await connect(running) as peer:
            for _ in range(3):
                number = await peer.request()
                silent = await peer.request(silent=1)
                assert await peer.read() == Answer("PART", number, {"n": 1})
                assert await peer.read() == Answer("END", silent, None)
                releases[-1].set()
                expected = {
                    "answers": [Answer("PART", number, {"n": 2}), Answer("END", number, None)],
                    "last": [Answer("REPLY", number, {"n": 2})],
                }.get(how, [Answer("END", number, None)])
                assert await peer.answers(number) == expected
            await peer.ping()


async def test_an_answer_before_an_answering_block_is_sent_although_its_handler_never_waits_again(serve: Serve) -> None:
    server, free, kept = Server(port=0), trio.Event(), []

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        if "wait" in packet:
            await free.wait()  # from now on, requests beside this one are handled in tasks of their own
            return
        await client.send({"n": 1})
        kept.append(client.answering())

    running = await serve(server)
    async with await connect(running) as peer:
        first = await peer.request(wait=1)
        second = await peer.request()
        assert await peer.read() == Answer("PART", second, {"n": 1})
        kept.clear()
        assert await peer.read() == Answer("END", second, None)
        free.set()
        assert await peer.read() == Answer("END", first, None)


@pytest.mark.parametrize("last_reference", ["in the handler", "in another task", "in a cycle", "in a thread"])
async def test_a_request_ends_if_its_answering_block_is_never_entered(serve: Serve, last_reference: str) -> None:
    server, kept = Server(port=0, max_in_flight=1), []

    async def go_on(answering: Any) -> None:
        await trio.lowlevel.checkpoint()
        async with answering:
            raise AssertionError("the task was cancelled before")

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> None:
        answering = client.answering()
        await client.send({"n": 1})
        if last_reference == "in another task":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_on, answering)
                nursery.cancel_scope.cancel()
        elif last_reference == "in a cycle":
            cycle: list[Any] = [answering]
            cycle.append(cycle)
        elif last_reference == "in a thread":
            kept.append(answering)

    running = await serve(server)
    async with await connect(running) as peer:
        for number in (1, 2, 3):
            await peer.request()
            assert await peer.read() == Answer("PART", number, {"n": 1})
            if last_reference == "in a cycle":
                gc.collect()
            elif last_reference == "in a thread":
                await trio.to_thread.run_sync(kept.pop)
            assert await peer.read() == Answer("END", number, None)


@pytest.mark.parametrize("when", ["inside", "after its end", "in two tasks"])
async def test_an_answering_block_that_is_entered_again_is_an_error_and_ends_its_request_once(
    serve: Serve, when: str
) -> None:
    server, errors = Server(port=0, max_in_flight=1), []

    async def enter(client: Any, answering: Any, number: int) -> None:
        try:
            async with answering:
                await client.send({"n": number})
                if when == "inside":
                    await enter(client, answering, 2)
                elif when == "in two tasks":
                    await trio.testing.wait_all_tasks_blocked()
        except RuntimeError as error:
            errors.append(error)

    async def go_on(client: Any, answering: Any) -> None:
        if when == "in two tasks":
            async with trio.open_nursery() as tasks:
                tasks.start_soon(enter, client, answering, 1)
                tasks.start_soon(enter, client, answering, 1)
        else:
            await enter(client, answering, 1)
        if when == "after its end":
            await enter(client, answering, 2)

    async with trio.open_nursery() as nursery:

        @server.add_handler()
        async def handle(client: Any, packet: Any) -> None:
            nursery.start_soon(go_on, client, client.answering())

        running = await serve(server)
        async with await connect(running) as peer:
            for count in (1, 2, 3):
                assert await peer.ask() == [Answer("PART", count, {"n": 1}), Answer("END", count, None)]
                await peer.ping()
                assert len(errors) == count
                assert "client.answering() once for each block" in str(errors[-1])


async def test_an_answering_block_cannot_be_made_in_a_thread(serve: Serve) -> None:
    server = Server(port=0)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        with pytest.raises(RuntimeError):
            await trio.to_thread.run_sync(client.answering)
        gc.collect()  # the object that was not made raises nothing
        return {"n": 1}

    running = await serve(server)
    async with await connect(running) as peer:
        assert await peer.ask() == [Answer("REPLY", 1, {"n": 1})]


async def test_an_answering_block_that_ends_while_generators_are_closed_ends_the_request(serve: Serve) -> None:
    server, entered, left = Server(port=0), trio.Event(), trio.Event()

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            entered.set()
            await left.wait()

    async def go_on(answering: Any) -> None:
        async with answering:
            await entered.wait()
        left.set()

    async with trio.open_nursery() as nursery:

        @server.add_handler()
        async def handle(client: Any, packet: Any) -> None:
            nursery.start_soon(go_on, client.answering())
            async for _ in ticks():
                break

        running = await serve(server)
        async with await connect(running) as peer:
            for number in (1, 2):
                assert await peer.ask() == [Answer("END", number, None)]
                entered, left = trio.Event(), trio.Event()


class Sends(Filter):
    """Answers in the place of the handler if told so."""

    async def check(self, c: Any, p: Any) -> bool:
        if "filter" not in p:
            return True
        await c.send({"by": "filter"})
        if p["filter"] == "fails":
            raise Failure("ERR_FORBIDDEN")
        if p["filter"] == "breaks":
            raise ValueError("a failure")
        return bool(p["filter"] == "passes")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("refuses", [("REPLY", {"by": "filter"})]),
        ("passes", [("PART", {"by": "filter"}), ("REPLY", {"n": 1})]),
        ("fails", [("PART", {"by": "filter"}), ("FAILURE", {"status": "failure", "error": "ERR_FORBIDDEN"})]),
        ("breaks", [("REPLY", {"by": "filter"})]),
    ],
)
@pytest.mark.parametrize("guards", [False, True])
async def test_a_filter_may_answer(serve: Serve, told: str, expected: Any, guards: bool) -> None:
    server = Server(port=0)

    async def handle(client: Any, packet: Any) -> Any:
        return {"n": 1}

    if guards:
        server.guard(Sends())
        server.register_handler(handle)
    else:
        server.register_handler(handle, Sends())
    running = await serve(server)
    async with await connect(running) as peer:
        for _ in range(3):
            answers = await peer.ask(filter=told)
            assert [(answer.kind, answer.fields) for answer in answers] == expected
        await peer.ping()


async def test_failures_end_their_request(serve: Serve) -> None:
    server = Server(port=0)

    @server.on_error(KeyError)
    async def missing(client: Any, packet: Any, error: Any) -> Any:
        return Failure("ERR_MISSING", key="a")

    @server.add_handler(Filters.HasFields(how=None))
    async def handle(client: Any, packet: Any) -> Any:
        if packet.get("wait"):
            await trio.lowlevel.checkpoint()
        how = packet["how"]
        if how == "unsendable":
            return {"n": object()}
        if how == "wrong type":
            return 7
        raise {"failure": Failure("ERR_GONE"), "mapped": KeyError("a"), "other": ValueError("x")}[how]

    running = await serve(server)
    expected: dict[str, Any] = {
        "failure": {"status": "failure", "error": "ERR_GONE"},
        "mapped": {"status": "failure", "error": "ERR_MISSING", "key": "a"},
        "other": BROKEN,
        "unsendable": BROKEN,
        "wrong type": BROKEN,
    }
    async with await connect(running) as peer:
        for wait in (0, 1, 1):
            for how, fields in expected.items():
                (answer,) = await peer.ask(how=how, wait=wait)
                assert (answer.kind, answer.fields) == ("FAILURE", fields), how
            (answer,) = await peer.ask(no=1)
            assert (answer.kind, answer.fields) == ("FAILURE", NO_HANDLER)


@pytest.mark.parametrize("waits", [False, True])
async def test_the_answers_of_several_groups_are_parts_but_the_last(serve: Serve, waits: bool) -> None:
    server = Server(port=0)

    def handler(name: str) -> Any:
        async def handle(client: Any, packet: Any) -> Any:
            if waits:
                await trio.lowlevel.checkpoint()
            if packet["until"] == name:
                packet.stop_propagation()
            return {"by": name} if name in packet["answer"] else None

        return handle

    for group, name in enumerate("abc"):
        server.register_handler(handler(name), group=group)
    running = await serve(server)
    async with await connect(running) as peer:
        for answer, until in (("abc", ""), ("a", ""), ("", ""), ("c", ""), ("abc", "b")):
            packets = await peer.ask(answer=answer, until=until)
            senders = [packet.fields["by"] for packet in packets if packet.fields]
            assert senders == [name for name in answer if not until or name < until]
            kinds = [packet.kind for packet in packets]
            assert set(kinds[:-1]) <= {"PART"}
            assert kinds[-1] in {"REPLY", "END"}
            if not waits:
                assert kinds[-1] == ("REPLY" if senders else "END")
