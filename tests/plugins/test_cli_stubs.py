"""The text of the stubs, for filter classes of all kinds."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import asyncapy
from asyncapy_cli.stubs import make_stubs
from asyncapy_core import Client, Filter, Packet, PluginManager, hookimpl

Declared = Callable[..., tuple[str, list[str]]]

CHECK = "    def check(self, c, p): return True\n"
HEAD = "from asyncapy_core import Filter\n"


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declared]:
    """Return ``declared(source, name, typed=True)``: the declaration of a filter of a package, and the notes."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def declare(
        source: str, name: str = "Mine", *, typed: bool = True, value: str = "Mine", inner: str = "", found: bool = True
    ) -> tuple[str, list[str]]:
        package = tmp_path / "brought"
        package.mkdir()
        (package / "__init__.py").write_text(HEAD + source, encoding="utf-8")
        (package / "_inner.py").write_text(HEAD + inner, encoding="utf-8")
        if typed:
            (package / "py.typed").touch()
        made: Any = importlib.import_module("brought")
        for part in value.split("."):
            made = getattr(made, part)
        if not found:
            sys.path.remove(str(tmp_path))
        manager = PluginManager(discover=False)
        manager.register(provider(**{name: made}), "brought")
        stubs = make_stubs(manager)
        text = stubs.files[Path("asyncapy", "filters.pyi")]
        return textwrap.dedent(text.partition("class Filters(_Filter):\n")[2]), stubs.notes

    yield declare
    for module in set(sys.modules) - before:
        del sys.modules[module]


def provider(**filters: type[Filter]) -> object:
    return SimpleNamespace(asyncapy_filters=hookimpl(lambda: filters))


def filter_with(parameters: str, *, before: str = "") -> str:
    return f"{before}class Mine(Filter):\n    def __init__(self, {parameters}): pass\n{CHECK}"


def test_a_class_of_a_typed_package_is_imported(declared: Declared) -> None:
    assert declared(filter_with("a: str")) == ("from brought import Mine as Mine\n", [])


def test_a_class_of_another_name_is_an_alias(declared: Declared) -> None:
    expected = "from brought import Mine as _imported_Loud\nLoud: _TypeAlias = _imported_Loud\n"
    assert declared(filter_with("a: str"), "Loud") == (expected, [])


def test_a_class_within_a_class_is_an_alias(declared: Declared) -> None:
    source = "class Outer:\n" + textwrap.indent(filter_with("a: str"), "    ")
    expected = "from brought import Outer as _imported_Mine\nMine: _TypeAlias = _imported_Mine.Mine\n"
    assert declared(source, value="Outer.Mine") == (expected, [])


def test_a_class_under_a_condition_is_found(declared: Declared) -> None:
    class_ = textwrap.indent(filter_with("a: str"), "    ")
    declaration, notes = declared(f"try:\n    import nowhere\nexcept ImportError:\n{class_}")
    assert (declaration, notes) == ("from brought import Mine as Mine\n", [])


@pytest.mark.parametrize(
    ("parameters", "written"),
    [
        ("a: str", "(self, /, a: str) -> None"),
        ("a, b=None", "(self, /, a: _Any, b: _Any = ...) -> None"),
        ("a: int | None = 3", "(self, /, a: int | None = ...) -> None"),
        ("a: list[dict[str, int]]", "(self, /, a: list[dict[str, int]]) -> None"),
        ("a: 'bytes'", "(self, /, a: bytes) -> None"),
        ("a: None", "(self, /, a: None) -> None"),
        ("a: 'list[Unknown]'", "(self, /, a: _Any) -> None"),
        ("a: Filter", "(self, /, a: _Any) -> None"),
        ("a: 'not an annotation'", "(self, /, a: _Any) -> None"),
        ("*a: int, b: str, **c: float", "(self, /, *a: int, b: str, **c: float) -> None"),
        ("a: int, /, b: str, *, c: bool", "(self, a: int, /, b: str, *, c: bool) -> None"),
    ],
)
def test_a_class_of_an_untyped_package_has_its_signature(declared: Declared, parameters: str, written: str) -> None:
    expected = f"""\
from brought import Mine as _imported_Mine
class Mine(_imported_Mine, _Filter):
    def __init__{written}: ...
"""
    assert declared(filter_with(parameters), typed=False) == (expected, [])


def test_a_parameter_may_be_called_self(declared: Declared) -> None:
    source = f"class Mine(Filter):\n    def __init__(this, self: int): pass\n{CHECK}"
    declaration, _ = declared(source, typed=False)
    assert declaration.endswith("    def __init__(_self, /, self: int) -> None: ...\n")


def test_a_class_without_annotations_has_its_signature(declared: Declared) -> None:
    expected = """\
from brought import Mine as _imported_Mine
class Mine(_imported_Mine, _Filter):
    def __init__(self, /, a: _Any, b: _Any = ...) -> None: ...
"""
    assert declared(filter_with("a, b=1")) == (expected, [])


def test_a_class_without_an_initializer_takes_no_argument(declared: Declared) -> None:
    declaration, notes = declared(f"class Mine(Filter):\n{CHECK}", typed=False)
    assert "    def __init__(self, /) -> None: ...\n" in declaration
    assert notes == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (f"def make():\n    class Mine(Filter):\n    {CHECK}    return Mine\nMine = make()\n", "within a function"),
        (
            "Mine = type('Mine', (Filter,), {'check': lambda s, c, p: True, '__module__': __name__})\n",
            "class statement",
        ),
        ("Mine = type('Mine', (Filter,), {'check': lambda s, c, p: True, '__module__': 'no'})\n", "no module"),
        (
            "Mine = type('Other', (Filter,), {'check': lambda s, c, p: True, '__module__': __name__})\n",
            "another object",
        ),
        (f"{filter_with('a: str')}Mine.__module__ = '__main__'\n", "no module"),
    ],
)
def test_a_class_that_checkers_cannot_find_is_any(declared: Declared, source: str, reason: str) -> None:
    declaration, (note,) = declared(source)
    assert declaration == "Mine: _Any\n"
    assert note.startswith("Filters.Mine is of type Any: ")
    assert reason in note


def test_a_class_whose_metaclass_raises_is_any(declared: Declared) -> None:
    source = (
        "from abc import ABCMeta\nclass Meta(ABCMeta):\n    def __getattribute__(cls, name):\n"
        "        if name == '__qualname__':\n            raise RuntimeError('a slip')\n"
        "        return super().__getattribute__(name)\n"
        f"class Mine(Filter, metaclass=Meta):\n{CHECK}"
    )
    assert declared(source) == ("Mine: _Any\n", ["Filters.Mine is of type Any: its class raises RuntimeError: a slip"])


def test_a_class_of_a_package_that_is_not_on_the_path_is_any(declared: Declared) -> None:
    declaration, (note,) = declared(filter_with("a: str"), found=False)
    assert declaration == "Mine: _Any\n"
    assert "a folder of sys.path" in note


@pytest.mark.parametrize(
    ("exports", "module"),
    [("__all__ = ['Mine']\n", "brought"), ("", "brought._inner"), ("__all__ = []\n", "brought._inner")],
)
def test_a_class_is_imported_from_the_package_that_exports_it(declared: Declared, exports: str, module: str) -> None:
    declaration, notes = declared(f"from brought._inner import Mine\n{exports}", inner=filter_with("a: str"))
    assert (declaration, notes) == (f"from {module} import Mine as Mine\n", [])


def test_a_class_of_a_module_that_a_program_made_is_any(declared: Declared) -> None:
    module = "import sys, types\nsys.modules['brought.made'] = made = types.ModuleType('brought.made')\n"
    exec_ = f"exec({HEAD + filter_with('a: str')!r}, vars(made))\nMine = made.Mine\n"
    declaration, (note,) = declared(module + exec_)
    assert declaration == "Mine: _Any\n"
    assert "not in a Python file" in note


def test_a_keyword_cannot_be_the_name_of_a_filter(declared: Declared) -> None:
    assert declared(filter_with("a: str"), "class") == (
        "...\n",
        ["Filters.class is left out: 'class' is a keyword of Python"],
    )


def test_a_name_that_two_plugins_claim_is_left_out(declared: Declared) -> None:
    class One(Filter):
        def check(self, c: Client, p: Packet) -> bool:
            return True

    manager = PluginManager(discover=False)
    manager.register(provider(Same=One), "one")
    manager.register(provider(Same=One), "two")
    stubs = make_stubs(manager)
    assert "Same" not in stubs.files[Path("asyncapy", "filters.pyi")]
    (note,) = stubs.notes
    assert note.startswith("Filters.Same is left out: filter 'Same' is claimed by plugin 'one'")


def test_the_package_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncapy_cli.stubs.PACKAGE", "asyncapy_nowhere")
    with pytest.raises(FileNotFoundError, match="pip install asyncapy_nowhere"):
        make_stubs(PluginManager(discover=False))


def test_each_module_of_the_package_has_a_stub_with_the_same_exports() -> None:
    files = make_stubs(PluginManager(discover=False)).files
    package = Path(asyncapy.__file__).parent
    assert sorted(files) == sorted(Path("asyncapy", f"{path.stem}.pyi") for path in package.glob("*.py"))
    for path, text in files.items():
        names: dict[str, Any] = {}
        exec(compile(text, str(path), "exec"), names)
        module = "asyncapy" if path.stem == "__init__" else f"asyncapy.{path.stem}"
        assert names["__all__"] == importlib.import_module(module).__all__, path
