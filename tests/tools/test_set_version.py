"""The version is in one file; the files that repeat it agree, and `make version` writes them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import asyncapy_core

ROOT = Path(__file__).parents[2]
PATTERNS = ("pyproject.toml", "asyncapy_*/pyproject.toml", "plugins/*/pyproject.toml")
REPEATED = [path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
SOURCE = "asyncapy_core/src/asyncapy_core/__init__.py"


def set_version(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tools" / "set_version.py"
    return subprocess.run(
        [sys.executable, str(script), "--root", str(root), *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of the repository that hold the version."""
    for name in (*REPEATED, SOURCE, "docs/install.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def test_no_file_of_the_repository_disagrees_with_the_version_of_core() -> None:
    assert len(REPEATED) == 10
    done = set_version(ROOT, "--check")
    assert (done.returncode, done.stdout) == (0, f"{asyncapy_core.__version__}: all files agree\n"), done.stderr


@pytest.mark.parametrize("name", [*REPEATED, "docs/install.md"])
def test_a_file_that_disagrees_is_named_and_then_written(copy: Path, name: str) -> None:
    text = (copy / name).read_text("utf-8")
    (copy / name).write_text(text.replace(asyncapy_core.__version__, "0.5.9"))
    done = set_version(copy, "--check")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: the version is not {asyncapy_core.__version__}")
    assert set_version(copy).returncode == 0
    assert (copy / name).read_text("utf-8") == text


def test_a_new_version_is_written_everywhere(copy: Path) -> None:
    assert set_version(copy, "0.7.1rc2").returncode == 0
    assert '__version__ = "0.7.1rc2"' in (copy / SOURCE).read_text("utf-8")
    assert set_version(copy, "--check").stdout == "0.7.1rc2: all files agree\n"
    ours = []
    for name in REPEATED:
        text = (copy / name).read_text("utf-8")
        project = tomllib.loads(text)["project"]
        assert project["version"] == "0.7.1rc2"
        assert asyncapy_core.__version__ not in text, name
        ours += [requirement for requirement in project["dependencies"] if requirement.startswith("asyncapy")]
    assert len(ours) == 13
    assert {re.sub("^asyncapy-[a-z]+", "", requirement) for requirement in ours} == {"==0.7.1rc2", ">=0.7.1rc2,<0.8"}


def test_nothing_but_the_version_and_the_requirements_of_our_distributions_changes(copy: Path) -> None:
    before = [tomllib.loads((copy / name).read_text("utf-8")) for name in REPEATED]
    assert set_version(copy, "0.7.0").returncode == 0
    for name, old in zip(REPEATED, before, strict=True):
        new = tomllib.loads((copy / name).read_text("utf-8"))
        for parsed in (old, new):
            del parsed["project"]["version"]
            others = [each for each in parsed["project"]["dependencies"] if not each.startswith("asyncapy")]
            parsed["project"]["dependencies"] = others
            parsed["project"].get("optional-dependencies", {}).pop("cli", None)  # the command line is ours, too
        assert old == new, name


@pytest.mark.parametrize("version", [" ", "next", "0.6.0-dev0", "v0.6.0"])
def test_a_version_that_is_not_in_normal_form_changes_nothing(copy: Path, version: str) -> None:
    before = {name: (copy / name).read_text("utf-8") for name in (*REPEATED, SOURCE)}
    done = set_version(copy, version)
    assert done.returncode == 1
    assert "give" in done.stderr
    assert {name: (copy / name).read_text("utf-8") for name in before} == before
