"""Hooks that plugins bring for others: `asyncapy_hookspecs`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from core.plugins.conftest import Site
from hooks import Plugin
from pydantic import BaseModel

from asyncapy_core import PluginManager, Server, hookimpl, hookspec
from asyncapy_core.errors import PluginError
from asyncapy_core.testing.memory import LogLines


class Specifications:
    """The hooks of the plugin ``metrics``."""

    @hookspec
    def metrics_labels(self, server: Server, handler: str, options: Any) -> dict[str, str] | None:
        """Return labels for a handler."""

    @hookspec(firstresult=True)
    def metrics_name(self, handler: str) -> str | None:
        """Return the name of a handler."""


class Options(BaseModel):
    label: str = "default"


def manager(**plugins: object) -> PluginManager:
    """Return a manager with the plugin ``metrics``, which brings hooks, and these plugins."""
    made = PluginManager(discover=False)
    made.register(Plugin(asyncapy_hookspecs=lambda: Specifications), "metrics")
    for name, plugin in plugins.items():
        made.register(plugin, name)
    return made


def logged(server: Server) -> list[str]:
    lines: list[str] = []
    server.log.handlers.clear()
    server.log.addFilter(LogLines(lines))
    return lines


async def test_the_hook_asyncapy_hookspecs_brings_hooks_that_other_plugins_implement() -> None:
    def labels(server: Server, options: Options) -> dict[str, str]:
        return {"label": options.label, "server": type(server).__name__}

    async def later(handler: str) -> dict[str, str]:
        return {"handler": handler}

    plugins = manager(
        a=Plugin({"asyncapy_options": Options}, metrics_labels=labels),
        b=Plugin(metrics_labels=lambda: None),
        c=Plugin(metrics_labels=later, metrics_name=lambda handler: handler.upper()),
        d=Plugin(metrics_name=lambda: "never"),
    )
    server = Server(plugins=plugins, plugin_options={"a": {"label": "mine"}})
    assert await server.hooks.acall("metrics_labels", handler="echo") == [
        {"label": "mine", "server": "Server"},
        {"handler": "echo"},
    ]
    assert server.hooks.call("metrics_name", handler="echo") == ["ECHO"]
    assert await server.hooks.acall("metrics_name", handler="echo") == ["ECHO"]
    functions = server.hooks.functions("metrics_name")
    assert [function.title for function in functions] == ["plugin 'c' of (registered)", "plugin 'd' of (registered)"]
    assert repr(functions[0]) == "<BoundHook metrics_name of plugin 'c' of (registered)>"


@pytest.mark.parametrize(
    ("hook", "arguments", "error", "reason"),
    [
        ("metrics_nam", {}, PluginError, "no plugin has brought a hook 'metrics_nam'"),
        ("asyncapy_setup", {}, PluginError, "no plugin has brought a hook 'asyncapy_setup'"),
        ("metrics_name", {}, TypeError, "has the arguments handler; got none"),
        ("metrics_name", {"handlr": "a"}, TypeError, "has the arguments handler; got handlr"),
        ("metrics_name", {"handler": "a", "more": 1}, TypeError, "has the arguments handler; got handler, more"),
    ],
)
async def test_a_wrong_call_is_an_error(
    hook: str, arguments: dict[str, Any], error: type[Exception], reason: str
) -> None:
    server = Server(plugins=manager())
    with pytest.raises(error, match=reason):
        server.hooks.call(hook, **arguments)
    with pytest.raises(error, match=reason):
        await server.hooks.acall(hook, **arguments)


def fails() -> None:
    raise ValueError("a slip")


async def later() -> None: ...


@pytest.mark.parametrize(
    ("function", "reason"), [(fails, "a slip"), (later, "this hook cannot be async; write 'def' instead of")]
)
async def test_a_plugin_that_fails_is_named_and_the_others_are_called(
    function: Callable[..., Any], reason: str
) -> None:
    server = Server(plugins=manager(a=Plugin(metrics_labels=function), b=Plugin(metrics_labels=lambda: {"b": "b"})))
    lines = logged(server)
    assert server.hooks.call("metrics_labels", handler="echo") == [{"b": "b"}]
    (line,) = [line for line in lines if "plugin 'a' of (registered) in metrics_labels failed" in line]
    assert reason in line


async def test_an_async_plugin_that_fails_is_named_and_the_others_are_called() -> None:
    async def failing() -> None:
        fails()

    server = Server(plugins=manager(a=Plugin(metrics_labels=failing), b=Plugin(metrics_labels=lambda: {"b": "b"})))
    lines = logged(server)
    assert await server.hooks.acall("metrics_labels", handler="echo") == [{"b": "b"}]
    assert [line for line in lines if "plugin 'a' of (registered) in metrics_labels failed" in line]


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Plugin(metrics_lables=lambda: None), r"did you mean metrics_labels\?"),
        (Plugin(metrics_labels=lambda handlre: None), "metrics_labels"),
        (
            Plugin(other_hook=lambda: None),
            r"if a plugin that may be missing brings it, mark it with hookimpl\(optional",
        ),
    ],
)
def test_a_wrong_implementation_is_an_error(plugin: Plugin, reason: str) -> None:
    with pytest.raises(PluginError, match=reason):
        manager(wrong=plugin)


def test_a_hook_of_a_plugin_that_is_missing_may_be_optional() -> None:
    plugin = Plugin()
    vars(plugin)["other_hook"] = hookimpl(optionalhook=True)(lambda: None)
    assert [record.name for record in manager(a=plugin).loaded] == ["metrics", "a"]


class Historic:
    @hookspec(historic=True)
    def metrics_begin(self) -> None: ...


class Ours:
    @hookspec
    def asyncapy_mine(self) -> None: ...


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (lambda: None, "expected a module or an object with functions marked with hookspec, got None"),
        (lambda: SimpleNamespace(metrics=7), "expected a module or an object with functions marked with hookspec"),
        (fails, "ValueError: a slip"),
        (later, "this hook cannot be async"),
        (lambda: Historic, "metrics_begin is historic, which is not supported"),
        (lambda: Ours, "asyncapy_mine cannot be the name of a hook of a plugin"),
    ],
)
def test_wrong_specifications_are_an_error(found: Any, reason: str) -> None:
    made = PluginManager(discover=False)
    with pytest.raises(PluginError, match=r"plugin 'wrong' of \(registered\): asyncapy_hookspecs raised .*") as caught:
        made.register(Plugin(asyncapy_hookspecs=found), "wrong")
    assert reason in str(caught.value)
    assert made.plugins == ()


def test_a_hook_of_two_plugins_is_an_error_for_the_second() -> None:
    made = manager()
    with pytest.raises(
        PluginError, match=r"the hook 'metrics_labels' is brought by plugin 'metrics' .* and plugin 'b'"
    ):
        made.register(Plugin(asyncapy_hookspecs=lambda: Specifications), "b")
    assert made.specification("metrics_labels") is not None


BRINGS = """
from asyncapy_core import hookspec

class Specifications:
    @hookspec
    def NAME_labels(self, handler): ...

@hookimpl
def asyncapy_hookspecs():
    return Specifications
"""

USES = """
asyncapy_requires = ("zzz",)

@hookimpl
def zzz_labels(handler):
    return handler.upper()
"""


def test_an_installed_plugin_implements_the_hooks_of_a_later_one(site: Site) -> None:
    site.install("aaa", USES)
    site.install("zzz", BRINGS.replace("NAME", "zzz"))
    program = "from asyncapy_core import Server; print(Server().hooks.call('zzz_labels', handler='echo'))"
    assert site.run("-c", program).stdout == "['ECHO']\n"


def test_installed_plugins_that_bring_one_hook_are_both_left_out(site: Site) -> None:
    for name in ("bbb", "zzz"):
        site.install(name, BRINGS.replace("NAME", "zzz"))
    site.install("aaa", USES)
    done = site.run("-m", "asyncapy_cli", "plugins", "doctor")
    assert "plugin 'bbb' of bbb 1.0 is quarantined: the hook 'zzz_labels' is brought by plugin 'bbb'" in done.stdout
    assert "plugin 'zzz' of zzz 1.0 is quarantined: the hook 'zzz_labels' is brought by plugin 'bbb'" in done.stdout
    assert "plugin 'aaa' of aaa 1.0 is quarantined: " in done.stdout
