"""``asyncapy plugins stubs`` in fresh environments: what it writes, prints, checks and leaves alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Environment, Install

MODULES = ("__init__", "client", "core", "errors", "filters", "server", "typed", "util")


@pytest.fixture(scope="module")
def environment(install: Install) -> Environment:
    return install("asyncapy", "acme-filters", "typed-filters")


def stubs(environment: Environment, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return environment.execute("asyncapy", "plugins", "stubs", *arguments, cwd=folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_names_the_files_and_says_what_to_configure(environment: Environment, tmp_path: Path) -> None:
    done = stubs(environment, tmp_path)
    assert done.returncode == 0
    assert done.stdout.split() == [f"typings/asyncapy/{module}.pyi" for module in MODULES]
    assert sorted(contents(tmp_path)) == done.stdout.split()
    assert 'mypy_path = "typings" in its configuration, pyright without any.' in done.stderr
    assert stubs(environment, tmp_path, "types/ours").stdout.split()[0] == "types/ours/asyncapy/__init__.pyi"
    assert 'pyright with stubPath = "types/ours".' in stubs(environment, tmp_path, "types/ours").stderr


def test_it_says_which_filters_have_no_types_and_why(environment: Environment, tmp_path: Path) -> None:
    notes = stubs(environment, tmp_path).stderr.partition("\n\n")[0].splitlines()
    assert [note.partition(":")[0] for note in notes] == [
        "Filters.Hidden is of type Any",
        "Filters.Local is of type Any",
        "Filters.Made is of type Any",
        "Filters.class is left out",
    ]


def test_the_same_plugins_give_the_same_files(environment: Environment, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stubs(environment, tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    stubs(environment, tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_it_checks_that_the_files_are_up_to_date(environment: Environment, tmp_path: Path) -> None:
    missing = stubs(environment, tmp_path, "--check")
    assert missing.returncode == 1
    assert "not up to date: typings/asyncapy/__init__.pyi, " in missing.stderr
    assert contents(tmp_path) == {}
    stubs(environment, tmp_path)
    written = contents(tmp_path)
    fresh = stubs(environment, tmp_path, "--check")
    assert (fresh.returncode, fresh.stdout) == (0, "The 8 stubs in typings are up to date.\n")
    assert contents(tmp_path) == written


def test_it_finds_a_file_that_was_changed_and_one_that_is_no_longer_needed(
    environment: Environment, tmp_path: Path
) -> None:
    stubs(environment, tmp_path)
    written = contents(tmp_path)
    folder = tmp_path / "typings" / "asyncapy"
    with (folder / "filters.pyi").open("a") as file:
        file.write("    Other: _Any\n")
    (folder / "former.pyi").write_bytes((folder / "core.pyi").read_bytes())
    stale = stubs(environment, tmp_path, "--check")
    assert stale.returncode == 1
    assert (
        "not up to date: typings/asyncapy/filters.pyi, typings/asyncapy/former.pyi; run asyncapy plugins stubs\n"
        in stale.stderr
    )
    assert "typings/asyncapy/former.pyi removed\n" in stubs(environment, tmp_path).stdout
    assert contents(tmp_path) == written


@pytest.mark.parametrize("option", [(), ("--check",)])
def test_it_leaves_the_stubs_of_others_alone(environment: Environment, tmp_path: Path, option: tuple[str, ...]) -> None:
    path = tmp_path / "typings" / "asyncapy" / "server.pyi"
    path.parent.mkdir(parents=True)
    path.write_text("class Server: ...\n")
    done = stubs(environment, tmp_path, *option)
    assert done.returncode == 1
    assert (
        done.stderr
        == "Error: typings/asyncapy/server.pyi is not from this command; move it away, or give another folder\n"
    )
    assert list(contents(tmp_path)) == ["typings/asyncapy/server.pyi"]


def test_plugins_that_are_quarantined_and_names_that_are_contested_are_left_out(
    install: Install, tmp_path: Path
) -> None:
    done = stubs(install("asyncapy", "acme-filters", "rival-filters", "broken-import"), tmp_path)
    assert done.returncode == 0
    assert "plugin 'broken_import' of broken-import 1.0 is quarantined, and its filters are left out: " in done.stderr
    assert "Filters.Shout is left out: filter 'Shout' is claimed by plugin 'acme_filters'" in done.stderr
    text = (tmp_path / "typings" / "asyncapy" / "filters.pyi").read_text()
    assert "Shout" not in text
    assert "Ip" in text


def test_without_the_package_there_is_nothing_to_write(install: Install, tmp_path: Path) -> None:
    done = stubs(install("asyncapy-core", "asyncapy-cli"), tmp_path)
    assert done.returncode == 1
    assert "the package asyncapy is not installed; pip install asyncapy" in done.stderr
    assert contents(tmp_path) == {}
