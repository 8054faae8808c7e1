"""Draw a flame graph of the server under load, with py-spy: `make profile`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from load import FRAMES, Load, run
from processes import pin, serving

HERE = Path(__file__).parent
SECONDS = 8


def main() -> None:
    """Load the server with pipelined requests, and sample its stack 500 times per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--py-spy", default="py-spy", help="the path of py-spy")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=32)
    options = parser.parse_args()
    graph = HERE / "results" / "profile.svg"
    with serving(HERE / "servers" / "asyncapy_echo.py", sys.executable, tls=False) as process:
        pin(1)
        command = [options.py_spy, "record", "--pid", str(process.pid), "--rate", "500", "--duration", str(SECONDS)]
        with subprocess.Popen([*command, "--output", str(graph)], stdout=subprocess.DEVNULL) as recorder:
            while recorder.poll() is None:
                run(process, FRAMES, Load("", options.connections, options.in_flight), 1.0)
    print(f"Drawn to {graph.relative_to(HERE.parent)}")
    sys.exit(recorder.returncode)


if __name__ == "__main__":
    main()
