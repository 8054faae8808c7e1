"""Measure the CPU time of `import asyncapy` in excess of its dependencies, and of ``asyncapy --help``.

All modules are compiled beforehand, as pip does when it installs them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rounds import verdict

BASE = "import trio, pluggy, pydantic, msgspec"
ASKED = "import time; {}; print(time.process_time() * 1000)"
HELP = """
import sys, time
sys.argv[1:] = ["--help"]
from asyncapy_cli.main import main
try:
    main()
except SystemExit:
    print(time.process_time() * 1000)
"""


def measure_imports(rounds: int) -> list[dict[str, Any]]:
    """Print and return milliseconds of CPU."""
    over, help_ = [], []
    with tempfile.TemporaryDirectory() as compiled:
        for _ in range(rounds + 1):
            base, ours = (_cpu(ASKED.format(code), compiled) for code in (BASE, f"{BASE}, asyncapy"))
            over.append(ours - base)
            help_.append(_cpu(HELP, compiled))
    del over[0], help_[0]  # the round that compiled the modules
    rows = []
    print()
    for what, values, target in (("import asyncapy", over, 40), ("asyncapy --help", help_, 150)):
        value = statistics.median(values)
        print(f"{what}: {value:.0f} ms of CPU{verdict(value, target)}")
        rows.append({"what": what, "server": Path(sys.executable).name, "ms": value, "target": target})
    return rows


def _cpu(code: str, compiled: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = compiled
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(printed.split()[-1])
