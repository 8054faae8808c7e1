"""Optional programs, and markers that skip a test if its program is missing."""

from __future__ import annotations

import os
import shutil

import pytest

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TSHARK = shutil.which("tshark")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed; .ci/run installs it")
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed; .ci/run installs it")
PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="prometheus is not installed; .ci/run installs it"
)
