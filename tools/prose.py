"""Count words that make prose hard to read: ``prose.py [--worst N] [--check]``.

The prose of the repository is the comments and docstrings of its Python files, and its Markdown files without code.
Only files that Git tracks are read. Any string statement is a docstring, such as the description of a constant.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HARD_WORDS: Final = (
    "what", "whatever", "who", "whoever", "those", "nobody", "told", "says", "asks", "knows", "speaks", "anew",
)  # fmt: skip
"""Words that mostly stand in place of a name or a technical term."""

LIMITS: Final = {"what": 1.0, "whatever": 0.5, "who": 0.5, "nobody": 0.5, "told": 0.5, "anew": 0.5}
"""How often a word may occur in 1000 words of the Python files, and in 1000 words of the Markdown files."""

KINDS: Final = (("Python", ".py"), ("Markdown", ".md"))

_FENCED_CODE: Final = re.compile(r"^ *(```+|~~~+).*?^ *\1", re.MULTILINE | re.DOTALL)
_CODE_SPAN: Final = re.compile(r"(`+)[^`]+\1")


@dataclass(frozen=True, slots=True)
class Prose:
    """The prose of a file.

    Attributes:
        name: the path of the file, relative to the root folder.
        size: the number of words.
        hard: the number of occurrences of each hard word.
    """

    name: str
    size: int
    hard: Counter[str]


def read_prose(root: Path) -> Iterator[Prose]:
    """Yield the prose of each Python and Markdown file that Git tracks.

    Args:
        root: the root folder of a Git repository.

    Raises:
        ValueError: the folder is not in a Git repository, or a file cannot be parsed.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--", "*.py", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # fixed arguments
    if listed.returncode:
        raise ValueError(f"cannot list the files of {root}: {listed.stderr.strip()}; give a Git repository as --root")
    for name in sorted(set(listed.stdout.split("\0")[:-1])):
        if (root / name).is_file():  # it may have been deleted since
            text = python_prose(root / name) if name.endswith(".py") else markdown_prose(root / name)
            words = re.findall(r"\w+", _CODE_SPAN.sub(" ", text).lower())
            yield Prose(name, len(words), Counter(word for word in words if word in HARD_WORDS))


def python_prose(path: Path) -> str:
    """Return the docstrings and comments of a Python file.

    Raises:
        ValueError: the file is not valid Python.
    """
    try:
        with tokenize.open(path) as file:
            source = file.read()
        nodes = ast.walk(ast.parse(source))
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ValueError(f"{path} is not valid Python: {error}") from error
    statements = (node.value for node in nodes if isinstance(node, ast.Expr))
    docstrings = [each.value for each in statements if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join([*docstrings, *comments])


def markdown_prose(path: Path) -> str:
    """Return the text of a Markdown file without its fenced code."""
    return _FENCED_CODE.sub(" ", path.read_text("utf-8"))


def rates(files: Iterable[Prose]) -> tuple[int, dict[str, float]]:
    """Return the number of words in some files, and the occurrences of each hard word in 1000 words."""
    size = 0
    hard: Counter[str] = Counter()
    for file in files:
        size += file.size
        hard += file.hard
    return size, {word: 1000 * hard[word] / max(1, size) for word in HARD_WORDS}


def report(files: list[Prose], worst: int) -> Iterator[str]:
    """Yield the lines of the report: the rates by kind of file, and the files with the most hard words.

    Args:
        files: the prose of all files.
        worst: the number of files to list.
    """
    for kind, suffix in KINDS:
        size, found = rates(file for file in files if file.name.endswith(suffix))
        figures = ", ".join(f"{word} {rate:.1f}" for word, rate in found.items())
        yield f"{kind}: {size} words; in 1000 words: {figures}"
    for file in sorted(files, key=lambda file: -file.hard.total())[:worst]:
        if file.hard:
            found_words = ", ".join(f"{word} {count}" for word, count in file.hard.most_common())
            yield f"{file.name}: {file.hard.total()} in {file.size} words: {found_words}"


def check(files: list[Prose]) -> Iterator[str]:
    """Yield a message for each kind of file and each word of `LIMITS` that occurs too often in it."""
    for kind, suffix in KINDS:
        ours = [file for file in files if file.name.endswith(suffix)]
        found = rates(ours)[1]
        for word, limit in LIMITS.items():
            if found[word] > limit:
                worst = sorted(ours, key=lambda file: -file.hard[word])[:5]
                names = ", ".join(f"{file.name} ({file.hard[word]})" for file in worst if file.hard[word])
                yield (
                    f"the prose of {kind} files has {found[word]:.2f} {word!r} in 1000 words, and at most {limit:g} "
                    f"are allowed; name the things instead, first in {names}"
                )


def main() -> None:
    """Print the report; with ``--check``, fail if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="list the N files with the most hard words")
    parser.add_argument("--check", action="store_true", help=f"fail if there are too many of {', '.join(LIMITS)}")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="another repository")
    arguments = parser.parse_args()
    try:
        files = list(read_prose(arguments.root))
    except ValueError as error:
        sys.exit(str(error))
    for line in report(files, arguments.worst):
        print(line)
    if arguments.check and (messages := list(check(files))):
        sys.exit("\n".join(messages))


if __name__ == "__main__":
    main()
