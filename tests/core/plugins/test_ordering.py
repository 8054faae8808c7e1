"""Plugins that name others: `asyncapy_after` and `asyncapy_requires`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import trio
from core.plugins.conftest import Site
from hooks import Plugin

from asyncapy_core import PluginManager, Server, hookimpl
from asyncapy_core.errors import PluginError


def noting(calls: list[str], name: str, attributes: dict[str, Any], **options: Any) -> Plugin:
    plugin = Plugin(attributes, asyncapy_shutdown=lambda: calls.append(f"-{name}"))
    vars(plugin)["asyncapy_setup"] = hookimpl(**options)(lambda: calls.append(name))
    return plugin


async def order_of(*plugins: tuple[str, dict[str, Any], dict[str, Any]]) -> list[str]:
    """Return the calls of the setups and shutdowns of these plugins: names, attributes and options of their setups."""
    calls: list[str] = []
    manager = PluginManager(discover=False)
    for name, attributes, options in plugins:
        manager.register(noting(calls, name, attributes, **options), name)
    server = Server(plugins=manager)
    await server.hooks.setup(trio.CancelScope())
    assert await server.hooks.shutdown() == []
    return calls


@pytest.mark.parametrize("attribute", ["asyncapy_after", "asyncapy_requires"])
async def test_a_plugin_is_called_after_those_that_it_names_and_shut_down_before_them(attribute: str) -> None:
    manager = PluginManager(discover=False)
    calls: list[str] = []
    manager.register(noting(calls, "c", {}), "c")
    manager.register(noting(calls, "b", {attribute: ["c"]}), "b")
    manager.register(noting(calls, "a", {attribute: ("c", "b")}), "a")
    server = Server(plugins=manager)
    await server.hooks.setup(trio.CancelScope())
    await server.hooks.shutdown()
    assert calls == ["c", "b", "a", "-a", "-b", "-c"]


async def test_the_order_does_not_depend_on_the_order_of_registration() -> None:
    plugins: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("a", {"asyncapy_after": ("c",)}, {}),
        ("b", {"asyncapy_after": ("a",)}, {}),
        ("c", {}, {}),
    ]
    for arrangement in itertools.permutations(plugins):
        calls = await order_of(*arrangement)
        assert calls == ["c", "a", "b", "-b", "-a", "-c"]


async def test_names_of_plugins_go_before_tryfirst_and_trylast() -> None:
    calls = await order_of(
        ("last", {}, {"trylast": True}),
        ("plain", {}, {}),
        ("first", {"asyncapy_after": ("last",)}, {"tryfirst": True}),
        ("other", {}, {"tryfirst": True}),
    )
    assert calls[:4] == ["other", "plain", "last", "first"]


async def test_a_plugin_that_is_not_there_need_not_be_waited_for() -> None:
    assert await order_of(("a", {"asyncapy_after": ("gone",)}, {}), ("b", {}, {})) == ["a", "b", "-b", "-a"]


@pytest.mark.parametrize("names", ["metrics", 7, [7], ("no name",), {"metrics"}])
def test_an_attribute_with_other_values_than_names_is_an_error(names: object) -> None:
    with pytest.raises(PluginError, match=r"asyncapy_after is .*; write a tuple of names of plugins"):
        PluginManager(discover=False).register(Plugin({"asyncapy_after": names}), "a")


def test_a_plugin_cannot_be_registered_before_one_that_it_requires() -> None:
    manager = PluginManager(discover=False)
    plugin = Plugin({"asyncapy_requires": ("b",)})
    with pytest.raises(PluginError, match=r"plugin 'a' .*it requires plugin 'b', which is not installed"):
        manager.register(plugin, "a")
    manager.register(Plugin(), "b")
    manager.register(plugin, "a")
    assert [record.name for record in manager.loaded] == ["b", "a"]


def test_a_plugin_cannot_be_registered_if_it_names_itself() -> None:
    with pytest.raises(PluginError, match=r"make a circle: a after a; remove one of these names"):
        PluginManager(discover=False).register(Plugin({"asyncapy_after": ("a",)}), "a")


FILTER = "\n@hookimpl\ndef asyncapy_filters():\n    return {NAME: Filter}\n"


def install(site: Site, name: str, source: str = "") -> None:
    site.install(name, source + FILTER.replace("NAME", repr(name.title())))


def states(site: Site, **environ: str) -> dict[str, list[str]]:
    """Return the state of each plugin, and the reason."""
    program = (
        "import json; from asyncapy_core.plugins import default_manager; print(json.dumps({each.name: [each.state, "
        "each.reason] for each in default_manager().plugins if each.distribution != 'asyncapy-core'}))"
    )
    done = site.run("-c", program, **environ)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return {name: state for name, state in found.items() if len(name) == 3}


def test_an_installed_plugin_is_not_used_without_one_that_it_requires(site: Site) -> None:
    install(site, "aaa", "asyncapy_requires = ('bbb',)")
    install(site, "ccc", "asyncapy_requires = ('aaa',)")
    install(site, "ddd")
    found = states(site)
    assert found["aaa"] == ["quarantined", "it requires plugin 'bbb', which is not installed"]
    assert found["ccc"][0] == "quarantined"
    assert found["ccc"][1].startswith("it requires plugin 'aaa' of aaa 1.0, which is quarantined: it requires plugin")
    assert found["ddd"] == ["loaded", ""]
    install(site, "bbb")
    assert {state for state, _ in states(site).values()} == {"loaded"}


def test_a_plugin_that_requires_a_broken_one_is_not_used(site: Site) -> None:
    install(site, "aaa", "asyncapy_requires = ('bbb',)")
    install(site, "bbb", "raise ValueError('a slip')")
    found = states(site)
    assert found["aaa"][0] == found["bbb"][0] == "quarantined"
    assert found["aaa"][1].startswith("it requires plugin 'bbb' of bbb 1.0, which is quarantined: import failed with")


def test_a_plugin_that_requires_a_denied_one_is_denied_too(site: Site) -> None:
    install(site, "aaa", "asyncapy_requires = ('bbb',)")
    install(site, "bbb")
    install(site, "ccc", "asyncapy_after = ('bbb',)")
    found = states(site, ASYNCAPY_PLUGINS_DENY="bbb")
    assert found["aaa"][0] == found["bbb"][0] == "denied"
    assert found["ccc"][0] == "loaded"


def test_plugins_that_name_each_other_are_not_used(site: Site) -> None:
    install(site, "aaa", "asyncapy_after = ('ccc',)")
    install(site, "bbb", "asyncapy_requires = ('aaa',)")
    install(site, "ccc", "asyncapy_after = ('bbb',)")
    install(site, "ddd", "asyncapy_after = ('aaa',)")
    found = states(site)
    assert [found[name][0] for name in ("aaa", "bbb", "ccc", "ddd")] == [*["quarantined"] * 3, "loaded"]
    assert "asyncapy_after and asyncapy_requires make a circle: " in found["aaa"][1]
    assert {*found["aaa"][1].replace(";", " ").split()} >= {"aaa", "bbb", "ccc"}


def test_doctor_checks_the_plugins_that_others_require(site: Site) -> None:
    install(site, "aaa", "asyncapy_requires = ('bbb',)")
    done = site.run("-m", "asyncapy_cli", "plugins", "doctor")
    assert done.returncode == 1
    assert "plugin 'aaa' of aaa 1.0 is quarantined: it requires plugin 'bbb', which is not installed" in done.stdout
    install(site, "bbb")
    assert site.run("-m", "asyncapy_cli", "plugins", "doctor").returncode == 0
