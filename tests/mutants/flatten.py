"""Copy the repository into one folder that mutmut can run in: ``flatten.py FOLDER``.

The distributions are merged into ``FOLDER/src``, because in the repository a folder such as ``asyncapy_core/`` hides
the package of that name from a test runner that starts beside it. Only unit tests are copied. A module is mutated if
there is a unit test of its name, or of the name of a package around it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = Path(__file__).with_name("mutmut.toml")

UNIT_TESTS = ("core", "codecs", "filters", "testing")
"""Folders of tests that open no port and start no program."""

LEFT_OUT = ("test_public_surface.py",)
"""Tests of the folders of the repository, which the copy does not have."""


def flatten(folder: Path) -> None:
    """Make the copy, and replace an earlier one.

    Args:
        folder: the folder of the copy; everything in it is removed first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    _copy_sources(folder / "src")
    _copy_tests(folder / "tests")
    mutated = json.dumps(_mutated(folder), indent=4)
    settings = f"{(ROOT / 'pyproject.toml').read_text()}\n{SETTINGS.read_text()}only_mutate = {mutated}\n"
    (folder / "pyproject.toml").write_text(settings)


def _copy_sources(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for source in (*ROOT.glob("asyncapy_*/src"), *ROOT.glob("plugins/*/src")):
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    shutil.copytree(ROOT / "asyncapy", target / "asyncapy", ignore=ignored)


def _copy_tests(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", *LEFT_OUT)
    for name in UNIT_TESTS:
        shutil.copytree(ROOT / "tests" / name, target / name, ignore=ignored)
    shutil.copytree(ROOT / "tests/vectors", target / "vectors")
    for module in (ROOT / "tests").glob("*.py"):
        shutil.copy2(module, target)


def _mutated(folder: Path) -> list[str]:
    """Return the modules that unit tests of their distribution are named after."""
    found = []
    for name in UNIT_TESTS:
        tested = {path.stem.removeprefix("test_") for path in (folder / "tests" / name).rglob("test_*.py")}
        for path in (folder / "src" / f"asyncapy_{name}").rglob("*.py"):
            if tested.intersection((path.stem, *path.parent.parts)):
                found.append(str(path.relative_to(folder)))
    return sorted(found)


if __name__ == "__main__":
    flatten(Path(sys.argv[1]))
