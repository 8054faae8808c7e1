"""``asyncapy new plugin`` in a fresh environment: the generated plugin installs, and its tests pass unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from installs.conftest import Environment, Install

KINDS = ("filter", "codec", "keystore", "hooks")


@pytest.fixture(scope="module")
def environment(install: Install) -> Environment:
    return install("asyncapy", "asyncapy-core[testing]")


def add(environment: Environment, project: Path) -> None:
    """Build a wheel of a project, and install it."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=project, check=True, capture_output=True, timeout=60)
    (wheel,) = (project / "dist").glob("*.whl")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(environment.python),
        "install",
        "--quiet",
        "--no-index",
        str(wheel),
    ]
    offline = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(pip, check=True, timeout=60, env=offline)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_works_as_it_is_written(environment: Environment, tmp_path: Path, kind: str) -> None:
    name = f"my-{kind}"
    done = environment.execute("asyncapy", "new", "plugin", name, "--kind", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    project = tmp_path / f"asyncapy-{name}"
    package = f"asyncapy_my_{kind}"
    assert set(done.stdout.split()) == {
        f"asyncapy-{name}/{path}"
        for path in (
            "pyproject.toml",
            "README.md",
            f"src/{package}/__init__.py",
            f"src/{package}/py.typed",
            f"tests/test_my_{kind}.py",
        )
    }
    assert f"cd asyncapy-{name} && pip install -e '.[test]' && pytest" in done.stderr
    add(environment, project)
    tested = environment.execute("pytest", "-q", cwd=project)
    assert tested.returncode == 0, tested.stdout
    assert " passed" in tested.stdout
    assert "skipped" not in tested.stdout
    listed = environment.execute("asyncapy", "plugins")
    assert f"my_{kind}" in listed.stdout
    doctor = environment.execute("asyncapy", "plugins", "doctor")
    assert doctor.returncode == 0, doctor.stdout


def test_what_is_written_is_as_our_own_code(environment: Environment, tmp_path: Path) -> None:
    for kind in KINDS:
        done = environment.execute("asyncapy", "new", "plugin", f"own-{kind}", "--kind", kind, cwd=tmp_path)
        assert done.returncode == 0
    ruff = ("--isolated", "--line-length", "120")
    for project in tmp_path.iterdir():
        check(project, "ruff", "format", "--check", *ruff)
        check(project, "ruff", "check", *ruff, "--extend-select", "I,B,UP,RUF,SIM")
    sources = map(str, tmp_path.glob("*/src"))
    check(tmp_path, "mypy", "--strict", "--python-executable", str(environment.python), *sources)


def check(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Shout", "9lives", "a--b", "über", "../x", ""])
def test_a_name_that_is_none_is_told(environment: Environment, tmp_path: Path, name: str) -> None:
    done = environment.execute("asyncapy", "new", "plugin", name, cwd=tmp_path)
    assert done.returncode == 2
    assert "give lowercase letters, digits and dashes, such as shout" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("core", "there is a package asyncapy_core"),
        ("redis", "there is a package asyncapy_redis"),
        ("tester", "pytest collects classes that begin with Test"),
        ("json", "there is a filter, a codec, a key store or a class of this name"),
        ("ip", "there is a filter, a codec, a key store or a class of this name"),
        ("packet", "there is a filter, a codec, a key store or a class of this name"),
    ],
)
def test_a_name_that_is_taken_is_told(environment: Environment, tmp_path: Path, name: str, reason: str) -> None:
    done = environment.execute("asyncapy", "new", "plugin", name, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "kind"), [("path", "keystore"), ("decode-error", "codec"), ("class", "filter")])
def test_a_name_that_means_something_to_python_is_taken_for_what_it_is(
    environment: Environment, tmp_path: Path, name: str, kind: str
) -> None:
    assert environment.execute("asyncapy", "new", "plugin", name, "--kind", kind, cwd=tmp_path).returncode == 0
    project = tmp_path / f"asyncapy-{name}"
    add(environment, project)
    tested = environment.execute("pytest", "-q", cwd=project)
    assert tested.returncode == 0, tested.stdout


def test_what_is_there_is_left_alone(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "asyncapy-shout").mkdir()
    done = environment.execute("asyncapy", "new", "plugin", "shout", cwd=tmp_path)
    assert done.returncode == 1
    assert "asyncapy-shout exists already; give another name, or move it away" in done.stderr
