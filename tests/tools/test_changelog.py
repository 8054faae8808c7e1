"""News fragments: towncrier inserts them above the text of the changelog, and refuses misnamed files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPES = ["removal", "feature", "fix", "doc", "misc"]


def towncrier(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "towncrier", "build", "--version", "9.9", "--date", "2030-01-31", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A Git repository with the changelog and one fragment of each type."""
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    shutil.copy2(ROOT / "CHANGELOG.md", tmp_path)
    (tmp_path / "changes").mkdir()
    shutil.copy2(ROOT / "changes" / "README.md", tmp_path / "changes")
    for number, kind in enumerate(TYPES, 1):
        (tmp_path / "changes" / f"{number}.{kind}.md").write_text(f"Text of {kind}.\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def test_the_fragments_of_the_repository_can_be_rendered() -> None:
    before = (ROOT / "CHANGELOG.md").read_bytes()
    done = towncrier(ROOT, "--draft")
    assert done.returncode == 0, done.stderr
    assert "## 9.9 (2030-01-31)" in done.stdout
    assert (ROOT / "CHANGELOG.md").read_bytes() == before


def test_a_release_puts_the_fragments_above_the_present_text_and_removes_them(copy: Path) -> None:
    types = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]["type"]
    assert [kind["directory"] for kind in types] == TYPES
    before = (copy / "CHANGELOG.md").read_text("utf-8")
    done = towncrier(copy, "--yes")
    assert done.returncode == 0, done.stderr
    news = "".join(
        f"### {kind['name']}\n\n- Text of {kind['directory']}. (#{number})\n\n" for number, kind in enumerate(types, 1)
    )
    head, marker, rest = before.partition("<!-- towncrier release notes start -->\n")
    after = (copy / "CHANGELOG.md").read_text("utf-8")
    assert after.split() == f"{head}{marker}\n## 9.9 (2030-01-31)\n\n{news}{rest}".split()
    assert after.endswith(rest)
    assert [path.name for path in (copy / "changes").iterdir()] == ["README.md"]


def test_a_fragment_without_a_number_shows_none(copy: Path) -> None:
    (copy / "changes" / "+late-replies.fix.md").write_text("No number.\n")
    assert "- No number.\n" in towncrier(copy, "--draft").stdout


@pytest.mark.parametrize("name", ["notes.md", "12.bug.md", "12.md"])
def test_a_file_that_is_not_named_as_a_fragment_is_refused(copy: Path, name: str) -> None:
    (copy / "changes" / name).write_text("Text.\n")
    done = towncrier(copy, "--draft")
    assert done.returncode == 1
    assert f"Invalid news fragment name: {name}" in done.stderr
