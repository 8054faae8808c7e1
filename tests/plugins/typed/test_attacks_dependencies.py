"""Dependencies of unusual shapes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import pytest
import trio

from asyncapy import Client, Server
from asyncapy.typed import Depends
from asyncapy_core.testing import serving

VERSIONS = pytest.mark.parametrize("version", [22, 23])
calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@contextlib.contextmanager
def opened() -> Iterator[str]:
    calls.append("open")
    try:
        yield "plain"
    finally:
        calls.append("close")


@contextlib.asynccontextmanager
async def opened_async(client: Client) -> AsyncIterator[str]:
    calls.append("open async")
    try:
        yield client.address
    finally:
        calls.append("close async")


def passing_on(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return call


@passing_on
async def wrapped(client: Client) -> AsyncIterator[str]:
    yield "wrapped"
    calls.append("close wrapped")


@VERSIONS
async def test_a_context_manager_of_contextlib_is_entered_and_left(version: Literal[22, 23]) -> None:
    server = Server(port=0)

    @server.operation("names")
    async def names(
        first: Annotated[str, Depends(opened)],
        second: Annotated[str, Depends(opened_async)],
        third: Annotated[str, Depends(wrapped)],
    ) -> dict[str, Any]:
        calls.append("handle")
        return {"names": [first, second, third]}

    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "names"}) == {"names": ["plain", "127.0.0.1", "wrapped"]}
        await client.request({"op": "none"})
        assert calls == ["open", "open async", "handle", "close wrapped", "close async", "close"]


@dataclasses.dataclass
class Scaled:
    """An object that is no key of a dictionary, as it can be compared and changed."""

    factor: int

    def __call__(self) -> int:
        calls.append("scale")
        return self.factor


async def test_an_object_that_cannot_be_hashed_is_a_dependency() -> None:
    server = Server(port=0)
    scaled = Scaled(3)

    async def scale(one: Any, same: Any, equal: Any) -> dict[str, int]:
        return {"sum": one + same + equal}

    scale.__annotations__ = {
        "one": Annotated[int, Depends(scaled)],
        "same": Annotated[int, Depends(scaled)],
        "equal": Annotated[int, Depends(Scaled(3))],
        "return": dict[str, int],
    }
    server.operation("scale")(scale)
    async with serving(server) as running, running.client() as client:
        assert await client.request({"op": "scale"}) == {"sum": 9}
        assert calls == ["scale", "scale"]


async def number() -> int:
    return 7


async def test_a_plain_function_that_returns_a_coroutine_is_a_mistake(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(port=0)

    def returns_coroutine() -> Any:
        return number()

    async def plain(n: Any) -> dict[str, Any]:
        return {"n": n}

    async def mixed(n: Any, m: Any) -> dict[str, Any]:
        return {"n": n + m}

    plain.__annotations__ = {"n": Annotated[int, Depends(returns_coroutine)], "return": dict[str, Any]}
    mixed.__annotations__ = {**plain.__annotations__, "m": Annotated[int, Depends(number)]}
    server.operation("plain")(plain)
    server.operation("mixed")(mixed)
    async with serving(server) as running, running.client() as client:
        for operation in ("plain", "mixed"):
            assert (await client.request({"op": operation}))["error"] == "ERR_HANDLER_FAILED"
    assert caplog.text.count("'returns_coroutine' returned a coroutine: make it 'async def'") == 2


class Registry:
    """An object whose method is a dependency."""

    def number(self) -> int:
        return 1


numbers = Registry()


async def test_a_replacement_is_looked_at_once_and_not_for_each_packet() -> None:
    server = Server(port=0)

    class Replaced:
        """A dependency whose signature is read each time that a plan is made."""

        read = 0

        @property
        def __signature__(self) -> inspect.Signature:
            Replaced.read += 1
            return inspect.Signature()

        def __call__(self) -> int:
            return 2

    @server.operation("number")
    async def get_number(n: Annotated[int, Depends(numbers.number)]) -> dict[str, int]:
        return {"n": n}

    async with serving(server) as running, running.client() as client:
        with server.override(numbers.number, Replaced()):
            assert await client.request({"op": "number"}) == {"n": 2}
            reads = Replaced.read
            for _ in range(5):
                assert await client.request({"op": "number"}) == {"n": 2}
            assert Replaced.read == reads
        assert await client.request({"op": "number"}) == {"n": 1}


@pytest.fixture
def _threads_take_turns() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_take_turns")
def test_replacements_are_changed_by_several_threads() -> None:
    server = Server(port=0)
    functions = [functools.partial(int, number) for number in range(50)]

    def change() -> None:
        for function in functions:
            with server.override(function, int):
                assert server.overrides[function] is int

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(change) for _ in range(40)]:
            done.result()
    assert server.overrides == {}


def test_an_object_that_cannot_be_hashed_cannot_be_replaced() -> None:
    with pytest.raises(TypeError, match=r"that can be hashed; got Scaled\(factor=3\): add a __hash__"):
        Server(port=0).override(Scaled(3), int)


@VERSIONS
@pytest.mark.parametrize("waits", [False, True])
async def test_the_clean_up_is_not_cancelled_if_the_client_leaves_with_its_answer(
    version: Literal[22, 23], waits: bool
) -> None:
    server, ended = Server(port=0, cancel_on_disconnect=True), trio.Event()
    seen: list[str] = []

    async def cleaned(client: Client) -> AsyncIterator[int]:
        if waits:
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:  # a scope that is open across the yield
            nursery.start_soon(trio.sleep_forever)
            yield 7
            try:
                await client.gone.wait()
                await trio.testing.wait_all_tasks_blocked()
                seen.append("done")
            finally:
                nursery.cancel_scope.cancel()
                ended.set()

    async def get_number(n: Any) -> dict[str, int]:
        return {"n": n}

    get_number.__annotations__ = {"n": Annotated[int, Depends(cleaned)], "return": dict[str, int]}
    server.operation("number")(get_number)
    async with serving(server) as running:
        async with running.client(version=version) as client:
            assert await client.request({"op": "number"}) == {"n": 7}
        with trio.fail_after(5):
            await ended.wait()
        assert seen == ["done"]


@VERSIONS
async def test_the_clean_up_has_a_time_limit(
    version: Literal[22, 23], autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, ended = Server(port=0, handler_timeout=3), trio.Event()
    times: list[float] = []

    async def hangs() -> AsyncIterator[int]:
        yield 7
        times.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            times.append(trio.current_time())
            ended.set()

    async def get_number(n: Any) -> dict[str, int]:
        return {"n": n}

    get_number.__annotations__ = {"n": Annotated[int, Depends(hangs)], "return": dict[str, int]}
    server.operation("number")(get_number)
    async with serving(server) as running, running.client(version=version) as client:
        assert await client.request({"op": "number"}) == {"n": 7}
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert times[1] - times[0] == pytest.approx(3)
    assert "the clean-up was cut off (handler_timeout)" in caplog.text
