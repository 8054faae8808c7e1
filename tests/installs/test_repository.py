"""The files of the repository: they contain no package index and no path of a machine; hooks run existing targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).parents[2]

# The brackets keep these from matching themselves.
FORBIDDEN = [
    "index[-]url",
    "registry [=]",
    "pypi[.]org/simple",
    "files[.]pythonhosted[.]org",
    "/work[/]",
    "/opt[/](pypi|wheels)",
    "/home[/][a-z]",
    "/root[/][a-z.]",
]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """All files that Git does not ignore."""
    ignored = GitIgnoreSpec.from_lines([".git", *(ROOT / ".gitignore").read_text("utf-8").splitlines()])
    return [ROOT / name for name in ignored.match_tree_files(ROOT, negate=True)]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_names_a_package_index_or_a_path_of_this_machine(files: list[Path], pattern: str) -> None:
    assert ROOT / "pyproject.toml" in files
    assert Path(__file__) in files
    holding = [str(path.relative_to(ROOT)) for path in files if re.search(pattern.encode(), path.read_bytes())]
    assert holding == []


def test_the_hooks_of_pre_commit_run_targets_of_the_makefile() -> None:
    entries = re.findall(r"^ *entry: (.*)$", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"), re.MULTILINE)
    assert entries == ["make format", "make lint"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for entry in entries:
        assert re.search(rf"^{entry.removeprefix('make ')}:", makefile, re.MULTILINE), entry
