"""`Server.statistics` in version 23: each request is counted once, and its duration is noted under the same outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from conftest import Running, Serve
from numbered_peer import Answer, NumberedPeer, numbered
from strict_msgpack import strict

from asyncapy import Server
from asyncapy.errors import Failure
from asyncapy.filters import Filters
from asyncapy_core.routing.filter import Filter

ZIPROTO = 1


async def connect(running: Running) -> NumberedPeer:
    return await NumberedPeer.connect(running.port)


async def do_nothing(client: Any, packet: Any) -> None: ...


class Scene:
    """A server whose handler does as the field ``how`` tells, after a wait if there is a field ``wait``."""

    def __init__(self, **settings: Any) -> None:
        self.free = trio.Event()
        self.server = Server(port=0, measure=True, **settings)
        self.server.register_handler(self.handle, Filters.HasFields(how=None))
        self.server.on_error(KeyError)(self.missing)

    def missing(self, client: Any, packet: Any, error: Any) -> Failure:
        return Failure("ERR_MISSING")

    async def ticks(self) -> AsyncIterator[int]:
        yield 1

    async def handle(self, client: Any, packet: Any) -> Any:
        if "wait" in packet:
            await trio.lowlevel.checkpoint()
        how = packet["how"]
        if how == "sleeps":
            await self.free.wait()
        elif how == "sends":
            await client.send({"n": 1})
            return None
        elif how == "drops a generator":
            async for _ in self.ticks():
                break
        elif how == "is wrong":
            return 7
        elif how == "cannot be sent":
            return {"n": object()}
        elif how == "stops":
            packet.stop_propagation()
        elif how == "closes":
            await client.close()
            return None
        elif how != "returns":
            raise {"ERR_GONE": Failure("ERR_GONE"), "ERR_MISSING": KeyError(1)}.get(how, ValueError("a failure"))
        return {"n": 1}

    def check(self, expected: dict[str, int], *, refusals: dict[str, int] | None = None) -> None:
        """Check the outcomes of the handler, and that there are as many durations of each."""
        handler = self.server.statistics().handlers[0]
        assert dict(handler.outcomes) == expected
        assert {outcome: each.count for outcome, each in handler.durations.items()} == expected
        assert dict(self.server.statistics().refusals) == (refusals or {})


OUTCOMES = {
    "returns": "ok",
    "sends": "ok",
    "stops": "ok",
    "drops a generator": "ok",
    "ERR_GONE": "ERR_GONE",
    "ERR_MISSING": "ERR_MISSING",
    "fails": "ERR_HANDLER_FAILED",
    "is wrong": "ERR_HANDLER_FAILED",
    "cannot be sent": "ERR_HANDLER_FAILED",
    "closes": "ok",
}


@pytest.mark.parametrize(("how", "outcome"), OUTCOMES.items())
@pytest.mark.parametrize("place", ["in place", "handed over", "in a task of its own", "after its turn"])
@pytest.mark.parametrize("settings", [{}, {"handler_timeout": 60}, {"groups": 2}])
async def test_a_request_is_counted_and_measured_under_one_outcome(
    serve: Serve, how: str, outcome: str, place: str, settings: Any
) -> None:
    settings = {**settings}
    groups = settings.pop("groups", 1)
    scene = Scene(max_in_flight=1 if place == "after its turn" else 100, **settings)
    if groups > 1:
        scene.server.register_handler(do_nothing, Filters.HasFields(nobody=None), group=1)
    running = await serve(scene.server)
    fields = {"how": how} if place == "in place" else {"how": how, "wait": 1}
    expected = {outcome: 1}
    async with await connect(running) as peer:
        requests = 1
        if place in {"in a task of its own", "after its turn"}:
            await peer.request(how="sleeps", wait=1)
            expected["ok"] = expected.get("ok", 0) + 1
            requests = 2
            await peer.ping()
        await peer.request(**fields)
        scene.free.set()
        while requests:
            answer = await peer.read()
            assert answer is not None
            requests -= answer.kind in {"REPLY", "END", "FAILURE"}
    await running.settle()
    scene.check(expected)


@pytest.mark.parametrize("end", ["a CANCEL", "a reset", "a time-out"])
@pytest.mark.parametrize("settings", [{}, {"groups": 2}])
async def test_requests_that_are_cut_off_are_measured_as_they_are_counted(
    serve: Serve, end: str, settings: Any
) -> None:
    limit = {"handler_timeout": 0.05} if end == "a time-out" else {}
    scene = Scene(**limit)
    if settings:
        scene.server.register_handler(do_nothing, Filters.HasFields(nobody=None), group=1)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        # the first is handed over, the others begin in tasks of their own, and the last is cancelled before that
        requests = [numbered("REQUEST", number, {"how": "sleeps"}) for number in (1, 2, 3)]
        await peer.send(b"".join([*requests, numbered("CANCEL", 3) if end == "a CANCEL" else b""]))
        if end == "a reset":
            await peer.ping()
            await peer.reset()
        else:
            if end == "a CANCEL":
                await peer.send(numbered("CANCEL", 2) + numbered("CANCEL", 1))
            kind = "END" if end == "a CANCEL" else "FAILURE"
            answers = [await peer.read() for _ in requests]
            assert sorted(str(answer and answer.number) for answer in answers) == ["1", "2", "3"]
            assert {answer and answer.kind for answer in answers} == {kind}
    await running.settle()
    with trio.fail_after(5):
        while running.server.statistics().abandoned:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)
    if end != "a time-out" and settings:  # the search for a handler of some of them may not have begun
        early = running.server.statistics().refusals.get("cancelled", 0)
        scene.check({"cancelled": 3 - early}, refusals={"cancelled": early} if early else {})
    else:
        scene.check({"ERR_HANDLER_FAILED" if end == "a time-out" else "cancelled": 3})


class Refuses(Filter):
    """Refuses packets as a field tells."""

    def check(self, c: Any, p: Any) -> bool:
        if p.get("refuse") == "fails":
            raise Failure("ERR_FORBIDDEN")
        if p.get("refuse") == "cannot be sent":
            raise Failure("ERR_FORBIDDEN", x=object())
        if p.get("refuse") == "raises":
            raise ValueError("a failure of a filter")
        return "refuse" not in p


class RefusesLater(Refuses):
    """Does the same after a wait."""

    async def check(self, c: Any, p: Any) -> bool:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return super().check(c, p)


REFUSALS = {
    "refuses": ("ERR_NO_HANDLER", "ERR_NO_HANDLER"),
    "raises": ("ERR_NO_HANDLER", "ERR_NO_HANDLER"),
    "fails": ("ERR_FORBIDDEN", "ERR_FORBIDDEN"),
    "cannot be sent": ("ERR_HANDLER_FAILED", "ERR_HANDLER_FAILED"),
    "empty": ("ERR_REQUEST_MALFORMED", "ERR_REQUEST_MALFORMED"),
    "malformed": ("ERR_REQUEST_MALFORMED", "ERR_REQUEST_MALFORMED"),
}


@pytest.mark.parametrize(("how", "codes"), REFUSALS.items())
@pytest.mark.parametrize("encoding", [0, ZIPROTO])
@pytest.mark.parametrize("place", ["alone", "beside another", "after its turn"])
@pytest.mark.parametrize("filter_kind", [Refuses, RefusesLater])
@pytest.mark.parametrize("guards", [False, True])
async def test_a_request_that_reaches_no_handler_is_refused_once_under_its_number_in_its_encoding(
    serve: Serve, how: str, codes: tuple[str, str], encoding: int, place: str, filter_kind: type[Filter], guards: bool
) -> None:
    scene = Scene(max_in_flight=1 if place == "after its turn" else 100)
    if guards:
        scene.server.guard(filter_kind())
    else:
        scene.server.register_handler(do_nothing, filter_kind())
    text = how.encode()
    fields = b"\x81\xa6refuse" + bytes((0xA0 | len(text),)) + text if encoding else b'{"refuse":"%s"}' % text
    payload = {"empty": b"", "malformed": b"\xc1"}.get(how, fields)
    running = await serve(scene.server)
    async with await connect(running) as peer:
        await peer.send(numbered("REQUEST", 1, {"how": "returns"}))
        await peer.read()
        for number in range(10, 40, 10):
            scene.free = trio.Event()
            if place != "alone":
                await peer.send(numbered("REQUEST", number, {"how": "sleeps"}))
            await peer.send(numbered("REQUEST", number + 3, payload=payload, encoding=encoding))
            if place == "after its turn":
                await peer.ping()
                scene.free.set()
                assert await peer.read() == Answer("REPLY", number, {"n": 1})
            answer = await peer.read()
            assert answer is not None
            assert (answer.kind, answer.number, answer.encoding) == ("FAILURE", number + 3, encoding)
            fields_sent = strict(answer.fields) if encoding else answer.fields
            assert fields_sent == {"status": "failure", "error": codes[0]}
            if place == "beside another":
                scene.free.set()
                assert await peer.read() == Answer("REPLY", number, {"n": 1})
    await running.settle()
    scene.check({"ok": 1 if place == "alone" else 4}, refusals={codes[1]: 3})


@pytest.mark.parametrize("how", ["a CANCEL", "a reset", "sends after a reset"])
async def test_a_request_that_is_cut_off_in_a_function_of_on_error_has_not_failed(serve: Serve, how: str) -> None:
    scene, begun = Scene(), trio.Event()

    @scene.server.on_error(ValueError)
    async def wait(client: Any, packet: Any, error: Any) -> None:
        begun.set()
        if how == "sends after a reset":
            with trio.CancelScope(shield=True):
                await client.gone
            await client.send({"n": 1})
        await trio.sleep_forever()

    running = await serve(scene.server)
    async with await connect(running) as peer:
        number = await peer.request(how="fails")
        await begun.wait()
        if how == "a CANCEL":
            await peer.cancel(number)
            assert await peer.read() == Answer("END", number, None)
            await peer.ping()
        else:
            await peer.reset()
    await running.settle()
    with trio.fail_after(5):
        while running.server.statistics().abandoned:  # noqa: ASYNC110  # the server has no event for this
            await trio.sleep(0.002)
    scene.check({"cancelled": 1})
    assert not running.logged("ERROR")
