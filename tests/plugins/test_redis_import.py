from __future__ import annotations

import subprocess
import sys


def test_redis_py_is_imported_when_a_store_is_opened() -> None:
    program = """
import sys
from asyncapy import Server
from asyncapy.util import APIKeyFactory

Server().plugins.load_all()
print("redis" in sys.modules)
APIKeyFactory(store="redis://localhost:1")
print("redis" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")
