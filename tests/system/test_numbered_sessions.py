"""Sessions of version 23 over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered

from asyncapy_core import Server
from asyncapy_core.errors import Failure
from asyncapy_filters import HasFields


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def test_a_request_is_answered_under_its_number(serve: Serve) -> None:
    running = await serve()
    async with await connect(running) as peer:
        for number in (1, 2):
            assert await peer.ask(a=number) == [Answer("REPLY", number, {"a": number})]
        await peer.send(numbered("REQUEST", 7, {}))
        assert await peer.read() == Answer("REPLY", 7, {})
    await running.settle()


async def once(client: Any, packet: Any) -> None:
    await client.send({"n": 1})


async def twice(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    await client.send({"n": 2})


async def returned(client: Any, packet: Any) -> Any:
    return {"n": 1}


async def sent_and_returned(client: Any, packet: Any) -> Any:
    await client.send({"n": 1})
    return {"n": 2}


async def never(client: Any, packet: Any) -> None: ...


async def before_a_wait(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    await trio.sleep(0.01)


async def after_a_wait(client: Any, packet: Any) -> None:
    await trio.sleep(0.01)
    await client.send({"n": 1})


async def from_a_child(client: Any, packet: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, {"n": 1})


async def from_a_thread(client: Any, packet: Any) -> None:
    await trio.to_thread.run_sync(lambda: trio.from_thread.run(client.send, {"n": 1}))


async def marked_as_last(client: Any, packet: Any) -> None:
    await client.send({"n": 1}, last=True)
    await trio.sleep(0.01)


async def sent_without_waiting(client: Any, packet: Any) -> None:
    client.send_nowait({"n": 1})
    client.send_nowait({"n": 2})


async def failed(client: Any, packet: Any) -> None:
    raise Failure("ERR_GONE", id=7)


async def failed_after_an_answer(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    raise OSError("no disk")


async def failed_after_a_wait(client: Any, packet: Any) -> None:
    await trio.sleep(0.01)
    raise OSError("no disk")


async def stopped(client: Any, packet: Any) -> None:
    await client.send({"n": 1})
    packet.stop_propagation()


BROKEN = {"status": "failure", "error": "ERR_HANDLER_FAILED"}
CASES: list[tuple[Any, list[tuple[str, Any]]]] = [
    (once, [("REPLY", {"n": 1})]),
    (twice, [("PART", {"n": 1}), ("REPLY", {"n": 2})]),
    (returned, [("REPLY", {"n": 1})]),
    (sent_and_returned, [("PART", {"n": 1}), ("REPLY", {"n": 2})]),
    (never, [("END", None)]),
    (before_a_wait, [("PART", {"n": 1}), ("END", None)]),
    (after_a_wait, [("REPLY", {"n": 1})]),
    (from_a_child, [("PART", {"n": 1}), ("END", None)]),
    (from_a_thread, [("PART", {"n": 1}), ("END", None)]),
    (marked_as_last, [("REPLY", {"n": 1})]),
    (sent_without_waiting, [("PART", {"n": 1}), ("PART", {"n": 2}), ("END", None)]),
    (failed, [("FAILURE", {"status": "failure", "error": "ERR_GONE", "id": 7})]),
    (failed_after_an_answer, [("PART", {"n": 1}), ("FAILURE", BROKEN)]),
    (failed_after_a_wait, [("FAILURE", BROKEN)]),
    (stopped, [("REPLY", {"n": 1})]),
]


@pytest.mark.parametrize(("handler", "answers"), CASES, ids=lambda case: getattr(case, "__name__", ""))
async def test_each_request_has_one_last_answer(serve: Serve, handler: Any, answers: list[tuple[str, Any]]) -> None:
    server = Server(port=0)
    server.register_handler(handler, HasFields(a=None))
    server.register_handler(never)
    running = await serve(server)
    async with await connect(running) as peer:
        for number in (1, 2, 3):  # from the second on, a handler that waits runs in a task of its own
            assert await peer.ask(a=1) == [Answer(kind, number, fields) for kind, fields in answers]
        numbers = [await peer.request(a=1) for _ in range(10)]
        by_number: dict[int, list[tuple[str, Any]]] = {number: [] for number in numbers}
        for _ in range(10 * len(answers)):
            answer = await peer.read()
            assert answer is not None
            by_number[answer.number].append((answer.kind, answer.fields))
        assert all(each == answers for each in by_number.values())
    await running.settle()


async def test_debug_lines_tell_each_request_and_each_cancel(serve: Serve) -> None:
    server = Server(port=0, logging_level=10)

    @server.add_handler()
    async def handle(client: Any, packet: Any) -> Any:
        if "wait" in packet:
            await trio.sleep_forever()
        return {}

    running = await serve(server)
    async with await connect(running) as peer:
        assert await peer.ask(a=1) == [Answer("REPLY", 1, {})]
        number = await peer.request(wait=1)
        await peer.cancel(number)
        assert await peer.read() == Answer("END", number, None)
    assert running.logged("{API Parser} Request 1, Protocol-Version is 23, Content-Encoding is json, 8 bytes")
    assert running.logged("{API Parser} Request 2, Protocol-Version is 23")
    assert running.logged("{API Parser} Request 2 was cancelled by its client")
    assert len(running.logged("{API Parser} Calling 'handle' in group 0")) == 2
