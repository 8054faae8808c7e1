"""The content and the metadata of the wheels of this repository."""

from __future__ import annotations

import email
import os
import tarfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from installs.conftest import Build, Install

ROOT = Path(__file__).parents[2]
PINNED = {"asyncapy", "asyncapy-core", "asyncapy-codecs", "asyncapy-filters"}


def declared(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    return found


@pytest.fixture
def ours(wheels: dict[str, Path], projects: list[Path]) -> dict[str, tuple[Path, Path]]:
    """The folder and the wheel of each distribution of the repository, by its name."""
    return {
        name: (project, wheels[name]) for project in projects for name in [canonicalize_name(declared(project)["name"])]
    }


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def requirements(wheel: Path) -> dict[str, Requirement]:
    """Return the requirements of a wheel; requirements of extras are left out."""
    parsed = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist") or ()]
    return {canonicalize_name(found.name): found for found in parsed if "extra" not in str(found.marker)}


def test_the_distributions_of_the_repository_are_these(ours: dict[str, tuple[Path, Path]]) -> None:
    assert set(ours) >= PINNED


def test_each_wheel_holds_its_one_package_which_is_typed(ours: dict[str, tuple[Path, Path]]) -> None:
    for name, (_, wheel) in ours.items():
        package = name.replace("-", "_")
        files = [file for file in contents(wheel) if ".dist-info/" not in file]
        assert f"{package}/__init__.py" in files, name
        assert f"{package}/py.typed" in files, name
        assert [file for file in files if not file.startswith(f"{package}/")] == [], name


def test_what_commands_read_is_in_the_wheel(ours: dict[str, tuple[Path, Path]]) -> None:
    project, wheel = ours["asyncapy-cli"]
    templates = {path.relative_to(project / "src").as_posix() for path in project.rglob("templates/*.txt")}
    assert templates
    assert templates <= set(contents(wheel))


def test_each_module_of_the_source_is_in_its_wheel(ours: dict[str, tuple[Path, Path]]) -> None:
    for name, (project, wheel) in ours.items():
        package = name.replace("-", "_")
        source = project / "src" if (project / "src").is_dir() else project
        modules = {path.relative_to(source).as_posix() for path in (source / package).rglob("*.py")}
        assert modules, name
        assert modules <= set(contents(wheel)), name


def test_every_wheel_and_sdist_holds_the_licence_of_the_repository(
    ours: dict[str, tuple[Path, Path]], sdists: dict[str, Path]
) -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in licence
    assert set(sdists) == set(ours)
    for name, (project, wheel) in ours.items():
        assert (project / "LICENSE").read_bytes() == licence, name
        with zipfile.ZipFile(wheel) as archive:
            (held,) = (file for file in archive.namelist() if file.endswith(".dist-info/licenses/LICENSE"))
            assert archive.read(held) == licence, name
        with tarfile.open(sdists[name]) as source:
            packed = source.extractfile(f"{sdists[name].name.removesuffix('.tar.gz')}/LICENSE")
            assert packed is not None
            assert packed.read() == licence, name
        assert metadata(wheel)["License-Expression"] == "Apache-2.0", name
        assert metadata(wheel).get_all("License-File") == ["LICENSE"], name


def test_a_wheel_built_from_the_sdist_is_the_wheel_built_from_the_repository(
    ours: dict[str, tuple[Path, Path]], sdists: dict[str, Path], build: Build, tmp_path: Path
) -> None:
    def rebuild(name: str) -> Path:
        with tarfile.open(sdists[name]) as source:
            source.extractall(tmp_path / name, filter="data")
        (folder,) = (tmp_path / name).iterdir()
        build("wheel", folder, tmp_path / name)
        (wheel,) = (tmp_path / name).glob("*.whl")
        return wheel

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rebuilt = dict(zip(ours, pool.map(rebuild, ours), strict=True))
    for name, (_, wheel) in ours.items():
        with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(rebuilt[name]) as second:
            assert {file: first.read(file) for file in first.namelist()} == {
                file: second.read(file) for file in second.namelist()
            }, name


def test_no_wheel_holds_tests_or_leavings(ours: dict[str, tuple[Path, Path]]) -> None:
    for name, (_, wheel) in ours.items():
        for file in contents(wheel):
            parts = file.split("/")
            assert not {"tests", "test", "__pycache__", "examples", "documentation"} & set(parts), f"{name}: {file}"
            assert not parts[-1].startswith(("test_", "conftest", ".")), f"{name}: {file}"


def test_all_versions_are_the_same(ours: dict[str, tuple[Path, Path]]) -> None:
    assert len({metadata(wheel)["Version"] for _, wheel in ours.values()}) == 1


def test_the_version_that_the_package_tells_is_that_of_the_distribution(install: Install) -> None:
    program = """
import json
from importlib.metadata import version
import asyncapy, asyncapy_core
print(json.dumps([asyncapy.__version__, asyncapy_core.__version__, version("asyncapy"), version("asyncapy-core")]))
"""
    assert len(set(install("asyncapy").answer(program))) == 1


def test_all_distributions_name_the_same_systems_and_pythons(ours: dict[str, tuple[Path, Path]]) -> None:
    named = {
        name: {
            classifier
            for classifier in metadata(wheel).get_all("Classifier") or ()
            if classifier.startswith(("Operating System", "Programming Language", "Development Status"))
        }
        for name, (_, wheel) in ours.items()
    }
    assert all(classifiers == named["asyncapy"] for classifiers in named.values()), named
    assert "Operating System :: OS Independent" in named["asyncapy"]  # as tests/system/test_other_systems.py shows
    assert len({metadata(wheel)["Requires-Python"] for _, wheel in ours.values()}) == 1


def test_the_umbrella_and_its_parts_pin_each_other_exactly(ours: dict[str, tuple[Path, Path]]) -> None:
    pins = {name: set(requirements(ours[name][1])) & PINNED for name in PINNED}
    assert pins == {
        "asyncapy": {"asyncapy-core", "asyncapy-codecs", "asyncapy-filters"},
        "asyncapy-codecs": {"asyncapy-core"},
        "asyncapy-core": set(),
        "asyncapy-filters": {"asyncapy-core"},
    }
    for name in PINNED:
        version = metadata(ours[name][1])["Version"]
        for wanted in pins[name]:
            assert str(requirements(ours[name][1])[wanted].specifier) == f"=={version}", f"{name}: {wanted}"


def test_plugins_take_any_core_of_their_minor_version(ours: dict[str, tuple[Path, Path]]) -> None:
    for name in ours.keys() - PINNED:
        version = Version(metadata(ours[name][1])["Version"])
        core = requirements(ours[name][1])["asyncapy-core"].specifier
        assert core.contains(version, prereleases=True), name
        assert core.contains(f"{version.major}.{version.minor}.99"), name
        assert not core.contains(f"{version.major}.{version.minor + 1}.0"), name


def test_core_needs_trio_pluggy_and_pydantic_alone(ours: dict[str, tuple[Path, Path]]) -> None:
    assert set(requirements(ours["asyncapy-core"][1])) == {"trio", "pluggy", "pydantic"}


def test_what_is_needed_of_others_has_a_floor_and_no_ceiling(ours: dict[str, tuple[Path, Path]]) -> None:
    for name, (_, wheel) in ours.items():
        for other, requirement in requirements(wheel).items():
            if other not in ours:
                assert {clause.operator for clause in requirement.specifier} == {">="}, f"{name}: {requirement}"
