"""`tools/floors.py`: the oldest allowed releases of all dependencies, for `make floors`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
OURS = (
    "asyncapy",
    "asyncapy-cli",
    "asyncapy-codecs",
    "asyncapy-core",
    "asyncapy-filters",
    "asyncapy-metrics",
    "asyncapy-redis",
    "asyncapy-typed",
)


def printed() -> dict[str, str]:
    command = [sys.executable, str(ROOT / "tools" / "floors.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {name: oldest for name, _, oldest in (line.partition("==") for line in done.stdout.splitlines())}


def test_each_dependency_of_a_distribution_has_an_oldest_release_that_it_allows() -> None:
    requirements = [Requirement(text) for name in OURS for text in requires(name) or ()]
    theirs = {
        each.name: each
        for each in requirements
        if each.name not in OURS and each.name not in {"asyncapy-limits", "asyncapy-sqlite"}
    }
    oldest = printed()
    assert oldest.keys() == theirs.keys()
    assert all(each.specifier.contains(oldest[name]) for name, each in theirs.items())


def test_no_oldest_release_is_newer_than_the_one_of_the_constraints() -> None:
    assert [name for name, oldest in printed().items() if Version(oldest) > Version(version(name))] == []
