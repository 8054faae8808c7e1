"""`Depends`: the order of calls, caching, clean-up, failures and replacements."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import pytest
import trio
from pydantic import BaseModel

from asyncapy import Client, Failure, Packet, Server
from asyncapy.errors import FailureReply, HandlerFailed
from asyncapy.typed import Depends, Request, StreamRequest
from asyncapy_core.testing import serving

VERSIONS = pytest.mark.parametrize("version", [22, 23])
Version = Literal[22, 23]
calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


class Number(BaseModel):
    n: int


class Add(Request[Number], op="add"):
    n: int


class Count(StreamRequest[Number], op="count"):
    n: int


def plain() -> int:
    calls.append("plain")
    return 1


async def asynchronous(number: Annotated[int, Depends(plain)]) -> int:
    calls.append("async")
    await trio.lowlevel.checkpoint()
    return number + 1


def generator(first: Annotated[int, Depends(plain)], second: int = Depends(asynchronous)) -> Iterator[int]:
    calls.append("begin")
    try:
        yield first + second
    except Failure as failure:
        calls.append(failure.code)
        raise
    finally:
        calls.append("end")


async def async_generator(client: Client, number: Annotated[int, Depends(generator)]) -> AsyncIterator[str]:
    calls.append("open")
    try:
        yield f"{client.address} {number}"
    finally:
        await trio.lowlevel.checkpoint()
        calls.append("close")


class Scaled:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, number: Annotated[int, Depends(plain)]) -> int:
        return self.factor * number


class Paging:
    """A class as a dependency: it is called like a function."""

    def __init__(self, packet: Packet, size: Annotated[int, Depends(Scaled(10))]) -> None:
        self.page = packet.get("page", 0)
        self.size = size


async def listed() -> AsyncIterator[list[Any]]:
    calls.append("open")
    yield calls
    calls.append("close")


@VERSIONS
async def test_dependencies_are_called_in_their_order_and_once_for_a_packet(version: Version) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(
        request: Add,
        text: Annotated[str, Depends(async_generator)],
        number: Annotated[int, Depends(plain)],
        again: Annotated[int, Depends(plain, cache=False)],
    ) -> Number:
        calls.append(text)
        return Number(n=request.n + number + again)

    async with serving(server) as running, running.client(version=version) as client:
        assert await client.call(Add(n=5)) == Number(n=7)
        await client.request({"op": "none"})
        assert calls == ["plain", "async", "begin", "open", "plain", "127.0.0.1 3", "close", "end"]


@VERSIONS
async def test_the_clean_up_comes_after_the_answer(version: Version) -> None:
    server, answered, cleaned = Server(port=0), trio.Event(), trio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        await answered.wait()
        cleaned.set()

    Slow = Annotated[int, Depends(slow)]

    async def add(number: Any) -> Number:
        return Number(n=number)

    add.__annotations__ = {"number": Slow, "return": Number}
    server.operation("add")(add)
    async with serving(server) as running, running.client(version=version) as client:
        with trio.fail_after(5):
            assert await client.request({"op": "add"}) == {"n": 1}
        assert not cleaned.is_set()
        answered.set()
        with trio.fail_after(5):
            await cleaned.wait()
        assert await client.request({"op": "add"}) == {"n": 1}


@VERSIONS
async def test_an_exception_of_the_handler_reaches_the_generators(version: Version) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(generator)]) -> Number:
        raise Failure("ERR_TOO_MANY")

    async with serving(server) as running, running.client(version=version) as client:
        with pytest.raises(FailureReply, match="ERR_TOO_MANY"):
            await client.call(Add(n=5))
        assert calls == ["plain", "async", "begin", "ERR_TOO_MANY", "end"]


async def swallowing() -> AsyncIterator[int]:
    with contextlib.suppress(Failure):
        yield 1


async def test_a_dependency_that_swallows_an_exception_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(swallowing)]) -> Number:
        raise Failure("ERR_TOO_MANY")

    async with serving(server) as running, running.client() as client:
        with pytest.raises(HandlerFailed):
            await client.call(Add(n=5))
        with pytest.raises(HandlerFailed):
            await client.call(Add(n=5))
    assert "a dependency of the handler 'add' has caught its exception" in caplog.text


async def twice() -> AsyncIterator[int]:
    yield 1
    yield 2


async def test_a_dependency_that_yields_twice_is_a_failure_of_the_handler_alone() -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(twice)]) -> Number:
        return Number(n=request.n)

    @server.operation("other")
    async def other(client: Client, packet: Packet) -> dict[str, int]:
        return {"other": 1}

    async with serving(server) as running, running.client(version=23) as client:
        assert await client.call(Add(n=5)) == Number(n=5)
        assert await client.request({"op": "other"}) == {"other": 1}


def never() -> Iterator[int]:
    if calls:
        yield 1


@VERSIONS
async def test_a_dependency_that_never_yields_is_a_failure_of_the_handler(version: Version) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(never)]) -> Number:
        return Number(n=request.n)

    async with serving(server) as running, running.client(version=version) as client:
        with pytest.raises(HandlerFailed):
            await client.call(Add(n=5))
        calls.append("now")
        assert await client.call(Add(n=5)) == Number(n=5)


def refuses() -> int:
    raise Failure("ERR_REFUSED")


@VERSIONS
async def test_a_failure_of_a_dependency_is_the_answer(version: Version) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(
        request: Add, first: Annotated[list[Any], Depends(listed)], number: Annotated[int, Depends(refuses)]
    ) -> Number:
        raise AssertionError

    async with serving(server) as running, running.client(version=version) as client:
        with pytest.raises(FailureReply, match="ERR_REFUSED"):
            await client.call(Add(n=5))
        assert calls == ["open"]


async def test_wrong_fields_are_found_before_a_dependency_is_called() -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(number: Annotated[int, Depends(plain)], request: Add) -> Number:
        raise AssertionError

    async with serving(server) as running, running.client() as client:
        assert (await client.request({"op": "add"}))["error"] == "ERR_INVALID"
        assert calls == []


def paged(request: Add) -> int:
    return 10 * request.n


async def test_a_dependency_may_take_a_model_and_be_a_class_or_an_object() -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(
        paging: Annotated[Paging, Depends(Paging)],
        tens: Annotated[int, Depends(paged)],
        part: Annotated[int, Depends(functools.partial(max, 3, 2))],
    ) -> dict[str, int]:
        return {"page": paging.page, "size": paging.size, "tens": tens, "part": part}

    async with serving(server) as running, running.client() as client:
        answer = await client.request({"op": "add", "n": 4, "page": 2})
        assert answer == {"page": 2, "size": 10, "tens": 40, "part": 3}
        assert (await client.request({"op": "add"}))["error"] == "ERR_INVALID"


async def test_a_stream_has_its_dependencies_until_its_end() -> None:
    server = Server(port=0)

    @server.operation(Count)
    async def count(request: Count, seen: Annotated[list[Any], Depends(listed)]) -> AsyncIterator[Number]:
        for number in range(request.n):
            seen.append(number)
            yield Number(n=number)

    async with serving(server) as running, running.client(version=23) as client:
        assert [number.n async for number in client.stream_call(Count(n=2))] == [0, 1]
        assert calls == ["open", 0, 1, "close"]


@VERSIONS
async def test_a_cancelled_request_cleans_up(version: Version, autojump_clock: trio.testing.MockClock) -> None:
    server = Server(port=0, handler_timeout=1)
    ended = trio.Event()

    async def held() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.set()

    async def wait(number: Any) -> Number:
        await trio.sleep_forever()
        raise AssertionError

    wait.__annotations__ = {"number": Annotated[int, Depends(held)], "return": Number}
    server.operation("wait")(wait)
    async with serving(server) as running, running.client(version=version) as client:
        assert (await client.request({"op": "wait"}))["error"] == "ERR_HANDLER_FAILED"
        await ended.wait()


@VERSIONS
async def test_a_dependency_is_replaced_while_the_server_serves(version: Version) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(asynchronous)]) -> Number:
        return Number(n=request.n + number)

    def other(packet: Packet) -> int:
        return 100 * len(packet)

    async def third(number: Annotated[int, Depends(plain)]) -> AsyncIterator[int]:
        yield 1000 * number

    async with serving(server) as running, running.client(version=version) as client:
        assert (await client.call(Add(n=5))).n == 7
        with server.override(asynchronous, other):
            assert (await client.call(Add(n=5))).n == 205
            with server.override(asynchronous, third):
                assert (await client.call(Add(n=5))).n == 1005
                with server.override(plain, lambda: 2):
                    assert (await client.call(Add(n=5))).n == 2005
            assert (await client.call(Add(n=5))).n == 205
        assert (await client.call(Add(n=5))).n == 7
        assert server.overrides == {}


async def test_a_replacement_that_cannot_be_called_is_named(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    @server.operation(Add)
    async def add(request: Add, number: Annotated[int, Depends(plain)]) -> Number:
        return Number(n=request.n + number)

    def wrong(unknown: int) -> int:
        return unknown

    async with serving(server) as running, running.client() as client:
        with server.override(plain, wrong), pytest.raises(HandlerFailed):
            await client.call(Add(n=5))
        assert (await client.call(Add(n=5))).n == 6
    assert "the parameter 'unknown' of the dependency 'wrong'" in caplog.text
    with pytest.raises(TypeError, match="override takes two functions; got 7"):
        server.override(plain, 7)  # type: ignore[arg-type]


async def test_replacements_are_removed_in_any_order() -> None:
    server = Server(port=0)
    first, second = server.override(plain, paged), server.override(plain, refuses)
    assert server.overrides == {plain: refuses}
    first.remove()
    assert server.overrides == {plain: refuses}
    second.remove()
    second.remove()
    assert server.overrides == {}


async def test_requests_in_flight_have_dependencies_of_their_own(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(port=0)
    open_now: set[int] = set()
    most: list[int] = []

    async def slot(packet: Packet) -> AsyncIterator[int]:
        assert packet["n"] not in open_now
        open_now.add(packet["n"])
        yield packet["n"]
        open_now.remove(packet["n"])

    async def add(number: Any) -> Number:
        await trio.sleep(1)
        most.append(len(open_now))
        return Number(n=number)

    add.__annotations__ = {"number": Annotated[int, Depends(slot)], "return": Number}
    server.operation("add")(add)
    async with serving(server) as running, running.client(version=23) as client, trio.open_nursery() as nursery:

        async def ask(n: int) -> None:
            assert await client.request({"op": "add", "n": n}) == {"n": n}

        for n in range(20):
            nursery.start_soon(ask, n)
    assert open_now == set()
    assert max(most) == 20
