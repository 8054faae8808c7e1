"""The counter of hard words, run as a program on files in a Git repository of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "prose.py"
EASY = "The server sends a reply to each client in the order of the requests."
"""14 words."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty Git repository."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def add(repository: Path, name: str, text: str) -> None:
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    subprocess.run(["git", "add", name], cwd=repository, check=True)


def prose(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def counted(done: subprocess.CompletedProcess[str], kind: str, word: str) -> tuple[int, float]:
    """Return the number of words in files of a kind, and the rate of a hard word in them."""
    line = re.search(rf"^{kind}: (\d+) words; .*\b{word} ([0-9.]+)", done.stdout, re.MULTILINE)
    assert line is not None, done.stdout + done.stderr
    return int(line[1]), float(line[2])


def sentences(number: int) -> str:
    return "\n".join([EASY] * number)


@pytest.mark.parametrize(
    "text",
    [
        f'"""What comes.\n\n{sentences(20)}\n"""\n',
        f'def f() -> None:\n    """What comes.\n\n{sentences(20)}\n    """\n',
        f'X = 1\n"""What comes.\n\n{sentences(20)}\n"""\n',
        f'"""{sentences(20)}"""\n\nx = 1  # what comes\n',
    ],
    ids=["module", "function", "constant", "comment"],
)
def test_a_file_over_the_limit_fails_the_check(repository: Path, text: str) -> None:
    add(repository, "package/over.py", text)
    done = prose(repository, "--check")
    assert done.returncode == 1
    assert counted(done, "Python", "what") == (282, 3.5)
    assert done.stderr == (
        "the prose of Python files has 3.55 'what' in 1000 words, and at most 1 are allowed; "
        "name the things instead, first in package/over.py (1)\n"
    )
    assert prose(repository).returncode == 0


def test_a_file_under_the_limit_passes_the_check(repository: Path) -> None:
    add(repository, "under.py", f'"""What comes.\n\n{sentences(80)}\n"""\n')
    done = prose(repository, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert counted(done, "Python", "what") == (1122, 0.9)


def test_the_limit_holds_for_all_python_files_together(repository: Path) -> None:
    add(repository, "over.py", "# what comes\n")
    assert prose(repository, "--check").returncode == 1
    add(repository, "plain.py", f'"""{sentences(80)}"""\n')
    assert prose(repository, "--check").returncode == 0


@pytest.mark.parametrize("word", ["whatever", "who", "nobody", "told", "anew"])
def test_each_of_the_other_words_has_a_limit(repository: Path, word: str) -> None:
    add(repository, "plain.py", f"# The {word}.\n")
    assert f"500.00 {word!r} in 1000 words, and at most 0.5 are allowed" in prose(repository, "--check").stderr


def test_words_in_code_and_in_ordinary_strings_do_not_count(repository: Path) -> None:
    add(
        repository,
        "code.py",
        '"""The argument ``what`` of `tell(what)` is a name; so is what_is."""\n\n'
        'what = "what, whoever asks"\n\n\n'
        "def tell(what: str) -> str:\n"
        '    print("what", f"what {what}")\n'
        '    return """what\n\n    and who\n    """\n',
    )
    done = prose(repository, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert counted(done, "Python", "what") == (9, 0.0)
    assert counted(done, "Python", "who")[1] == counted(done, "Python", "whoever")[1] == 0.0


def test_markdown_is_counted_and_checked_without_its_code(repository: Path) -> None:
    add(repository, "page.md", "# What it is\n\nSee `what`.\n\n```python\nwhat = 1  # what\n```\n\nWhat else?\n")
    done = prose(repository, "--check")
    assert done.stderr.startswith("the prose of Markdown files has 333.33 'what' in 1000 words")
    assert counted(done, "Markdown", "what") == (6, 333.3)
    assert counted(done, "Python", "what") == (0, 0.0)


def test_only_files_that_git_tracks_and_that_exist_are_read(repository: Path) -> None:
    (repository / "untracked.py").write_text("# what\n")
    add(repository, "deleted.py", "# what\n")
    (repository / "deleted.py").unlink()
    add(repository, "notes.txt", "what\n")
    done = prose(repository, "--check")
    assert (done.returncode, counted(done, "Python", "what")) == (0, (0, 0.0))


def test_the_worst_files_are_listed_on_demand(repository: Path) -> None:
    add(repository, "a.py", "# who knows\n")
    add(repository, "b.md", "What, what and anew.\n")
    add(repository, "c.py", "# plain\n")
    assert prose(repository).stdout.count("\n") == 2
    assert prose(repository, "--worst", "1").stdout.splitlines()[2:] == ["b.md: 3 in 4 words: what 2, anew 1"]
    assert prose(repository, "--worst", "9").stdout.splitlines()[2:] == [
        "b.md: 3 in 4 words: what 2, anew 1",
        "a.py: 2 in 2 words: who 1, knows 1",
    ]


def test_a_file_that_is_not_python_and_a_folder_that_is_no_repository_are_errors(repository: Path) -> None:
    add(repository, "broken.py", "def f(:\n")
    done = prose(repository)
    assert (done.returncode, done.stdout) == (1, "")
    assert "broken.py is not valid Python: invalid syntax" in done.stderr
    done = prose(repository / "nowhere")
    assert (done.returncode, "give a Git repository as --root" in done.stderr) == (1, True)
