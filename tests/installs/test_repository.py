"""What no file of the repository may hold: a package index, or a path of the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

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
    """All files that are committed, and those that would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_file_names_a_package_index_or_a_path_of_this_machine(files: list[Path], pattern: str) -> None:
    assert ROOT / "pyproject.toml" in files
    assert Path(__file__) in files
    holding = [str(path.relative_to(ROOT)) for path in files if re.search(pattern.encode(), path.read_bytes())]
    assert holding == []
