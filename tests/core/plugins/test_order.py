"""The order of hooks: tryfirst, trylast, and several implementations of a hook in one plugin."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from asyncapy_core import Filter, PluginManager, Server, hookimpl
from asyncapy_core.errors import PluginCollision, PluginError


class Notes:
    """A plugin that notes its calls, with the options of `hookimpl` for each of its functions."""

    def __init__(self, name: str, calls: list[str], setup: dict[str, Any], shutdown: dict[str, Any]) -> None:
        self.asyncapy_setup = hookimpl(**setup)(lambda: calls.append(f"setup {name}"))
        self.asyncapy_shutdown = hookimpl(**shutdown)(lambda: calls.append(f"shutdown {name}"))


FIRST, LAST = {"tryfirst": True}, {"trylast": True}


@pytest.mark.parametrize(
    ("setups", "shutdowns", "calls"),
    [
        ("", "", "setup a,setup b,setup c,setup d,shutdown d,shutdown c,shutdown b,shutdown a"),
        ("c first", "", "setup c,setup a,setup b,setup d,shutdown d,shutdown b,shutdown a,shutdown c"),
        ("a last", "", "setup b,setup c,setup d,setup a,shutdown a,shutdown d,shutdown c,shutdown b"),
        ("", "a first", "setup a,setup b,setup c,setup d,shutdown a,shutdown d,shutdown c,shutdown b"),
        ("", "d last", "setup a,setup b,setup c,setup d,shutdown c,shutdown b,shutdown a,shutdown d"),
        ("d first,b last", "b last", "setup d,setup a,setup c,setup b,shutdown c,shutdown a,shutdown d,shutdown b"),
        ("b first,c first", "", "setup b,setup c,setup a,setup d,shutdown d,shutdown a,shutdown c,shutdown b"),
    ],
)
async def test_setup_and_shutdown_are_called_in_the_order_that_plugins_ask_for(
    setups: str, shutdowns: str, calls: str
) -> None:
    def marks(text: str) -> dict[str, dict[str, Any]]:
        pairs = [pair.split() for pair in text.split(",") if pair]
        return {name: FIRST if where == "first" else LAST for name, where in pairs}

    called: list[str] = []
    made = PluginManager(discover=False)
    for name in "abcd":
        made.register(Notes(name, called, marks(setups).get(name, {}), marks(shutdowns).get(name, {})), name)
    server = Server(plugins=made)
    await server.hooks.setup(trio.CancelScope())
    assert await server.hooks.shutdown() == []
    assert called == calls.split(",")


class Codec:
    def __init__(self, name: str, wire_id: int) -> None:
        self.name = name
        self.wire_id = wire_id

    def encode(self, fields: Any) -> bytes:
        return b"..."

    def decode(self, payload: bytes) -> dict[str, Any]:
        return {}


class Two:
    """A plugin with two implementations of each hook."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    @hookimpl
    def asyncapy_codecs(self) -> list[Codec]:
        return [Codec("one", 11)]

    @hookimpl(specname="asyncapy_codecs", tryfirst=True)
    def more_codecs(self) -> list[Codec]:
        return [Codec("two", 12)]

    @hookimpl
    def asyncapy_filters(self) -> dict[str, type[Filter]]:
        return {"One": Filter}

    @hookimpl(specname="asyncapy_filters")
    def more_filters(self) -> dict[str, type[Filter]]:
        return {"Two": Filter}

    @hookimpl
    async def asyncapy_setup(self) -> None:
        self._calls.append("setup 1")

    @hookimpl(specname="asyncapy_setup", trylast=True)
    def then(self) -> None:
        self._calls.append("setup 2")

    @hookimpl
    def asyncapy_shutdown(self) -> None:
        self._calls.append("shutdown 1")
        raise ValueError("a slip")

    @hookimpl(specname="asyncapy_shutdown")
    async def finally_(self) -> None:
        self._calls.append("shutdown 2")
        raise ValueError("another")


async def test_all_implementations_of_a_hook_in_one_plugin_are_called() -> None:
    calls: list[str] = []
    made = PluginManager(discover=False)
    made.register(Two(calls), "a")
    made.register(Notes("b", calls, {}, {}), "b")
    assert [codec.name for codec in made.codecs()] == ["two", "one"]
    assert list(made.filters) == ["One", "Two"]
    server = Server(plugins=made)
    await server.hooks.setup(trio.CancelScope())
    assert [str(failure) for failure in await server.hooks.shutdown()] == ["another", "a slip"]
    assert calls == ["setup 1", "setup b", "setup 2", "shutdown 2", "shutdown 1", "shutdown b"]


async def test_a_plugin_one_of_whose_setups_fails_is_not_shut_down() -> None:
    class Failing(Two):
        @hookimpl(specname="asyncapy_setup", trylast=True)
        def then(self) -> None:
            raise ValueError("a slip")

    calls: list[str] = []
    made = PluginManager(discover=False)
    made.register(Failing(calls), "a")
    made.register(Notes("b", calls, {}, {}), "b")
    server = Server(plugins=made, plugins_require=["a"])
    with pytest.raises(PluginError, match=r"plugin 'a' of .* failed in setup: ValueError: a slip"):
        await server.hooks.setup(trio.CancelScope())
    assert await server.hooks.shutdown() == []
    assert calls == ["setup 1", "setup b", "shutdown b"]


def test_two_implementations_that_bring_the_same_name_get_neither_and_say_so() -> None:
    class Same(Two):
        @hookimpl(specname="asyncapy_filters")
        def more_filters(self) -> dict[str, type[Filter]]:
            return {"One": Filter}

    made = PluginManager(discover=False)
    made.register(Same([]), "a")
    with pytest.raises(PluginCollision, match="filter 'One' is claimed twice by plugin 'a'"):
        made.filters["One"]


def test_a_plugin_one_of_whose_implementations_fails_brings_nothing() -> None:
    class Failing(Two):
        @hookimpl
        def asyncapy_codecs(self) -> list[Codec]:
            raise ValueError("a slip")

    made = PluginManager(discover=False)
    made.register(Failing([]), "a")
    assert made.codecs() == []
    assert [record.state for record in made.plugins] == ["quarantined"]
