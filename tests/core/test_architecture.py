"""ARCHITECTURE.md describes the modules of core that exist, and they are few and distinct. make lint checks imports."""

from __future__ import annotations

import difflib
import graphlib
import itertools
import re
from pathlib import Path

import grimp

import asyncapy_core

CORE = Path(asyncapy_core.__file__).parent
ARCHITECTURE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")
PACKAGES = ["client", "config", "foreign", "keys", "logs", "net", "plugins", "protocol", "routing", "server", "testing"]


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def described(row: str) -> set[str]:
    """The modules in a row of the table of packages: the names in backticks before a colon, or in a list."""
    (cell,) = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", ARCHITECTURE, re.MULTILINE)
    return set(re.findall(r"(?<!`)`([a-z_]+)`(?=[,:]| without)", cell))


def test_the_table_has_all_modules_of_each_package_and_no_other() -> None:
    assert {path.name for path in CORE.iterdir() if (path / "__init__.py").exists()} == set(PACKAGES)
    for package in PACKAGES:
        assert described(f"`{package}/`") == modules(CORE / package), package
    assert described("(flat)") == modules(CORE)


def test_ten_questions_name_existing_files() -> None:
    section = ARCHITECTURE.partition("## Where is …?")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| (\S.*\?) \| (.*) \|$", section, re.MULTILINE)
    assert len(answers) == 10
    for question, answer in answers:
        names = re.findall(r"`([a-z_/]+\.py)`", answer)
        assert names, question
        assert [name for name in names if not (CORE / name).is_file()] == []


def test_there_are_few_flat_modules() -> None:
    assert len(modules(CORE)) <= 12


def test_no_two_modules_differ_by_one_letter() -> None:
    everywhere = set(PACKAGES).union(modules(CORE), *(modules(CORE / package) for package in PACKAGES))
    for one, other in itertools.combinations(sorted(everywhere), 2):
        changes = [change for change in difflib.ndiff(one, other) if change[0] in "+-"]
        assert len(changes) > 1, (one, other)


def test_no_imports_go_in_a_circle_type_checking_imports_included() -> None:
    graph = grimp.build_graph("asyncapy_core", exclude_type_checking_imports=False, cache_dir=None)
    modules = {name for name in graph.modules if not graph.find_children(name)}
    imports = {name: graph.find_modules_directly_imported_by(name) & modules for name in modules}
    assert len(modules) > 70
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError
