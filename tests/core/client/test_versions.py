from __future__ import annotations

from typing import Any

import pytest

from asyncapy_core.client.versions import REMEMBERED, ServerVersion


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("fixed", [22, 23])
def test_a_fixed_version_stays(fixed: int) -> None:
    version = ServerVersion(fixed, Clock())
    version.learn(45 - fixed)
    assert version.known == fixed
    version.forget()
    assert version.known == fixed


def test_a_version_is_remembered_for_an_hour() -> None:
    version = ServerVersion(None, clock := Clock())
    assert version.known is None
    version.learn(22)
    clock.now = REMEMBERED - 1
    assert version.known == 22
    version.learn(23)
    clock.now += REMEMBERED - 1
    assert version.known == 23
    clock.now += 1
    assert version.known is None


def test_a_version_is_forgotten() -> None:
    version = ServerVersion(None, Clock())
    version.learn(23)
    version.forget()
    assert version.known is None


@pytest.mark.parametrize("fixed", [0, True, 24, "23"])
def test_there_are_two_versions(fixed: Any) -> None:
    with pytest.raises(ValueError, match="version is"):
        ServerVersion(fixed, Clock())
