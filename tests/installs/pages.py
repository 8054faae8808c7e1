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
        """Run a command in the background, and wait until its output matches the page."""
        with tempfile.TemporaryFile() as output:
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stdout=output, stderr=output
                )
            )
            deadline = time.monotonic() + DEADLINE
            while True:
                text = os.pread(output.fileno(), 100_000, 0).decode()
                if matches(expected, text):
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
    """Return whether an output matches a page: ``...`` matches any text, and white space any white space."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in expected.strip().split("..."))
    return re.fullmatch(r"\s*" + r"\s*.*?\s*".join(parts) + r"\s*", output, re.DOTALL) is not None
