"""Follows the steps of a page of the documentation: saves its files, and runs its commands.

Handles Markdown, files and processes; it does not use AsyncAPY.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ports import free_port

FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(?::caption: (.*?)\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("1500", "1501", "1502", "1503", "8081", "9464")
"""Ports in the pages; each run replaces them with free ports."""
DEADLINE = 30.0
SUMMARY = re.compile(r"^server  +.*\n(?:\w+  +.*\n)*", re.MULTILINE)
VARIABLE = re.compile(
    r"""
      \d\d/\d\d/\d{4}[ ]\d\d:\d\d:\d\d[ ][AP]M                  # the time of a line of the log
    | \d{4}-\d\d-\d\d (?: [T ]\d\d:\d\d:\d\d (?: \.\d+ )? Z? )?   # a time or a date in the form of ISO 8601
    | \b[0-9a-f]{16}\b                                           # the id of a key
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b           # the UUID of a session
    | \b in[ ]\d+\.\d+s \b | \b\d+[ ]ms\b | (?<="retry_after":[ ])[\d.]+
    | (?: (?<=asyncapy-codecs[ ]) | (?<=asyncapy-filters[ ]) ) \d[\w.]*
    | (?<!\S)/\S*/ | (?<=\() _ssl\.c:\d+ | (?<=SQLite[ ])[\d.]+
    """,
    re.VERBOSE,
)
"""The parts of an output that are not the same in each run."""


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page."""

    language: str
    caption: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], (found[2] or "").strip('"`'), found[3], text[: found.start()].count("\n") + 1)
        for found in FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Follows the blocks of a page.

    Attributes:
        folder: the folder of the files and commands; ``cd`` changes it.
        environ: the environment variables of the commands; ``export`` changes it.
        ports: the free port for each port in the pages.
        started: the commands that run in the background.
    """

    folder: Path
    environ: dict[str, str]
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in PORTS})
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        """Save a block with a caption, run a block of Python or of console commands, and ignore others."""
        text = self.adapted(block.text)
        if block.caption:
            path = self.folder / block.caption.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.language == "python":
            self.run(f"python -c {shlex.quote(text)}", "")
        elif block.language == "console":
            for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
                self.type(command, expected)

    def type(self, command: str, expected: str) -> None:
        if command.startswith("cd "):
            self.folder /= command[3:]
        elif command.startswith("export "):
            name, _, value = command[7:].partition("=")
            self.environ[name] = value
        elif command.endswith(" &"):
            self.start(command[:-2], expected)
        elif command == "kill %1":
            (job,) = (process for process in self.started if process.poll() is None)
            job.terminate()
            job.wait(DEADLINE)
        else:
            self.run(command, expected)

    def run(self, command: str, expected: str) -> None:
        """Run a command to its end; its output must match the page, or, if the page shows none, it must succeed."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environ, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if expected:
            assert matches(expected, without_suggestions(done.stdout)), (
                f"$ {command}\n{done.stdout}\n-- but the page shows --\n{expected}"
            )
        else:
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"

    def start(self, command: str, expected: str) -> None:
        """Run a command in the background, and wait until its output matches the page.

        If the page shows no output, wait until the server serves, unless its log goes to another place.
        """
        serves = "asyncapy serve" in command and "--log-config" not in command
        with tempfile.TemporaryFile() as output:
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stdout=output, stderr=output
                )
            )
            deadline = time.monotonic() + DEADLINE
            while True:
                text = os.pread(output.fileno(), 100_000, 0).decode()
                if matches(expected, text) if expected else not serves or "Serving on" in text:
                    return
                assert self.started[-1].poll() is None, f"$ {command}\n{text}\n-- and ended --"
                assert time.monotonic() < deadline, f"$ {command}\n{text}\n-- but the page shows --\n{expected}"
                time.sleep(0.02)

    def adapted(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self.ports[found[1]], text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait(DEADLINE)


def without_suggestions(output: str) -> str:
    """Remove the suggestion that Python 3.12 and later append to the last line of some tracebacks."""
    return re.sub(r"\. Did you mean: '\w+'\?$", "", output, flags=re.MULTILINE)


def matches(expected: str, output: str) -> bool:
    """Return whether an output is that of a page.

    White space matches any white space. An ellipsis as a line stands for any lines, and at the end of a list for its
    other items. Times, ids, durations, paths and versions may differ. A page may leave out the summary that
    ``asyncapy serve`` prints first.
    """
    if SUMMARY.search(expected) is None:
        output = SUMMARY.sub("", output)
    parts = re.split(r"^…$|(?<=, )…$", expected, flags=re.MULTILINE)
    pattern = "(?: .*)?".join(re.escape(_comparable(part)) for part in parts)
    return re.fullmatch(pattern, _comparable(output)) is not None


def _comparable(text: str) -> str:
    """Return the words of a text, each behind a space, without colours and the parts that differ between runs."""
    text = re.sub(r"\x1b\[\d*m", "", text)
    return VARIABLE.sub("~", "".join(f" {word}" for word in text.split()))
