from __future__ import annotations

import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel, SecretStr

from asyncapy_core import Filter, Filters, MemoryKeyStore, PluginManager, Server, hookimpl
from asyncapy_core.errors import ConfigError, PluginCollision, PluginError, UnknownFilter
from asyncapy_core.plugins import PluginRecord, default_manager
from asyncapy_core.plugins.manager import _default_manager
from asyncapy_core.plugins.restriction import Restriction

Install = Callable[..., None]


class Tiny:
    """A codec with a constant payload."""

    def __init__(self, name: str, wire_id: int) -> None:
        self.name = name
        self.wire_id = wire_id

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        return b"..."

    def decode(self, payload: bytes) -> dict[str, Any]:
        return {}


class Yes(Filter):
    def check(self, c: Any, p: Any) -> bool:
        return True


class No(Filter):
    def check(self, c: Any, p: Any) -> bool:
        return False


class Plugin:
    """A plugin with these functions as hooks."""

    asyncapy_options: type[BaseModel]

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        vars(self).update({name: hookimpl(function) for name, function in hooks.items()})


@hookimpl(wrapper=True)
def wrapper() -> Any:
    yield


def manager(**plugins: object) -> PluginManager:
    """A manager with these plugins only."""
    made = PluginManager(discover=False)
    for name, each in plugins.items():
        made.register(each, name)
    return made


def codecs(*made: Tiny) -> Plugin:
    return Plugin(asyncapy_codecs=lambda: list(made))


def filters(**classes: Any) -> Plugin:
    return Plugin(asyncapy_filters=lambda: classes)


def stores(**openers: Any) -> Plugin:
    return Plugin(asyncapy_key_stores=lambda: openers)


def states(manager: PluginManager) -> dict[str, str]:
    return {record.name: record.state for record in manager.plugins}


def named(manager: PluginManager, name: str) -> PluginRecord:
    (record,) = [record for record in manager.plugins if record.name == name]
    return record


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return ``install(distribution, entry_point, source)``, which makes an installed plugin, as pip does."""
    before = set(sys.modules)
    _default_manager.cache_clear()
    count = 0

    def install(distribution: str, entry_point: str, source: str = "", *, target: str = "") -> None:
        nonlocal count
        count += 1
        folder = tmp_path / f"site{count}"
        module = f"installed_plugin_{distribution}"
        info = folder / f"{distribution}-1.{count}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.{count}\n")
        (info / "entry_points.txt").write_text(f"[asyncapy]\n{entry_point} = {module}{target}\n")
        header = "from asyncapy_core import Filter, MemoryKeyStore, hookimpl\n"
        (folder / f"{module}.py").write_text(header + textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(folder))

    yield install
    _default_manager.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("installed_plugin_"):
            del sys.modules[name]


def imported(distribution: str) -> bool:
    return f"installed_plugin_{distribution}" in sys.modules


# Hooks


def test_the_hook_asyncapy_codecs_brings_codecs() -> None:
    one, two = Tiny("one", 7), Tiny("two", 8)
    assert manager(a=codecs(one), b=codecs(two)).codecs() == [one, two]


def test_the_hook_asyncapy_codecs_is_given_the_options_of_its_plugin() -> None:
    class Options(BaseModel):
        wire_id: int = 7

    made = Plugin(asyncapy_codecs=lambda options: [Tiny("one", options.wire_id)])
    made.asyncapy_options = Options
    without = Plugin(asyncapy_codecs=lambda options: [Tiny(f"{options}", 9)])
    both = manager(a=made, b=without)
    assert [codec.wire_id for codec in both.codecs()] == [7, 9]
    assert [(codec.wire_id, codec.name) for codec in both.codecs({"a": {"wire_id": "42"}})] == [
        (42, "one"),
        (9, "None"),
    ]


def test_codecs_that_cannot_do_without_options_are_left_out_where_there_is_no_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Options(BaseModel):
        wire_id: int

    made = Plugin(asyncapy_codecs=lambda options: [Tiny("one", options.wire_id)])
    made.asyncapy_options = Options
    both = manager(a=made, b=codecs(Tiny("two", 8)))
    for _ in range(3):
        assert [codec.name for codec in both.codecs()] == ["two"]
    assert caplog.text.count("plugin 'a' of (registered) is left out, as there is no configuration here") == 1
    with pytest.raises(ConfigError, match="wire_id: Field required"):
        both.codecs({})
    assert [codec.name for codec in both.codecs({"a": {"wire_id": 7}})] == ["one", "two"]


def test_the_hook_asyncapy_filters_brings_filters_by_name() -> None:
    made = manager(a=filters(Yes=Yes), b=filters(No=No))
    assert made.filters["Yes"] is Yes
    assert made.filters["No"] is No
    assert list(made.filters) == ["No", "Yes"]
    with pytest.raises(KeyError):
        made.filters["Nope"]


def test_the_hook_asyncapy_key_stores_brings_stores_by_scheme() -> None:
    def opener(url: str) -> MemoryKeyStore:
        return MemoryKeyStore()

    made = manager(a=stores(spam=opener))
    assert made.key_stores["spam"] is opener
    assert list(made.key_stores) == ["spam"]


def test_the_hook_asyncapy_contracts_brings_classes_and_is_called_for_nothing_else() -> None:
    class Contract:
        def test_nothing(self) -> None: ...

    calls = []

    def contracts() -> list[type]:
        calls.append("contracts")
        return [Contract]

    made = manager(a=Plugin(asyncapy_contracts=contracts), b=codecs(Tiny("tiny", 9)))
    made.load_all()
    made.codecs()
    assert calls == []
    assert [(record.name, contract) for record, contract in made.contracts()] == [("a", Contract)]


async def test_the_hook_asyncapy_setup_is_called_for_one_plugin_after_the_other_plain_or_async() -> None:
    events: list[Any] = []

    def note(name: str) -> Callable[..., Any]:
        async def setup(server: Server) -> None:
            events.append((name, server, "begins"))
            await trio.lowlevel.checkpoint()
            events.append((name, server, "ends"))

        return setup

    made = manager(
        b=Plugin(asyncapy_setup=note("b")),
        a=Plugin(asyncapy_setup=lambda server: events.append(("a", server, "plain"))),
        none=Plugin(),
        c=Plugin(asyncapy_setup=note("c")),
    )
    server = Server(plugins=made)
    await server.hooks.setup(trio.CancelScope())
    assert events == [
        ("b", server, "begins"),
        ("b", server, "ends"),
        ("a", server, "plain"),
        ("c", server, "begins"),
        ("c", server, "ends"),
    ]


async def test_the_hook_asyncapy_setup_is_given_options_and_may_leave_out_arguments() -> None:
    class Options(BaseModel):
        a: int

    def setup(options: Options) -> None:
        given.append(options)

    given: list[Any] = []
    made = Plugin(asyncapy_setup=setup)
    made.asyncapy_options = Options
    nothing = Plugin(asyncapy_setup=lambda: given.append("nothing"))
    both = manager(x=made, y=nothing)
    await Server(plugins=both, plugin_options={"x": {"a": "4"}}).hooks.setup(trio.CancelScope())
    assert given == [Options(a=4), "nothing"]


async def test_the_hook_asyncapy_setup_of_a_required_plugin_ends_the_start_when_it_raises() -> None:
    later: list[str] = []

    def fail() -> None:
        raise OSError("no disk")

    made = manager(
        a=Plugin(),
        b=Plugin(asyncapy_setup=fail),
        c=Plugin(asyncapy_setup=lambda: later.append("c")),
    )
    with pytest.raises(PluginError, match=r"plugin 'b' of \(registered\) failed in setup: OSError: no disk") as caught:
        await Server(plugins=made, plugins_require=["b"]).hooks.setup(trio.CancelScope())
    assert isinstance(caught.value.__cause__, OSError)
    assert later == []


async def test_the_hook_asyncapy_shutdown_is_called_in_reverse_for_all_even_when_one_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[str] = []

    async def fail_later() -> None:
        events.append("b")
        await trio.lowlevel.checkpoint()
        raise ValueError("b failed")

    def fail() -> None:
        events.append("c")
        raise OSError("c failed")

    made = manager(
        a=Plugin(asyncapy_shutdown=lambda server: events.append("a")),
        b=Plugin(asyncapy_shutdown=fail_later),
        c=Plugin(asyncapy_shutdown=fail),
        d=Plugin(asyncapy_shutdown=lambda: events.append("d")),
    )
    server = Server(plugins=made)
    await server.hooks.setup(trio.CancelScope())
    failures = await server.hooks.shutdown()
    assert events == ["d", "c", "b", "a"]
    assert [str(failure) for failure in failures] == ["c failed", "b failed"]
    assert "plugin 'c' of (registered) failed in shutdown" in caplog.text
    assert await server.hooks.shutdown() == []


async def test_the_hook_asyncapy_shutdown_is_called_only_for_those_that_were_set_up() -> None:
    events: list[str] = []

    def fail() -> None:
        raise OSError

    made = manager(
        a=Plugin(asyncapy_shutdown=lambda: events.append("a")),
        b=Plugin(asyncapy_setup=fail, asyncapy_shutdown=lambda: events.append("b")),
        c=Plugin(asyncapy_shutdown=lambda: events.append("c")),
    )
    server = Server(plugins=made)
    await server.hooks.setup(trio.CancelScope())
    assert await server.hooks.shutdown() == []
    assert events == ["c", "a"]


async def test_a_server_sets_up_and_shuts_down_around_its_own_methods_and_exit_stack() -> None:
    events: list[str] = []

    class Noting(Server):
        async def setup(self) -> None:
            events.append("server.setup")

        async def shutdown(self) -> None:
            events.append("server.shutdown")

    def setup(server: Server) -> None:
        events.append("plugin.setup")
        server.exit_stack.callback(events.append, "exit_stack")

    made = manager(
        a=codecs(Tiny("tiny", 9)),
        b=Plugin(asyncapy_setup=setup, asyncapy_shutdown=lambda: events.append("plugin.shutdown")),
    )
    server = Noting(port=0, logging_level=50, plugins=made)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        server.stop()
    assert events == ["plugin.setup", "server.setup", "server.shutdown", "plugin.shutdown", "exit_stack"]


# Finding and loading


def test_installed_plugins_are_found_by_their_entry_points_and_called_in_the_order_of_their_names(
    install: Install,
) -> None:
    for name in ("zeta", "alpha", "mid"):
        install(f"dist_{name}", f"test_{name}", "@hookimpl\ndef asyncapy_filters():\n    return {}\n")
    found = [record for record in PluginManager().plugins if record.name.startswith("test_")]
    assert [record.name for record in found] == ["test_alpha", "test_mid", "test_zeta"]
    record = found[0]
    assert record.title == "plugin 'test_alpha' of dist_alpha 1.2"
    assert (record.distribution, record.version, record.state) == ("dist_alpha", "1.2", "loaded")
    assert record.hooks == ("asyncapy_filters",)
    assert record.import_seconds > 0
    assert (record.reason, record.traceback) == ("", "")


def test_the_codecs_and_filters_of_this_project_are_plugins() -> None:
    made = PluginManager(allow=["codecs", "filters"])
    assert [codec.name for codec in made.codecs()] == ["json", "ziproto"]
    assert list(made.filters) == ["APIFactory", "Fields", "HasFields", "Ip"]
    assert named(made, "codecs").distribution == "asyncapy-codecs"


def test_nothing_is_imported_before_something_is_asked_for(install: Install) -> None:
    install("lazy", "test_lazy")
    made = PluginManager(allow=["test_lazy"])
    assert not imported("lazy")
    assert states(made)["test_lazy"] == "loaded"
    assert imported("lazy")


def test_without_discovery_only_what_is_registered_is_there(install: Install) -> None:
    install("hidden", "test_hidden")
    assert PluginManager(discover=False).plugins == ()
    assert not imported("hidden")


def test_a_plugin_that_is_denied_is_not_imported(install: Install) -> None:
    install("wanted", "test_wanted")
    install("denied", "test_denied", "raise SystemExit('imported')")
    made = PluginManager(deny=["test_denied"])
    assert states(made)["test_denied"] == "denied"
    assert states(made)["test_wanted"] == "loaded"
    assert named(made, "test_denied").reason == "it is on the deny list"
    assert made.problems == ()
    assert not imported("denied")
    assert imported("wanted")


def test_only_plugins_that_are_allowed_are_imported(install: Install) -> None:
    install("wanted", "test_wanted")
    install("other", "test_other", "raise SystemExit('imported')")
    made = PluginManager(allow=["test_wanted", "test_not_there"])
    assert {name for name, state in states(made).items() if state == "loaded"} == {"test_wanted"}
    assert named(made, "test_other").reason == "it is not on the allow list"
    assert not imported("other")


def test_deny_comes_before_allow_and_an_empty_list_allows_nothing(install: Install) -> None:
    install("both", "test_both")
    assert states(PluginManager(allow=["test_both"], deny=["test_both"]))["test_both"] == "denied"
    assert set(states(PluginManager(allow=[])).values()) == {"denied"}
    assert not imported("both")


def test_an_import_that_fails_is_quarantined_with_its_traceback_and_the_others_work(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("broken", "test_broken", "import spam_that_is_not_installed")
    install(
        "healthy",
        "test_healthy",
        """
        class Healthy(Filter):
            def check(self, c, p):
                return True

        @hookimpl
        def asyncapy_filters():
            return {"Healthy": Healthy}
        """,
    )
    made = PluginManager()
    (record,) = [record for record in made.problems if record.name == "test_broken"]
    assert (record.distribution, record.version) == ("broken", "1.1")
    assert record.reason == "import failed with ModuleNotFoundError: No module named 'spam_that_is_not_installed'"
    assert "Traceback (most recent call last)" in record.traceback
    assert "import spam_that_is_not_installed" in record.traceback
    assert "plugin 'test_broken' of broken 1.1 is quarantined: import failed" in caplog.text
    assert made.filters["Healthy"].__name__ == "Healthy"


def test_an_entry_point_that_names_nothing_is_quarantined(install: Install) -> None:
    install("nothing", "test_nothing", target=":not_there")
    record = named(PluginManager(), "test_nothing")
    assert record.state == "quarantined"
    assert "AttributeError" in record.reason
    assert "not_there" in record.reason


def test_an_entry_point_may_name_an_object_in_a_module(install: Install) -> None:
    source = """
    class Thing:
        @hookimpl
        def asyncapy_key_stores(self):
            return {"spam": MemoryKeyStore}

    thing = Thing()
    """
    install("thing", "test_thing", source, target=":thing")
    assert named(PluginManager(), "test_thing").hooks == ("asyncapy_key_stores",)


@pytest.mark.parametrize("error", ["SystemExit", "GeneratorExit"])
def test_a_plugin_whose_import_would_end_the_program_is_quarantined(install: Install, error: str) -> None:
    install("ending", "test_ending", f"raise {error}")
    record = named(PluginManager(allow=["test_ending"]), "test_ending")
    assert (record.state, record.reason) == ("quarantined", f"import failed with {error}: ")


def test_ctrl_c_in_the_import_of_a_plugin_ends_the_program(install: Install) -> None:
    install("slow", "test_slow", "import signal; signal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        _ = PluginManager(allow=["test_slow"]).plugins


def test_two_entry_points_of_one_name_are_both_quarantined_and_both_distributions_named(install: Install) -> None:
    install("first", "test_same", "raise SystemExit")
    install("second", "test_same", "raise SystemExit")
    install("third", "test_other")
    made = PluginManager()
    records = [record for record in made.plugins if record.name == "test_same"]
    assert [record.distribution for record in records] == ["first", "second"]
    for record in records:
        assert record.state == "quarantined"
        assert record.reason.startswith("the name 'test_same' is claimed by first and second")
    assert not imported("first")
    assert not imported("second")
    assert states(made)["test_other"] == "loaded"


def test_two_entry_points_of_one_name_do_not_matter_when_it_is_denied(install: Install) -> None:
    install("first", "test_same")
    install("second", "test_same")
    made = PluginManager(deny=["test_same"])
    assert [record.state for record in made.plugins if record.name == "test_same"] == ["denied", "denied"]


def test_lists_may_be_narrowed_before_anything_is_loaded(install: Install) -> None:
    for name in ("one", "two", "three"):
        install(name, f"test_{name}")
    made = PluginManager(allow=["test_one", "test_two", "test_three"])
    made.restrict(Restriction(["test_one", "test_two", "codecs"], ["test_two"]))
    assert {name for name, state in states(made).items() if state == "loaded"} == {"test_one"}
    assert not imported("two")
    assert not imported("three")
    unbounded = PluginManager()
    unbounded.restrict(Restriction(["test_three"]))
    assert {name for name, state in states(unbounded).items() if state == "loaded"} == {"test_three"}


def test_a_plugin_that_is_loaded_cannot_be_denied_any_more(install: Install) -> None:
    install("one", "test_one")
    made = PluginManager(allow=["test_one"])
    assert states(made)["test_one"] == "loaded"
    made.restrict(Restriction())
    with pytest.raises(ConfigError, match=r"plugin 'test_one' of one 1.1 is loaded already"):
        made.restrict(Restriction(deny=["test_one"]))


def test_a_server_narrows_the_lists_by_its_settings(install: Install) -> None:
    install("one", "test_one", "raise SystemExit")
    server = Server(plugins_deny=["test_one"], plugins_allow="codecs, test_one")
    assert {record.name for record in server.plugins.plugins if record.state == "loaded"} == {"codecs"}
    assert not imported("one")


def test_a_server_that_is_configured_anew_has_the_new_lists_alone(install: Install) -> None:
    for name in ("one", "two"):
        install(name, f"test_{name}")
    server = Server(plugins_allow=["test_one"], plugins=PluginManager())
    server.configure(plugins_allow="test_one,test_two")
    assert {name for name, state in states(server.plugins).items() if state == "loaded"} == {"test_one", "test_two"}


def test_settings_that_are_refused_leave_a_server_as_it_was() -> None:
    server = Server(port=1)
    with pytest.raises(ConfigError, match="did you mean 'port'"):
        server.configure(prot=2)  # type: ignore[call-arg]  # the mistake
    with pytest.raises(ConfigError, match="cannot read"):
        server.configure(port=3, path="nowhere.ini")
    assert server.config.port == 1
    server.configure(timeout=5)
    assert (server.config.port, server.config.timeout) == (1, 5)


def test_what_plugins_bring_is_collected_once_however_many_servers_there_are() -> None:
    calls = []

    def brings() -> dict[str, type[Filter]]:
        calls.append("filters")
        return {"Mine": type("Mine", (Filter,), {"check": lambda self, c, p: True})}

    made = manager(a=Plugin(asyncapy_filters=brings))
    mine = made.filters["Mine"]
    server = Server(plugins=made)
    server.configure(port=1)
    assert made.filters["Mine"] is mine
    assert calls == ["filters"]


def test_ctrl_c_in_an_import_leaves_the_lists_as_they_were(install: Install) -> None:
    install("fine", "test_fine")
    install("exits", "test_exits", "import signal; signal.raise_signal(signal.SIGINT)")
    server = Server(plugins_allow=["test_fine"], plugins=PluginManager())
    assert states(server.plugins)["test_exits"] == "denied"
    with pytest.raises(KeyboardInterrupt):
        server.configure(plugins_allow="test_exits,test_fine")
    assert named(server.plugins, "test_exits").reason == "it is not on the allow list"
    server.configure(plugins_allow="test_fine,filters")
    assert {name for name, state in states(server.plugins).items() if state == "loaded"} == {"test_fine", "filters"}


def test_a_plugin_that_was_denied_is_loaded_when_it_no_longer_is(install: Install) -> None:
    install("one", "test_one")
    server = Server(plugins_deny=["test_one"], plugins=PluginManager(allow=["test_one"]))
    assert states(server.plugins)["test_one"] == "denied"
    server.configure(plugins_deny="")
    assert states(server.plugins)["test_one"] == "loaded"
    assert next(record.reason for record in server.plugins.plugins if record.name == "test_one") == ""


def test_a_name_on_an_allow_list_that_there_is_not_is_reported_once(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("one", "test_one")
    made = PluginManager(allow=["test_one", "test_won"])
    _ = made.plugins
    made.restrict(Restriction(["test_won", "test_one"]))
    assert caplog.text.count("no plugin is called 'test_won'") == 1
    assert "no plugin is called 'test_one'" not in caplog.text


@pytest.mark.parametrize("name", ["test_on", "TEST_ONE", "test-one", "metadata"])
def test_a_name_on_a_deny_list_that_there_is_not_denies_everything(install: Install, name: str) -> None:
    install("one", "test_one")
    made = PluginManager(deny=["codecs", name])
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=f"no plugin is called {re.escape(repr(name))}, which is on the deny list"
        ):
            _ = made.plugins
        with pytest.raises(ConfigError):
            made.codecs()
        with pytest.raises(ConfigError):
            made.filters["Fields"]
    assert not imported("one")
    with pytest.raises(ConfigError, match="which is on the deny list; "):
        Server(plugins_deny=[name], plugins=PluginManager())
    assert not imported("one")


def test_a_name_on_a_deny_list_that_comes_later_has_to_be_that_of_a_plugin(install: Install) -> None:
    install("one", "test_one")
    server = Server(plugins=PluginManager(), plugins_deny="test_one")
    with pytest.raises(ConfigError, match="'test_two', which is on the deny list; did you mean 'test_one'"):
        server.configure(plugins_deny="test_two")
    assert states(server.plugins)["test_one"] == "denied"


def test_a_deny_list_in_the_environment_has_to_name_plugins(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("one", "test_one")
    monkeypatch.setenv("ASYNCAPY_PLUGINS_DENY", "test_too")
    for use in (lambda: Filters.Fields, Server, lambda: default_manager().codecs(), lambda: dir(Filters)):
        with pytest.raises(ConfigError, match="'test_too', which is on the deny list"):
            use()
    assert not imported("one")


@pytest.mark.parametrize("variable", ["ASYNCAPY_PLUGINS_ALLOW", "ASYNCAPY_PLUGINS_DENY"])
@pytest.mark.parametrize("text", ["one two", "'one'", '["one"]', "one # two", "one;two"])
def test_a_list_in_the_environment_is_of_names(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)
    _default_manager.cache_clear()
    try:
        with pytest.raises(ConfigError, match=f"from the environment variable {variable}, is no name of a plugin"):
            _ = Filters.Fields
    finally:
        _default_manager.cache_clear()


def test_what_was_registered_by_hand_cannot_be_denied_later_nor_registered_when_it_is_denied() -> None:
    made = PluginManager()
    made.register(filters(Yes=Yes), "mine")
    with pytest.raises(ConfigError, match=r"plugin 'mine' of \(registered\) is loaded already"):
        Server(plugins=made, plugins_deny=["mine"])
    alone = PluginManager(discover=False, deny=["mine"])
    with pytest.raises(PluginError, match="plugin 'mine' cannot be registered, as it is on the deny list"):
        alone.register(filters(Yes=Yes), "mine")


def test_a_deny_list_of_installed_plugins_does_not_matter_where_none_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNCAPY_PLUGINS_DENY", "redis")
    assert Server(plugins=manager(a=codecs(Tiny("tiny", 9)))).config.plugins_deny == ["redis"]


async def test_a_manager_that_was_given_to_one_server_is_not_narrowed_by_another(install: Install) -> None:
    install("one", "test_one")
    Server(plugins_deny=["test_one"], plugins=PluginManager())
    assert states(Server().plugins)["test_one"] == "loaded"


def test_what_one_server_denies_is_denied_in_the_whole_process_as_filters_are_looked_up_there(install: Install) -> None:
    install("one", "test_one")
    install("two", "test_two")
    first = Server(plugins_deny=["test_one"])
    second = Server(plugins_deny=["test_two"])
    assert first.plugins is second.plugins
    assert (states(first.plugins)["test_one"], states(first.plugins)["test_two"]) == ("denied", "denied")


def test_what_is_loaded_already_cannot_be_denied_and_says_so(install: Install) -> None:
    install("one", "test_one")
    assert states(Server().plugins)["test_one"] == "loaded"
    with pytest.raises(ConfigError, match=r"plugin .test_one. .* is loaded already"):
        Server(plugins_deny=["test_one"])
    with pytest.raises(ConfigError, match="is loaded already"):
        Server(plugins_allow=["codecs"])


def test_a_server_with_plugins_of_its_own_shares_none(install: Install) -> None:
    install("one", "test_one")
    own = Server(plugins=PluginManager(deny=["test_one"]))
    assert states(own.plugins)["test_one"] == "denied"
    assert states(Server().plugins)["test_one"] == "loaded"


# Faulty plugins


def test_a_misspelt_hook_is_an_error_that_says_what_was_probably_meant(install: Install) -> None:
    install("misspelt", "test_misspelt", "@hookimpl\ndef asyncapy_filers():\n    return {}\n")
    install("healthy", "test_healthy", "@hookimpl\ndef asyncapy_filters():\n    return {}\n")
    made = PluginManager()
    record = named(made, "test_misspelt")
    assert record.state == "quarantined"
    assert "unknown hook 'asyncapy_filers'" in record.reason
    assert record.reason.endswith("(did you mean asyncapy_filters?)")
    assert states(made)["test_healthy"] == "loaded"
    assert made.filters is not None


def test_a_hook_that_resembles_none_is_told_which_there_are() -> None:
    with pytest.raises(PluginError, match=r"unknown hook 'asyncapy_zzzzzzzzzzzzz'.*\(hooks: asyncapy_codecs, "):
        manager(a=Plugin(asyncapy_zzzzzzzzzzzzz=lambda: None))


def test_a_hook_with_an_argument_that_there_is_not_is_an_error_about_the_argument() -> None:
    with pytest.raises(PluginError, match="'sevrer'") as caught:
        manager(a=Plugin(asyncapy_setup=lambda sevrer: None))
    assert "did you mean asyncapy_setup?" not in str(caught.value)


def test_a_hook_wrapper_is_an_error() -> None:
    made = Plugin()
    vars(made)["asyncapy_setup"] = wrapper
    with pytest.raises(PluginError, match="is a hook wrapper, which is not supported"):
        manager(a=made)


def test_a_name_is_registered_once() -> None:
    made = manager(a=Plugin())
    with pytest.raises(PluginError, match="there is a plugin 'a' already; register this one under another name"):
        made.register(Plugin(), "a")


def test_a_name_of_an_installed_plugin_cannot_be_registered(install: Install) -> None:
    install("taken", "test_taken")
    with pytest.raises(PluginError, match="there is a plugin 'test_taken' already"):
        PluginManager(allow=["test_taken"]).register(Plugin(), "test_taken")


@pytest.mark.parametrize("fault", ["misspelt", "wrapper"])
def test_a_plugin_that_was_refused_may_be_registered_when_it_is_mended(fault: str) -> None:
    broken = Plugin(asyncapy_filers=lambda: None)
    if fault == "wrapper":
        broken = Plugin()
        vars(broken)["asyncapy_setup"] = wrapper
    made = PluginManager(discover=False)
    with pytest.raises(PluginError):
        made.register(broken, "a")
    made.register(filters(Yes=Yes), "a")
    assert states(made) == {"a": "loaded"}
    assert made.filters["Yes"] is Yes


@pytest.mark.parametrize("hook", ["asyncapy_codecs", "asyncapy_filters", "asyncapy_key_stores"])
def test_a_hook_that_raises_is_quarantined_and_the_others_work(hook: str) -> None:
    def fail() -> Any:
        raise ValueError("oops")

    made = manager(
        a=Plugin(**{hook: fail}), b=codecs(Tiny("tiny", 9)), c=filters(Yes=Yes), d=stores(spam=MemoryKeyStore)
    )
    assert [codec.name for codec in made.codecs()] == ["tiny"]
    assert list(made.filters) == ["Yes"]
    assert list(made.key_stores) == ["spam"]
    record = named(made, "a")
    assert record.reason == f"{hook} raised ValueError: oops"
    assert 'raise ValueError("oops")' in record.traceback
    assert made.problems == (record,)


def _broken_on_the_way() -> Iterator[Tiny]:
    yield Tiny("first", 7)
    raise ValueError("oops")


@pytest.mark.parametrize(
    "brought",
    [lambda: None, lambda: 5, lambda: [Tiny("first", 7), "json"], lambda: [Tiny("first", 256)], _broken_on_the_way],
    ids=["none", "a number", "a string among codecs", "an impossible wire id", "a generator that raises"],
)
def test_a_plugin_that_brings_no_codecs_is_quarantined_whole_and_the_others_work(brought: Callable[[], Any]) -> None:
    made = manager(a=Plugin(asyncapy_codecs=brought), b=codecs(Tiny("tiny", 9)))
    assert [codec.name for codec in made.codecs()] == ["tiny"]
    assert states(made) == {"a": "quarantined", "b": "loaded"}


@pytest.mark.parametrize(
    "brought", [lambda: None, lambda: [Yes], lambda: {"Bad": 42}, lambda: {"Bad": Yes()}, lambda: {"Bad": object}],
    ids=["none", "a list", "a number", "an instance", "another class"],
)  # fmt: skip
def test_a_plugin_that_brings_no_filters_is_quarantined_and_the_others_work(brought: Callable[[], Any]) -> None:
    made = manager(a=Plugin(asyncapy_filters=brought), b=filters(Yes=Yes))
    assert list(made.filters) == ["Yes"]
    assert states(made) == {"a": "quarantined", "b": "loaded"}


@pytest.mark.parametrize(
    "brought", [lambda: None, lambda: ["spam"], lambda: {"spam": 42}, lambda: {42: MemoryKeyStore}],
    ids=["none", "a list", "a number", "a number as scheme"],
)  # fmt: skip
def test_a_plugin_that_brings_no_key_stores_is_quarantined_and_the_others_work(brought: Callable[[], Any]) -> None:
    made = manager(a=Plugin(asyncapy_key_stores=brought), b=stores(eggs=MemoryKeyStore))
    assert list(made.key_stores) == ["eggs"]
    assert states(made) == {"a": "quarantined", "b": "loaded"}


def test_what_a_plugin_brings_that_is_registered_later_is_there_as_well() -> None:
    made = manager(a=filters(Yes=Yes))
    assert list(made.filters) == ["Yes"]
    assert list(made.key_stores) == []
    made.register(filters(No=No), "b")
    made.register(stores(spam=MemoryKeyStore), "c")
    assert list(made.filters) == ["No", "Yes"]
    assert list(made.key_stores) == ["spam"]


# Collisions


def test_a_contested_filter_belongs_to_neither_and_the_others_work(caplog: pytest.LogCaptureFixture) -> None:
    made = manager(a=filters(Same=Yes, A=Yes), b=filters(Same=No, B=No))
    with pytest.raises(
        PluginCollision, match=r"filter 'Same' is claimed by plugin 'a' .* and plugin 'b' .*, so neither"
    ):
        made.filters["Same"]
    assert made.filters["A"] is Yes
    assert made.filters["B"] is No
    assert "filter 'Same' is claimed by" in caplog.text
    assert states(made) == {"a": "loaded", "b": "loaded"}


def test_a_contested_key_store_scheme_belongs_to_neither_and_the_others_work() -> None:
    made = manager(a=stores(same=Tiny, a=Yes), b=stores(same=Tiny, b=No))
    with pytest.raises(PluginCollision, match=r"key store scheme 'same' is claimed by plugin 'a' .* and plugin 'b'"):
        made.key_stores["same"]
    others: list[object] = [made.key_stores["a"], made.key_stores["b"]]
    assert others == [Yes, No]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Tiny("other", 7), "wire id '7' is claimed by plugin 'a' .* and plugin 'b'"),
        (Tiny("one", 8), "codec 'one' is claimed by plugin 'a' .* and plugin 'b'"),
        (Tiny("one", 7), "wire id '7' is claimed by plugin 'a' .* and plugin 'b'"),
    ],
)
def test_a_contested_codec_is_left_out_and_reported_and_the_others_work(
    second: Tiny, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = manager(a=codecs(Tiny("one", 7), Tiny("a", 20)), b=codecs(second), c=codecs(Tiny("c", 30)))
    assert [codec.name for codec in made.codecs()] == ["a", "c"]
    assert [line for line in caplog.messages if re.search(message, line)]


def test_a_collision_names_both_distributions(install: Install) -> None:
    source = """
    class Same(Filter):
        def check(self, c, p):
            return True

    @hookimpl
    def asyncapy_filters():
        return {"Contested": Same}
    """
    install("first", "test_first", source)
    install("second", "test_second", source)
    with pytest.raises(PluginCollision, match=r"of first 1\.1 and .* of second 1\.2, so neither gets it"):
        _ = Filters.Contested


# Filters.X


def test_filters_are_looked_up_among_the_installed_plugins(install: Install) -> None:
    install(
        "spam",
        "test_spam",
        """
        class Spam(Filter):
            def check(self, c, p):
                return True

        @hookimpl
        def asyncapy_filters():
            return {"Spam": Spam}
        """,
    )
    assert isinstance(Filters.Spam(), Filter)
    assert Filters.Fields.__name__ == "Fields"
    assert {"Spam", "Fields", "Ip", "APIFactory", "check"} <= set(dir(Filters))
    assert default_manager() is default_manager()


def test_an_unknown_filter_says_which_are_installed_and_what_was_probably_meant() -> None:
    with pytest.raises(UnknownFilter, match=r"filter 'Feilds' \(installed: .*Fields.*\); did you mean 'Fields'\?"):
        _ = Filters.Feilds
    assert not hasattr(Filters, "Feilds")
    assert not hasattr(Filters, "_private")


def test_an_unknown_filter_says_which_plugins_are_broken(install: Install) -> None:
    install("broken", "test_broken", "raise ValueError('oops')")
    with pytest.raises(UnknownFilter, match=r"'Zzzzz'.*plugin 'test_broken' of broken 1.1 is quarantined: .*oops"):
        _ = Filters.Zzzzz


def test_an_unknown_filter_says_what_to_install(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCAPY_PLUGINS_DENY", "filters")
    with pytest.raises(UnknownFilter, match=r"'Fields' \(installed: .*pip install asyncapy-filters"):
        _ = Filters.Fields


def test_the_namespace_itself_is_a_filter_that_passes_everything() -> None:
    assert issubclass(Filters, Filter)
    assert Filters().check(None, None) is True  # type: ignore[arg-type]  # check ignores its arguments


def test_the_default_manager_is_told_by_the_environment_what_to_load(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", "test_one")
    install("two", "test_two")
    monkeypatch.setenv("ASYNCAPY_PLUGINS_ALLOW", "test_one, test_two,")
    monkeypatch.setenv("ASYNCAPY_PLUGINS_DENY", "test_two")
    assert {name for name, state in states(default_manager()).items() if state == "loaded"} == {"test_one"}
    assert not imported("two")


# Options


class Engine(BaseModel):
    engine: str = "fast"
    threads: int = 1


def with_options() -> PluginManager:
    made = Plugin()
    made.asyncapy_options = Engine
    return manager(a=made, b=Plugin())


def test_options_that_a_plugin_takes_are_accepted() -> None:
    made = with_options()
    made.check_options({})
    made.check_options({"a": {"engine": "slow", "threads": "4"}, "b": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"a": {"engin": "x"}},
            r"engin: there is no such option; did .*'engine'\? \(its options: engine, threads\)",
        ),
        ({"a": {"threads": "many"}}, r"plugin 'a' .*threads: Input should be a valid integer"),
        ({"b": {"engine": "x"}}, r"plugin 'b' of \(registered\), which takes none: engine"),
        ({"c": {"engine": "x"}}, r"plugin 'c', which is not installed: engine; installed: a, b"),
    ],
)
def test_options_that_a_plugin_does_not_take_are_an_error(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_options().check_options(options)


def test_options_of_a_model_that_allows_more_are_checked_as_strictly() -> None:
    class Lax(BaseModel, extra="allow"):
        engine: str = "fast"

    made = Plugin()
    made.asyncapy_options = Lax
    with pytest.raises(ConfigError, match="engin: there is no such option; did you mean"):
        manager(a=made).check_options({"a": {"engin": "x"}})


def test_options_of_a_plugin_that_is_denied_do_not_matter(install: Install) -> None:
    install("denied", "test_denied")
    PluginManager(deny=["test_denied"]).check_options({"test_denied": {"a": "1"}})


def test_options_of_a_plugin_that_is_quarantined_do_not_keep_the_others_from_starting(install: Install) -> None:
    install("broken", "test_broken", "raise ValueError")
    PluginManager(allow=["test_broken"]).check_options({"test_broken": {"a": "1"}})


# Required plugins


def test_plugins_that_are_there_and_well_may_be_required() -> None:
    manager(a=Plugin(), b=Plugin()).require(["b", "a"])
    manager().require([])


def test_a_plugin_that_is_missing_denied_or_broken_cannot_be_required(install: Install) -> None:
    install("denied", "test_denied")
    install("broken", "test_broken", "raise ValueError('oops')")
    made = PluginManager(allow=["test_broken"])
    with pytest.raises(PluginError, match=r"'test_none' is required but not installed \(installed: .*test_denied"):
        made.require(["test_none"])
    with pytest.raises(PluginError, match=r"'test_denied' of denied 1.1 is required but denied: it is not on the"):
        made.require(["test_denied"])
    with pytest.raises(PluginError, match=r"(?s)'test_broken' .* required but quarantined: .*oops.*Traceback"):
        made.require(["test_broken"])
    with pytest.raises(PluginError, match=r"not installed \(installed: none\)"):
        manager().require(["a"])


async def test_a_server_does_not_start_without_the_plugins_it_requires() -> None:
    made = manager(a=codecs(Tiny("tiny", 9)))
    server = Server(port=0, plugins=made, plugins_require=["redis"])
    with pytest.raises(PluginError, match="plugin 'redis' is required but not installed"):
        await server.serve()


async def test_a_server_does_not_start_without_a_codec_and_says_what_to_install() -> None:
    with pytest.raises(PluginError, match=r"no codec is installed.*pip install asyncapy-codecs"):
        await Server(port=0, plugins=manager()).serve()


def test_two_managers_share_nothing() -> None:
    one, other = manager(a=filters(Yes=Yes)), manager(b=filters(No=No))
    assert list(one.filters) == ["Yes"]
    assert list(other.filters) == ["No"]
    assert states(one) == {"a": "loaded"}


class Secretive(BaseModel):
    password: SecretStr
    journal: str


@pytest.mark.parametrize("given", [{"password": "hunter2"}, {"pasword": "hunter2", "journal": "x"}])
def test_options_are_not_quoted_in_errors_as_they_may_be_secrets(given: dict[str, str]) -> None:
    made = manager(a=Plugin(asyncapy_options=Secretive))
    with pytest.raises(ConfigError, match="its options: password, journal") as caught:
        made.check_options({"a": given})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["register", "mro", "check", "_private", "two words", ""])
def test_a_filter_is_not_called_what_filters_have_already(name: str) -> None:
    made = manager(a=filters(**{name: Yes}), b=filters(No=Yes))
    assert list(made.filters) == ["No"]
    assert "cannot be used as Filters." in named(made, "a").reason


def test_what_was_registered_by_hand_needs_to_be_on_no_list() -> None:
    own = PluginManager(allow=["codecs"])
    own.register(filters(Yes=Yes), "mine")
    assert Server(plugins=own).plugins.filters["Yes"] is Yes
