"""``pyright --verifytypes`` on the wheels: the type of each public name is declared."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from installs.checkers import completeness

if TYPE_CHECKING:
    from installs.conftest import Environment, Install

DISTRIBUTIONS = [
    "asyncapy",
    "asyncapy-cli",
    "asyncapy-codecs",
    "asyncapy-core",
    "asyncapy-filters",
    "asyncapy-limits",
    "asyncapy-metrics",
    "asyncapy-redis",
    "asyncapy-sqlite",
    "asyncapy-typed",
]


def test_these_are_all_distributions(projects: list[Path]) -> None:
    names = [tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["name"] for project in projects]
    assert sorted(names) == DISTRIBUTIONS


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_type_of_each_public_name_is_declared(install: Install, name: str) -> None:
    environment: Environment = install(*DISTRIBUTIONS, "asyncapy-core[testing]")
    score, faults = completeness(environment, name.replace("-", "_"))
    assert faults == []
    assert score == 1
