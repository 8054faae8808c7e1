"""Every page of the documentation, followed step by step in an environment of wheels: the outputs match the page."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from conftest import Certificates
from haproxy import documented
from installed import HAPROXY, needs_haproxy
from installs.pages import Reader, blocks, matches
from pathspec import GitIgnoreSpec

if TYPE_CHECKING:
    from installs.conftest import Environment, Install

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(page.relative_to(DOCS)) for pattern in ("*.md", "cookbook/*.md") for page in DOCS.glob(pattern))
RELEASING = "releasing.md"
TUTORIAL = "tutorial.md"
EMPTY = ("install.md", "metrics.md", "cookbook/metrics.md", RELEASING, TUTORIAL)
"""Pages that begin with an empty environment; those of the same name share it."""
MOST_LINES = 40
"""The most lines of a program of the cookbook."""
FRAGMENTS = {"python", "toml", "ini", "console", "text", "pytest"}


@pytest.fixture
def environ(
    request: pytest.FixtureRequest, install: Install, wheels: dict[str, Path], wheelhouse: Path, tmp_path: Path
) -> dict[str, str]:
    """The environment variables of a shell in a virtual environment, whose pip finds our wheels."""
    page = request.node.callspec.params["page"]
    if page in EMPTY:
        environment = install(own=Path(page).name)
    elif page in {"plugin-tutorial.md", "limits.md"}:  # they install plugins
        environment = install("asyncapy", own=page)
    else:
        environment = install("asyncapy", "asyncapy-core[testing]", "asyncapy-sqlite")
    return _environ(environment, [wheels["asyncapy"].parent, wheelhouse], tmp_path)


def _environ(environment: Environment, folders: list[Path], home: Path) -> dict[str, str]:
    pip = environment.path / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pip --python {environment.python} "$@"\n')
    pip.chmod(0o755)
    return {
        "PATH": f"{environment.path / 'bin'}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": " ".join(map(str, folders)),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page: str, environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    if page == RELEASING:
        _copy_repository(folder, environ)
    with Reader(folder, environ) as reader:
        for block in blocks(DOCS / page):
            assert block.language in FRAGMENTS, f"{page}:{block.line}: {block.language}"
            if block.language == "toml":
                tomllib.loads(block.text)
            reader.follow(block)


def _copy_repository(folder: Path, environ: dict[str, str]) -> None:
    """Make a copy of the repository, with this virtual environment as `.venv`; its `make` does not rebuild `.venv`."""
    ignored = GitIgnoreSpec.from_lines([".git", *(ROOT / ".gitignore").read_text("utf-8").splitlines()])
    for name in ignored.match_tree_files(ROOT, negate=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for role in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{role}_NAME": "Maintainer", f"GIT_{role}_EMAIL": "maintainer@example.org"}
    for command in (
        "init --quiet --bare --initial-branch main ../origin",
        "init --quiet --initial-branch main",
        "remote add origin ../origin",
        "add .",
        "commit --quiet --message Copy",
    ):
        subprocess.run(["git", *command.split()], cwd=folder, env=environ, check=True)
    (folder / ".venv").symlink_to(sys.prefix)
    make = Path(environ["PATH"].partition(":")[0], "make")
    make.write_text(f'#!/bin/sh\nexec {shutil.which("make")} --old-file .venv/.installed "$@"\n')
    make.chmod(0o755)


def test_the_tutorial_ends_with_the_inventory_of_the_examples() -> None:
    files = {block.caption: block.text for block in blocks(DOCS / TUTORIAL) if block.caption}
    examples = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples" / "inventory").glob("*.py")}
    examples.pop("fastapi_inventory.py")
    assert {name: files.get(name) for name in examples} == examples


def test_every_fence_of_a_page_is_read() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        others = sum(text.count(f"\n```{{{name}}}") for name in ("include", "literalinclude", "toctree", "eval-rst"))
        others += text.startswith("```{include}")
        assert text.count("\n```\n") + text.endswith("\n```") == len(blocks(DOCS / page)) + others, page


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("cookbook/")])
def test_the_programs_of_the_cookbook_are_short(page: str) -> None:
    for block in blocks(DOCS / page):
        assert block.text.count("\n") <= MOST_LINES, f"{page}:{block.line}"


def test_the_index_of_the_cookbook_names_its_pages() -> None:
    text = (DOCS / "cookbook" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "cookbook").glob("*.md"):
        assert page.stem == "index" or f"{{doc}}`{page.stem}`" in text, page.name


@needs_haproxy
def test_haproxy_accepts_the_configuration_of_the_page_without_a_warning(
    tmp_path: Path, certificates: Certificates
) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(documented(certificates.server, 8443, [1500, 1501]))
    assert HAPROXY is not None
    done = subprocess.run([HAPROXY, "-c", "-f", str(config)], capture_output=True, text=True, timeout=30)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "warning" not in output.lower()


def test_the_unit_of_systemd_can_be_read() -> None:
    (block,) = (block for block in blocks(DOCS / "operating.md") if block.caption.endswith(".service"))
    unit = configparser.RawConfigParser()
    unit.read_string(block.text)
    assert unit["Service"]["ExecStart"].split()[1:3] == ["serve", "app:server"]
    assert unit["Service"]["ExecReload"].split()[:2] == ["/bin/kill", "-HUP"]


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a b", "a    b", True),
        ("a\n…\nc", "a\nb\nc", True),
        ("a\n…\nc", "a\nc", True),
        ("…\nb\n…", "a\nb\nc\n", True),
        ("a", "ab", False),
        ("a\n…", "ba", False),
        ("a\n…", "ab", False),
        ("a\nb", "a\nc", False),
        ("a … c", "a b c", False),
        ("a, …", "a, b, c", True),
        ("a, …", "b, c", False),
        ("asyncapy-codecs 0.6.0.dev0", "asyncapy-codecs  0.7.1", True),
        ("{...}", "{a}", False),
        ("[INFO] 27/11/2026 10:00:00 AM ready", "[INFO] 01/02/2027 11:22:33 PM ready\n", True),
        ("2026-11-27", "2027-01-02", True),
        ('"d54e3d7f-eaec-48f5-881e-0803fa361444"', '"7825a3ec-1233-4285-8222-55a8295bf32f"', True),
        ('"time": "2026-11-27T10:00:00.123Z"', '"time": "2027-01-02T03:04:05.678Z"', True),
        ("6 passed in 0.31s", "6 passed in 12.02s", True),
        ("6 passed in 0.31s", "5 passed in 0.31s", False),
        ("ok /srv/keys.db: 1", "ok /tmp/a/keys.db: 1", True),
        ("ok /srv/keys.db: 1", "ok /srv/other.db: 1", False),
        ("Serving", "server   a.py\naddress  127.0.0.1\nServing\n", True),
        ("server   a.py\nServing", "server   a.py\naddress  127.0.0.1\nServing\n", False),
    ],
)
def test_an_output_is_compared_as_a_reader_would(expected: str, output: str, same: bool) -> None:
    assert matches(expected, output) is same
