"""Exceptions of all kinds in each hook: the plugin is named, and clients of both versions are served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import trio
from hooks import Plugin, manager
from trio.testing import MockClock, wait_all_tasks_blocked

from asyncapy import Client, Packet, Server
from asyncapy_core.testing import serving


class Evil(Exception):
    """An exception, each method of which raises another one."""

    def __str__(self) -> str:
        raise RuntimeError("a slip")

    def __repr__(self) -> str:
        raise RuntimeError("a slip")

    @property  # type: ignore[misc]  # isinstance reads it
    def __class__(self) -> Any:
        raise RuntimeError("a slip")


KINDS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: ValueError("a slip"),
    "methods that raise": Evil,
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "group": lambda: BaseExceptionGroup("several", [Evil(), KeyboardInterrupt()]),
    "text that is huge": lambda: ExceptionGroup("several", [ValueError("\x1b[2J\u2028" * 1000)]),
    "Cancelled": lambda: trio.Cancelled._create(source="explicit"),
    "RecursionError": RecursionError,
    "StopIteration": StopIteration,
}


def failure(kind: str) -> BaseException:
    return KINDS[kind]()


def plain(kind: str) -> Callable[[], Any]:
    def fail() -> Any:
        raise failure(kind)

    return fail


def later(kind: str) -> Callable[[], Any]:
    async def fail() -> Any:
        await trio.lowlevel.checkpoint()
        raise failure(kind)

    return fail


def entering(kind: str) -> Callable[[], Any]:
    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        raise failure(kind)
        yield

    return fail


def leaving(kind: str) -> Callable[[], Any]:
    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        yield
        raise failure(kind)

    return fail


PLACES: dict[str, tuple[str, Callable[[str], Callable[[], Any]]]] = {
    "setup": ("asyncapy_setup", plain),
    "async setup": ("asyncapy_setup", later),
    "wrap": ("asyncapy_wrap", plain),
    "session": ("asyncapy_session", plain),
    "entering a session": ("asyncapy_session", entering),
    "leaving a session": ("asyncapy_session", leaving),
    "run": ("asyncapy_run", later),
    "drain": ("asyncapy_drain", plain),
    "async drain": ("asyncapy_drain", later),
    "shutdown": ("asyncapy_shutdown", plain),
    "async shutdown": ("asyncapy_shutdown", later),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
async def test_a_plugin_that_raises_is_named_and_clients_are_served(
    autojump_clock: MockClock, place: str, kind: str
) -> None:
    hook, failing = PLACES[place]
    server = Server(plugins=manager(bad=Plugin(**{hook: failing(kind)})))

    @server.add_handler()
    async def echo(client: Client, packet: Packet) -> Packet:
        return packet

    async with serving(server) as running:
        versions: tuple[Literal[22, 23], ...] = (22, 23)
        for version in versions:
            if place == "entering a session":
                async with await running.connect() as stream:
                    assert await stream.receive_some() == b""
            else:
                async with running.client(version=version) as client:
                    assert await client.request({"a": 1}) == {"a": 1}
        await wait_all_tasks_blocked()
        assert server.statistics().connections == 0
        assert server.sessions == []
        await running.stop()
    assert [line for line in running.log if "[ERROR]" in line and "plugin 'bad' of (registered)" in line]
    assert all(character.isprintable() for line in running.log for character in line)
