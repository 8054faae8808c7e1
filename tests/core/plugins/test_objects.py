"""Plugins are any objects: each of their attributes and methods may raise, and no user sees a traceback."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pydantic import BaseModel, field_validator

from asyncapy_core import Filter, PluginManager, Server, hookimpl
from asyncapy_core.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from core.plugins.conftest import Site

PROGRAM = """
import json
from asyncapy_core import Filters, Server
from asyncapy_core.client import Client
from asyncapy_core.plugins import default_manager

Client(tls=False)
manager = Server().plugins
manager.check_options({})
manager.load_all()
records = {each.name: [each.state, each.reason] for each in manager.plugins}
print(json.dumps([records["plug"], Filters.Fields.__name__, len(manager.codecs({}))]))
"""

BY_PROPERTY = """
class Plugin:
    @property
    def {name}(self):
        raise RuntimeError("a slip")

plugin = Plugin()
"""

VALIDATOR = """
import pydantic

class asyncapy_options(pydantic.BaseModel):
    @pydantic.model_validator(mode='before')
    def check(cls, value):
        raise {0}("hunter2")
"""

SOURCES = {
    "options that are a number": (
        "asyncapy_options = 5",
        "asyncapy_options is 5, which is not a subclass of pydantic.",
    ),
    "options that are an instance": (
        "import pydantic\nclass Options(pydantic.BaseModel):\n    a: int = 1\nasyncapy_options = Options()",
        "asyncapy_options is Options(a=1), which is not a subclass of pydantic.BaseModel",
    ),
    "options whose repr raises": (
        "class Odd:\n    def __repr__(self):\n        raise ValueError\nasyncapy_options = Odd()",
        "asyncapy_options is an object of type Odd, which is not a subclass of pydantic.BaseModel",
    ),
    "a validator that raises": (
        VALIDATOR.format("KeyError"),
        "its asyncapy_options raised KeyError at ",
    ),
    "a validator that ends the program": (
        VALIDATOR.format("SystemExit"),
        "its asyncapy_options raised SystemExit at ",
    ),
    "a model that is not whole": (
        "import pydantic\nclass asyncapy_options(pydantic.BaseModel):\n    a: 'Nowhere' = 1\n",
        "its asyncapy_options raised PydanticUserError at ",
    ),
    "options as a property that raises": (
        BY_PROPERTY.format(name="asyncapy_options"),
        "its attributes cannot be read: RuntimeError: a slip",
    ),
    "a hook as a property that raises": (
        BY_PROPERTY.format(name="asyncapy_filters"),
        "its attributes cannot be read: RuntimeError: a slip",
    ),
    "no list of attributes": (
        "class Plugin:\n    def __dir__(self):\n        raise SystemExit('a slip')\nplugin = Plugin()",
        "its attributes cannot be read: SystemExit: a slip",
    ),
    "every attribute raises": (
        "class Plugin:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\nplugin = Plugin()",
        "its attributes cannot be read: RuntimeError: asyncapy_options",
    ),
    "nothing": ("plugin = None", "its entry point names None instead of a module or an object"),
    "a hook that is not marked": (
        "def asyncapy_filters():\n    return {}",
        "asyncapy_filters is not marked with hookimpl, so it would never be called",
    ),
    "a hook that is no function": (
        "import functools\nasyncapy_filters = hookimpl(functools.partial(dict))",
        "asyncapy_filters is marked with hookimpl, but it is functools.partial(<class 'dict'>), not a function",
    ),
    "a hook that is a number": ("asyncapy_codecs = 5", "asyncapy_codecs is not marked with hookimpl"),
    "an exception without a text": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd",
        "import failed with Odd: a Odd without a text",
    ),
    "an exception whose notes raise": (
        "class Odd(Exception):\n    @property\n    def __notes__(self):\n        raise ValueError\nraise Odd('a slip')",
        "import failed with Odd: a slip",
    ),
}

CODEC = """
class Codec:
    name, wire_id = "odd", 9
    def encode(self, fields): ...
    def decode(self, payload): ...

class Odd(Codec):
{0}

@hookimpl
def asyncapy_codecs():
    return {1}
"""


def raising(name: str) -> str:
    return CODEC.format(f"    @property\n    def {name}(self):\n        raise RuntimeError('a slip')", "[Odd()]")


ODD_NAME = """
class Name(str):
    __hash__ = str.__hash__

    def __eq__(self, other):
        raise RuntimeError("a slip")

@hookimpl
def asyncapy_filters():
    return {Name("Odd"): Filters.Ip}
"""

RESULTS = {
    "a codec whose name raises": (raising("name"), "asyncapy_codecs raised RuntimeError: a slip"),
    "a codec whose id raises": (raising("wire_id"), "asyncapy_codecs raised RuntimeError: a slip"),
    "a codec whose function raises": (raising("encode"), "asyncapy_codecs raised RuntimeError: a slip"),
    "a codec without a function": (
        CODEC.format("    encode = 5", "[Odd()]"),
        "is not a codec: it needs name,",
    ),
    "a codec with an odd name": (
        CODEC.format("    name = type('S', (str,), {})('odd')", "[Odd()]"),
        "needs a string",
    ),
    "a codec whose repr raises": (
        CODEC.format("    name = 5\n    def __repr__(self):\n        raise SystemExit", "[Odd()]"),
        "asyncapy_codecs raised SystemExit",
    ),
    "codecs without end": (
        CODEC.format("    pass", "iter(Codec, None)"),
        "expected at most 256 codecs, got more",
    ),
    "codecs that no loop gets": (
        CODEC.format("    pass", "type('L', (list,), {'__iter__': lambda self: 1 / 0})()"),
        "asyncapy_codecs raised ZeroDivisionError",
    ),
    "filters with an odd name": (
        ODD_NAME,
        "the name 'Odd' is not a string",
    ),
    "a setup with yield": (
        "@hookimpl\nasync def asyncapy_setup(server):\n    yield",
        "asyncapy_setup has a 'yield', so that it would never run; move the part behind it to asyncapy_shutdown, or",
    ),
    "a plain drain with yield": ("@hookimpl\ndef asyncapy_drain(server):\n    yield", "asyncapy_drain has a 'yield'"),
    "a run with yield": ("@hookimpl\nasync def asyncapy_run(server):\n    yield", "asyncapy_run has a 'yield'"),
    "a shutdown with yield": ("@hookimpl\ndef asyncapy_shutdown():\n    yield", "asyncapy_shutdown has a 'yield'"),
    "a session without decorator": (
        "@hookimpl\nasync def asyncapy_session(client):\n    yield",
        "it would never run; decorate it with contextlib.asynccontextmanager, below @hookimpl",
    ),
    "a plain session": ("@hookimpl\ndef asyncapy_session(client):\n    yield", "write 'async def', and decorate it"),
    "a coroutine": ("@hookimpl\nasync def asyncapy_filters():\n    return {}", "this hook cannot be async"),
}


@pytest.mark.parametrize(("source", "words"), [*SOURCES.values(), *RESULTS.values()], ids=[*SOURCES, *RESULTS])
def test_a_plugin_that_is_not_as_it_should_be_is_quarantined_and_doctor_says_so(
    site: Site, source: str, words: str
) -> None:
    info = site.install("plug", source)
    if "plugin = " in source:
        (info / "entry_points.txt").write_text("[asyncapy]\nplug = plug:plugin\n")
    done = site.run("-c", PROGRAM)
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    (state, reason), fields, codecs = json.loads(done.stdout)
    assert (state, fields, codecs) == ("quarantined", "Fields", 2)
    assert words in reason


@pytest.mark.parametrize("name", ["a validator that raises", "options that are a number", "a hook that is not marked"])
def test_doctor_finds_what_a_start_would_find(site: Site, name: str) -> None:
    source, words = SOURCES[name]
    site.install("plug", source)
    done = site.asyncapy("plugins", "doctor")
    assert done.returncode == 1
    assert f"plugin 'plug' of plug 1.0 is quarantined: {words}" in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_makes_nothing_of_options_that_a_configuration_has_to_set(site: Site) -> None:
    site.install("plug", "import pydantic\nclass asyncapy_options(pydantic.BaseModel):\n    url: str")
    assert re.fullmatch(r"\d plugins and 2 commands, no problems found\.\n", site.asyncapy("plugins", "doctor").stdout)


class Strange:
    """A plugin that is equal to nothing, not even to itself, and has no text."""

    __hash__ = None  # type: ignore[assignment]  # as a class with __eq__ has

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("a slip")

    def __repr__(self) -> str:
        raise RuntimeError("a slip")

    def __bool__(self) -> bool:
        raise RuntimeError("a slip")

    @hookimpl
    def asyncapy_filters(self) -> dict[str, type[Filter]]:
        return {}


def test_plugins_are_neither_compared_nor_shown_nor_hashed() -> None:
    made = PluginManager(discover=False)
    for name in ("a", "b"):
        made.register(Strange(), name)
    assert [record.state for record in made.plugins] == ["loaded"] * 2
    assert list(made.filters) == []
    assert "Strange" not in repr(made.plugins)
    assert made.plugins[0] != made.plugins[1]


def test_an_object_is_one_plugin_under_one_name() -> None:
    made = PluginManager(discover=False)
    plugin = Strange()
    made.register(plugin, "a")
    with pytest.raises(PluginError, match=r"plugin 'b' .*: it is the same object as plugin 'a'"):
        made.register(plugin, "b")


class Codecs:
    """A plugin with a filter, whose codecs fail."""

    @hookimpl
    def asyncapy_filters(self) -> dict[str, type[Filter]]:
        return {"Mine": type("Mine", (Filter,), {"check": lambda self, c, p: True})}

    @hookimpl
    def asyncapy_codecs(self) -> list[Any]:
        raise ValueError("a slip")


def test_a_plugin_that_is_quarantined_later_loses_its_filters() -> None:
    made = PluginManager(discover=False)
    made.register(Codecs(), "a")
    assert list(made.filters) == ["Mine"]
    assert made.codecs() == []
    assert list(made.filters) == []
    with pytest.raises(KeyError):
        made.filters["Mine"]


class Fickle(BaseModel):
    number: int = 1
    valid: Any = None

    @field_validator("number", mode="before")
    @classmethod
    def _check(cls, value: Any) -> Any:
        if Noting.set_up:
            raise RuntimeError("no more")
        return value


class Noting:
    """A plugin whose options can be made until it is set up."""

    asyncapy_options = Fickle
    set_up = False

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl
    def asyncapy_setup(self, options: Fickle) -> None:
        Noting.set_up = True
        self.seen.append(options)

    @hookimpl
    def asyncapy_shutdown(self, options: Fickle) -> None:
        Noting.set_up = False
        self.seen.append(options)
        raise Unnotable


class Unnotable(Exception):
    def add_note(self, note: str, /) -> None:
        raise RuntimeError("a slip")

    def __str__(self) -> str:
        raise RuntimeError("a slip")


async def test_shutdown_gets_the_options_that_setup_got() -> None:
    made = PluginManager()
    plugin = Noting()
    made.register(plugin, "noting")
    options = {"noting": {"number": 4}}
    made.check_options(options)
    server = Server(port=0, plugins=made, plugin_options=options)
    await server.hooks.setup(trio.CancelScope())
    assert [type(failure) for failure in await server.hooks.shutdown()] == [Unnotable]
    assert plugin.seen[0] is plugin.seen[1]
    assert plugin.seen[0].number == 4


async def test_a_model_that_raises_as_a_required_plugin_is_set_up_ends_the_start() -> None:
    made = PluginManager()
    made.register(Noting(), "noting")
    server = Server(port=0, plugins=made, plugin_options={"noting": {"number": 4}}, plugins_require=["noting"])
    Noting.set_up = True
    try:
        with (
            trio.fail_after(5),
            pytest.raises(PluginError, match=r"failed in setup: .* its asyncapy_options raised R"),
        ):
            await server.hooks.setup(trio.CancelScope())
    finally:
        Noting.set_up = False


def test_all_wrong_options_are_reported_at_once() -> None:
    made = PluginManager(discover=False)
    made.register(Noting(), "noting")
    with pytest.raises(ConfigError) as caught:
        made.check_options({"noting": {"numbr": 4}, "other": {"a": 1}})
    assert len(str(caught.value).splitlines()) == 2
