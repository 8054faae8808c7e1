"""Server programs as processes on core 0, with their CPU time and memory."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trustme
from load import Protocol

FILES = 25_000
"""Files that a server, or the load, may open."""


@dataclass(frozen=True)
class Peer:
    """A server program and the protocol of its requests.

    Attributes:
        foreign: whether it needs the environment of the foreign servers.
        tls: whether it uses TLS.
    """

    name: str
    program: str
    protocol: Protocol
    foreign: bool = False
    tls: bool = False


@dataclass(frozen=True)
class Process:
    """A running server.

    Attributes:
        ca: the CA of its certificate, if it uses TLS.
    """

    pid: int
    port: int
    ca: Path | None

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server has used so far, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        """Return the resident memory of the server."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def certificates() -> Iterator[Path]:
    """Yield a folder with ``server.pem``, a certificate for 127.0.0.1 and its key, and ``ca.pem``."""
    with tempfile.TemporaryDirectory() as folder:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(Path(folder, "ca.pem")))
        ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(Path(folder, "server.pem")))
        yield Path(folder)


@contextmanager
def serving(
    program: Path, python: str, tls: Path | Literal[False], environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a server on core 0, with TLS if the folder of a certificate is given, and further environment variables."""
    command = [python, str(program), *([str(tls / "server.pem")] if tls else [])]
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True, preexec_fn=_prepare) as process:  # noqa: PLW1509  # no thread runs yet that could hold a lock
        try:
            assert process.stderr is not None
            found = None
            while found is None:
                line = process.stderr.readline()
                if not line:
                    sys.exit(f"{program} did not start")
                found = re.search(r"Serving on 127\.0\.0\.1:(\d+)", line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield Process(process.pid, int(found[1]), tls / "ca.pem" if tls else None)
        finally:
            process.kill()


def _prepare() -> None:
    pin(0)
    allow_files()


def allow_files() -> None:
    """Raise the limit of open files of this process to `FILES`, or as far as the system permits."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def pin(core: int) -> None:
    """Keep this process on one core, if there is more than one."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})
