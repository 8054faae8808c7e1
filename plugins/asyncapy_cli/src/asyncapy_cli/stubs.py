"""Stubs of the package ``asyncapy``, in which `Filters` has the filters of the installed plugins as attributes.

Makes the text of the files; `asyncapy plugins stubs` writes them. All modules of the package have a stub, as pyright
looks for the modules of a package beside its `__init__.pyi` only. All but that of `filters` repeat the module.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from asyncapy_core import Filter, PluginManager
from asyncapy_core.errors import PluginCollision
from asyncapy_core.logs import reason_of
from asyncapy_core.plugins.plugin_files import PACKAGE_PREFIX

PACKAGE: Final = "asyncapy"
HEADER: Final = "# Written by `asyncapy plugins stubs`. Run it again when plugins or asyncapy change.\n"
"""The first line of each file; a file without it is not overwritten."""
FOR_LINTERS: Final = "# flake8: noqa\n# pyright: basic\n"
NAMESPACE: Final = """\
from typing import Any as _Any, TypeAlias as _TypeAlias

from asyncapy_core import Client as _Client, Filter as Filter, Packet as _Packet, Prefix as Prefix

__all__ = ["Filter", "Filters", "Prefix"]

class _Filter(Filter):
    def check(self, c: _Client, p: _Packet) -> _Any: ...

class Filters(_Filter):
"""
"""The beginning of the stub of `filters`. No name of a filter begins with an underscore."""
UNTYPED: Final = '# mypy: disable-error-code="import-untyped,misc"\n'
"""For packages without ``py.typed``: to mypy their classes are Any, and it reports a base class that is Any."""


@dataclass(frozen=True, slots=True)
class Stubs:
    """The files to write.

    Attributes:
        files: their texts by path, relative to the folder in which type checkers look for stubs.
        notes: filters that are left out or of type Any, each with the reason.
    """

    files: dict[Path, str]
    notes: list[str]


def make_stubs(manager: PluginManager) -> Stubs:
    """Make the stubs for the plugins of a manager.

    Raises:
        FileNotFoundError: the package ``asyncapy`` is not installed.
    """
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed; pip install {PACKAGE}")
    notes: list[str] = []
    files = {
        Path(PACKAGE, f"{module.stem}.pyi"): HEADER + FOR_LINTERS + _repeated(module)
        for module in sorted(Path(package.submodule_search_locations[0]).glob("*.py"))
    }
    files[Path(PACKAGE, "filters.pyi")] = HEADER + FOR_LINTERS + UNTYPED + NAMESPACE + _filters(manager, notes)
    return Stubs(files, notes)


def _repeated(module: Path) -> str:
    """Return the statements of a module that only imports and exports, without its docstring."""
    text = module.read_text(encoding="utf-8")
    statements = [each for each in ast.parse(text).body if not isinstance(each, ast.Expr)]
    return "".join(f"{ast.get_source_segment(text, each)}\n" for each in statements)


def _filters(manager: PluginManager, notes: list[str]) -> str:
    """Return the body of the class `Filters`, and add a note to ``notes`` for each filter that it lacks."""
    notes += [
        f"{record.title} is {record.state}, and its filters are left out: {record.reason}"
        for record in manager.plugins
        if record.state != "loaded"
    ]
    lines: list[str] = []
    for name in manager.filters:
        try:
            found = manager.filters[name]
        except PluginCollision as error:
            notes.append(f"Filters.{name} is left out: {error}")
            continue
        if iskeyword(name):
            notes.append(f"Filters.{name} is left out: {name!r} is a keyword of Python")
            continue
        try:
            reason = _hidden(found)
            declaration = [] if reason else list(_declaration(name, found))
        except Exception as error:  # a class may have a metaclass that raises
            reason = f"its class raises {reason_of(error)}"
        if reason:
            notes.append(f"Filters.{name} is of type Any: {reason}")
            declaration = [f"{name}: _Any"]
        lines += declaration
    return "".join(f"    {line}\n" for line in lines or ["..."])


def _declaration(name: str, found: type[Filter]) -> Iterator[str]:
    """Yield the lines that make a filter class an attribute.

    Where mypy would check no argument, or complain of each call, the lines define a subclass that has the signature.
    """
    top, _, nested = found.__qualname__.partition(".")
    module = _public_module(found)
    checked = _is_checked(found)
    if checked and name == found.__qualname__:
        yield f"from {module} import {name} as {name}"
        return
    yield f"from {module} import {top} as _imported_{name}"
    value = f"_imported_{name}.{nested}" if nested else f"_imported_{name}"
    if checked:
        yield f"{name}: _TypeAlias = {value}"
    else:
        yield f"class {name}({value}, _Filter):"
        yield f"    def __init__{_signature(found)}: ..."


def _hidden(found: type[Filter]) -> str:
    """Return the reason why type checkers cannot find a class, or nothing."""
    title = f"{found.__module__}.{found.__qualname__}"
    module = sys.modules.get(found.__module__)
    if found.__module__ == "__main__" or module is None:
        return f"{title} is in no module that can be imported"
    if found.__module__.startswith(PACKAGE_PREFIX):
        return f"{title} is in a folder of plugins, in which type checkers do not look"
    if "<locals>" in found.__qualname__:
        return f"{title} is a class within a function"
    if _looked_up(module, found.__qualname__) is not found:
        return f"{title} is another object than the filter"
    source = _source(module)
    if source is None or not _is_on_path(found.__module__):
        return f"{title} is where type checkers do not look: not in a Python file in a folder of sys.path"
    if not _has_class(ast.parse(source.read_bytes()).body, found.__qualname__.split(".")):
        return f"{title} is not made by a class statement"
    return ""


def _looked_up(module: ModuleType, qualname: str) -> object:
    value: object = module
    for name in qualname.split("."):
        value = getattr(value, name, None)
    return value


def _source(module: ModuleType) -> Path | None:
    """Return the file that type checkers read: the stub of a module, or the module."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    path = Path(file)
    stub = path.with_name(f"{path.name.partition('.')[0]}.pyi")
    return stub if stub.is_file() else path if path.suffix == ".py" and path.is_file() else None


def _is_on_path(module: str) -> bool:
    """Return True if a module is in a folder of ``sys.path``; those of some editable installs are not."""
    found = _spec(module.partition(".")[0])
    if found is None:
        return False
    places = found.submodule_search_locations or [found.origin or ""]
    folders = {Path(folder).resolve() for folder in sys.path}
    return any(Path(place).resolve().parent in folders for place in places)


def _spec(module: str) -> ModuleSpec | None:
    """Return the specification of a module, or None for one that was not imported, but made by a program."""
    try:
        return find_spec(module)
    except ValueError:
        return None


def _has_class(body: Sequence[ast.stmt], names: list[str]) -> bool:
    """Return True if statements define a class, or one within a class, also under ``if`` and ``try``."""
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name == names[0]:
            return len(names) == 1 or _has_class(statement.body, names[1:])
        if isinstance(statement, (ast.If, ast.Try)):
            others = [each for handler in getattr(statement, "handlers", ()) for each in handler.body]
            if _has_class([*statement.body, *others, *statement.orelse], names):
                return True
    return False


def _public_module(found: type[Filter]) -> str:
    """Return the package that exports a class in its ``__all__``, the outermost one, or the module that defines it."""
    parts = found.__module__.split(".")
    top = found.__qualname__.partition(".")[0]
    value = getattr(sys.modules[found.__module__], top)
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        module = sys.modules.get(package)
        if top in getattr(module, "__all__", ()) and getattr(module, top, None) is value:
            return package
    return found.__module__


def _is_checked(found: type[Filter]) -> bool:
    """Return True if mypy checks the arguments of a class: its package is typed, and its ``__init__`` is annotated."""
    parts = found.__module__.split(".")
    specs = [_spec(".".join(parts[: length + 1])) for length in range(len(parts))]
    folders = [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    return any(Path(folder, "py.typed").is_file() for folder in folders) and not _is_unannotated(found.__init__)


def _is_unannotated(init: object) -> bool:
    """Return True for a function without annotations, each call of which ``mypy --strict`` reports."""
    try:
        return inspect.isfunction(init) and not inspect.get_annotations(init)
    except Exception:  # Python 3.14 evaluates annotations here, which may raise anything
        return False


def _signature(found: type[Filter]) -> str:
    """Return the parameters of a class as those of its ``__init__``, with annotations that are of built-in types."""
    try:
        given = inspect.signature(found).parameters.values()
    except Exception:  # there is none, or, with Python 3.14, an annotation that may raise anything
        return "(self, *args: _Any, **kwargs: _Any) -> None"
    taken = any(each.name == "self" for each in given)
    first = inspect.Parameter("_self" if taken else "self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [
        each.replace(
            annotation=_Text(_annotation(each.annotation)),
            default=each.empty if each.default is each.empty else _Text("..."),
        )
        for each in given
    ]
    return str(inspect.Signature([first, *parameters], return_annotation=_Text("None")))


class _Text:
    """An annotation or a default that is written as this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _annotation(annotation: Any) -> str:
    """Return an annotation as text where all of its names are built in, ``_Any`` for others."""
    if annotation is inspect.Parameter.empty:
        return "_Any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return "_Any"
    return ast.unparse(tree) if _is_built_in(tree.body) else "_Any"


def _is_built_in(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name):
            return isinstance(getattr(builtins, name, None), type)
        case ast.Constant(value=None):
            return True
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_built_in(left) and _is_built_in(right)
        case ast.Subscript(value=ast.Name(id="list" | "dict" | "tuple" | "set" | "frozenset"), slice=part):
            parts = part.elts if isinstance(part, ast.Tuple) else [part]
            return all(map(_is_built_in, parts))
    return False
