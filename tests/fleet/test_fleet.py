"""A short run of `make fleet`: rolling restarts lose no request of version 23, and none is handled twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Run, behind_haproxy, faults, without_proxy
from installed import needs_haproxy

DRAIN_SECONDS = 5.0
"""The most seconds of a drain on a busy machine; without an end of its own, a drain takes 10 s."""


@pytest.mark.parametrize("run", [pytest.param(behind_haproxy, marks=needs_haproxy), without_proxy])
async def test_rolling_restarts_lose_no_request_and_repeat_none(run: Run, tmp_path: Path) -> None:
    calls, restarts = await run(tmp_path, 2)
    assert not faults(calls, restarts)
    assert calls.answered == calls.number == sum(each.requests for each in restarts)
    assert min(each.requests for each in restarts) > 100, "there were requests during each restart"
    assert max(each.drain for each in restarts) < DRAIN_SECONDS
