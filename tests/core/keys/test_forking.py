"""Forks while other threads make objects that are called at each fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading
from asyncapy_core.storage import RecordCache
kept = [RecordCache(1) for _ in range(200)]

def use():
    while True:
        RecordCache(1)

sys.setswitchinterval(1e-5)
for _ in range(4):
    threading.Thread(target=use, daemon=True).start()
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        kept[0].forget("digest")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("over", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_calls_all_objects_while_other_threads_make_more() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
