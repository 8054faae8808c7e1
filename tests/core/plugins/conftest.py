"""A folder of installed plugins for programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEADER = "from asyncapy_core import Client, Filter, Filters, MemoryKeyStore, Server, hookimpl\n"
ONE_FILTER = """
class {name}(Filter):
    def check(self, c, p):
        return True

@hookimpl
def asyncapy_filters():
    return {{"{name}": {name}}}
"""
"""The source of a plugin with one filter."""


class Site:
    """A folder on ``sys.path``, with installed distributions beside those of the environment.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, source: str = "", *, version: str = "1.0", entries: str = "") -> Path:
        """Install a distribution, and return its folder of metadata. Its plugin has its name, without other entries."""
        (self.folder / f"{distribution}.py").write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
        info = self.folder / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entries or f"[asyncapy]\n{distribution} = {distribution}\n")
        return info

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to its end."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCAPY_")}
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, capture_output=True, text=True, timeout=60,
            env={**inherited, "PYTHONPATH": str(self.folder), **environ},
        )  # fmt: skip

    def prints(self, program: str, **environ: str) -> str:
        """Run a program, which must succeed, and return its output."""
        done = self.run("-c", textwrap.dedent(program), **environ)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def asyncapy(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command ``asyncapy``, which must not write a traceback of its own."""
        return self.run("-m", "asyncapy_cli", *arguments, **environ)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
