"""A page of the documentation, read as what a reader would do: files that are saved, commands that are typed.

Knows Markdown, files and processes; nothing of AsyncAPY.
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
PORTS = ("1500", "1501", "1502", "1503", "8081")
"""Ports that pages name; each run takes free ones in their place."""
PATIENCE = 30.0


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

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
    """Somebody who does what a page says, in a folder of their own.

    Attributes:
        folder: where files are saved and commands are run; ``cd`` changes it.
        environ: of the commands; ``export`` changes it.
    """

    folder: Path
    environ: dict[str, str]
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in PORTS})
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        """Save a block that has a caption, run one that is Python or a console, and leave others."""
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
        """Run a command to its end; it has to say what the page says, or, where that says nothing, to succeed."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environ, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if expected:
            assert matches(expected, without_suggestions(done.stdout)), (
                f"$ {command}\n{done.stdout}\n-- but the page says --\n{expected}"
            )
        else:
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"

    def start(self, command: str, expected: str) -> None:
        """Run a command in the background, and wait until it has said what the page says."""
        with tempfile.TemporaryFile() as output:
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stdout=output, stderr=output
                )
            )
            deadline = time.monotonic() + PATIENCE
            while True:
                said = os.pread(output.fileno(), 100_000, 0).decode()
                if matches(expected, said):
                    return
                assert self.started[-1].poll() is None, f"$ {command}\n{said}\n-- and ended --"
                assert time.monotonic() < deadline, f"$ {command}\n{said}\n-- but the page says --\n{expected}"
                time.sleep(0.02)

    def adapted(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self.ports[found[1]], text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait(PATIENCE)


def without_suggestions(said: str) -> str:
    """Remove the suggestion that Python 3.12 and later append to the last line of some tracebacks."""
    return re.sub(r"\. Did you mean: '\w+'\?$", "", said, flags=re.MULTILINE)


def matches(expected: str, said: str) -> bool:
    """Say whether an output is as a page shows it, where ``...`` stands for anything, and spaces may be more."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in expected.strip().split("..."))
    return re.fullmatch(r"\s*" + r"\s*.*?\s*".join(parts) + r"\s*", said, re.DOTALL) is not None
