"""An exception of a handler whose class fights inspection is answered and logged like any other."""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

import pytest
import trio
from hostile_exceptions import KINDS
from trio.testing import MockClock

from asyncapy import Client, Packet, Server
from asyncapy.errors import Failure, HandlerFailed, NoHandlerFound
from asyncapy_core import Filter
from asyncapy_core.testing import serving

VERSIONS: Final[tuple[Literal[22, 23], ...]] = (22, 23)

LOGGED: Final = {
    "Failure": "Slip",
    "Failure without code": "AttributeError",
    "Failure with a wrong code": "TypeError",
    "Failure with a wrong field": "EncodeError",
}
"""The classes in the log lines, where it is not that of the exception itself."""


def name_of_leaf(error: BaseException) -> str:
    while issubclass(type(error), BaseExceptionGroup):
        error = BaseExceptionGroup.__dict__["exceptions"].__get__(error)[0]
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name if len(name) <= 64 else f"{name[:64]}..."


def failure(kind: str) -> BaseException:
    return KINDS[kind]()


def server_that_raises(kind: str, timeout: float | None = None) -> Server:
    """Return a server whose handler raises at once, after a wait, or when it is cancelled; so does a filter."""
    server = Server(handler_timeout=timeout)

    class Refusing(Filter):
        async def check(self, c: Any, p: Any) -> Any:
            if p.get("fail") == "filter":
                raise failure(kind)
            return True

    @server.add_handler(Refusing())
    async def fragile(client: Client, packet: Packet) -> Packet:
        match packet.get("fail"):
            case "at once":
                raise failure(kind)
            case "later":
                await trio.lowlevel.checkpoint()
                raise failure(kind)
            case "cancelled":
                try:
                    await trio.sleep_forever()
                finally:
                    raise failure(kind)
        return packet

    return server


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_answered_and_names_the_handler(autojump_clock: MockClock, kind: str, level: int) -> None:
    server = server_that_raises(kind)
    logged = LOGGED.get(kind) or name_of_leaf(failure(kind))
    async with serving(server) as running:
        server.log.setLevel(level)
        for version in VERSIONS:
            async with running.client(version=version, raise_failures=True) as client:
                for place in ("at once", "later"):
                    running.log.clear()
                    with pytest.raises(HandlerFailed):
                        await client.request({"fail": place})
                    lines = [line for line in running.log if "[ERROR]" in line]
                    if level == logging.DEBUG or (version, place) == (22, "at once"):  # otherwise a line a second
                        assert f"Handler 'fragile' failed for 127.0.0.1: {logged} (" in lines[0]
                    assert all(len(line) < 1500 and line.isprintable() for line in running.log)
                assert await client.request({"a": 1}) == {"a": 1}
        assert server.statistics().sessions_opened == len(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOGGED])
async def test_one_of_a_filter_does_not_let_the_packet_pass(
    autojump_clock: MockClock, kind: str, version: Literal[22, 23]
) -> None:
    server = server_that_raises(kind)
    async with serving(server) as running, running.client(version=version, raise_failures=True) as client:
        with pytest.raises(NoHandlerFound):
            await client.request({"fail": "filter"})
        assert await client.request({"a": 1}) == {"a": 1}
        assert [line for line in running.log if "[ERROR]" in line and "A filter of 'fragile' raised" in line]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_raises_it_at_its_time_limit_is_answered(
    autojump_clock: MockClock, kind: str, version: Literal[22, 23]
) -> None:
    server = server_that_raises(kind, timeout=5)
    async with serving(server) as running, running.client(version=version, raise_failures=True) as client:
        with pytest.raises(HandlerFailed):
            await client.request({"fail": "cancelled"})
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.statistics().sessions_opened == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_raises_it_when_its_client_has_cancelled_costs_no_session(
    autojump_clock: MockClock, kind: str
) -> None:
    server = server_that_raises(kind)
    async with serving(server) as running, running.client(version=23) as client:
        with trio.move_on_after(1):
            await client.request({"fail": "cancelled"})
        assert await client.request({"a": 1}) == {"a": 1}
        assert server.statistics().sessions_opened == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOGGED])
async def test_a_function_of_on_error_that_raises_it_is_logged(
    autojump_clock: MockClock, kind: str, version: Literal[22, 23]
) -> None:
    server = server_that_raises("Exception")

    @server.on_error(LookupError)
    async def other(client: Client, packet: Packet, error: Exception) -> None:
        raise AssertionError("not for this exception")

    @server.on_error(ValueError)
    async def worse(client: Client, packet: Packet, error: Exception) -> None:
        raise failure(kind)

    async with serving(server) as running, running.client(version=version, raise_failures=True) as client:
        with pytest.raises(HandlerFailed):
            await client.request({"fail": "at once"})
        assert await client.request({"a": 1}) == {"a": 1}
        assert [line for line in running.log if "[ERROR]" in line and name_of_leaf(failure(kind)) in line]


async def test_a_function_of_on_error_is_found_by_the_real_class(autojump_clock: MockClock) -> None:
    for kind in ("all that raise", "metaclass", "class of another"):
        server = server_that_raises(kind)

        @server.on_error(ValueError)
        def teapot(client: Client, packet: Packet, error: ValueError) -> Failure:
            return Failure("ERR_TEAPOT")

        async with serving(server) as running, running.client() as client:
            assert (await client.request({"fail": "at once"}))["error"] == "ERR_TEAPOT"
