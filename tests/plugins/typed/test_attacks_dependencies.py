"""Dependencies of unusual shapes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import pytest

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
