"""Wheels of the distributions in the repository and in `plugins/`, and virtual environments with them.

Uses pip, virtual environments and processes, and not AsyncAPY. Environments are installed from local wheels only; the
wheels of dependencies are downloaded once, into a folder of the user's cache directory. The workers of a run share
wheels and environments: a file lock makes a worker wait until another one has built them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import tomllib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from peer import packet

ROOT = Path(__file__).parents[2]
PROJECTS = [
    path.parent
    for pattern in ("pyproject.toml", "asyncapy_*/pyproject.toml", "plugins/*/pyproject.toml")
    for path in sorted(ROOT.glob(pattern))
]
THIRD_PARTY_PROJECTS = sorted(path.parent for path in Path(__file__).parent.glob("plugins/*/pyproject.toml"))
DEADLINE = 30.0
"""The timeout of all waits, in seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set a longer timeout: the first test of a run builds wheels, and on a new machine it downloads dependencies."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))


def clean_environ(**more: str) -> dict[str, str]:
    """Return the environment of this process, without variables that configure Python, pip, coverage or AsyncAPY."""
    kept = {name: value for name, value in os.environ.items() if not re.match("ASYNCAPY_|PYTHON|PIP_|COV", name)}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def run(*command: str | Path, cwd: Path | None = None, environ: dict[str, str] | None = None) -> None:
    """Run a command; fail the test if it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}", pytrace=False)


class Program:
    """A running Python program, and the lines that it has printed."""

    def __init__(self, command: list[str], cwd: Path, environ: dict[str, str]) -> None:
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8",
        )  # fmt: skip
        self._readers = [
            threading.Thread(target=self._read, args=(stream, self.lines[name]), daemon=True)
            for name, stream in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def port(self) -> int:
        """The port of the server in the program; waits until the server logs it."""
        return int(self.wait_for(r"Serving on [0-9.]+:(\d+)", "stderr")[1])

    @property
    def output(self) -> list[str]:
        """The lines on standard output so far."""
        return list(self.lines["stdout"])

    @property
    def errors(self) -> str:
        """The text on standard error so far."""
        return "\n".join(self.lines["stderr"])

    def wait_for(self, pattern: str, stream: Literal["stdout", "stderr"] = "stdout") -> re.Match[str]:
        """Wait for a line that matches a regular expression, and return the match."""

        def found() -> re.Match[str] | bool | None:
            hits = (re.search(pattern, line) for line in self.lines[stream])
            return next((hit for hit in hits if hit), None) or not any(reader.is_alive() for reader in self._readers)

        with self._changed:
            hit = self._changed.wait_for(found, DEADLINE)
        if not isinstance(hit, re.Match):
            pytest.fail(f"no line on {stream} matches {pattern!r}; it wrote {self.lines}", pytrace=False)
        return hit

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self._process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the program, and return its exit status."""
        status = self._process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return status

    def end(self) -> None:
        """Kill the program."""
        self._process.kill()
        self.wait()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@dataclass(frozen=True)
class Environment:
    """A virtual environment that contains the installed distributions only."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    def command(self, program: str) -> list[str]:
        """Write a program into a file, and return the command that runs it."""
        file = self.path / f"program_{uuid.uuid4().hex}.py"
        file.write_text(program, encoding="utf-8")
        return [str(self.python), str(file)]

    def execute(
        self, name: str, *arguments: str, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run an installed command to its end."""
        return subprocess.run(
            [str(self.path / "bin" / name), *arguments], cwd=cwd or self.path, env=clean_environ(**environ),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def run(self, program: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self.command(program), cwd=self.path, env=clean_environ(**environ), capture_output=True, text=True,
            check=False, timeout=DEADLINE,
        )  # fmt: skip

    def answer(self, program: str, **environ: str) -> Any:
        """Run a program that prints JSON, and return the parsed output."""
        done = self.run(program, **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


class Caller:
    """A connection to a local server, on a plain socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE)

    def send(self, encoding: int, body: bytes) -> None:
        self._socket.sendall(packet(encoding, body))

    def ask(self, encoding: int, body: bytes) -> tuple[int, bytes] | None:
        """Send a packet and return the next reply, or None at the end of the stream."""
        self.send(encoding, body)
        return self.reply()

    def ask_json(self, **fields: Any) -> Any:
        """Send fields as JSON and return the fields of the reply, or None at the end of the stream."""
        self.send(0, json.dumps(fields).encode())
        return self.json()

    def json(self) -> Any:
        """Return the fields of the next JSON packet, or None at the end of the stream."""
        reply = self.reply()
        if reply is None:
            return None
        assert reply[0] == 0
        return json.loads(reply[1])

    def reply(self) -> tuple[int, bytes] | None:
        """Return the encoding and payload of the next packet, or None at the end of the stream."""
        header = self._read(6)
        if not header:
            return None
        length, version, encoding = struct.unpack(">IBB", header)
        assert version == 22
        return encoding, self._read(length - 2)

    def finish(self) -> None:
        """Shut down the sending side of the connection."""
        self._socket.shutdown(socket.SHUT_WR)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self._socket.recv(count - len(data))):
            data += more
        assert len(data) in (0, count), f"the server closed in the middle of a packet: {data!r}"
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


Build = Callable[[Literal["sdist", "wheel"], Path, Path], None]
Install = Callable[..., Environment]
Start = Callable[..., Program]
Call = Callable[[Program], Caller]


@pytest.fixture(scope="session")
def projects() -> list[Path]:
    """The folders of all distributions of the repository."""
    return PROJECTS


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock a folder against other workers, and yield whether it is missing."""
    finished = folder.with_suffix(".finished")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not finished.exists()
        finished.touch()


def build_into(target: Literal["sdist", "wheel"], project: Path, folder: Path) -> None:
    """Build a source distribution or a wheel of a project, in an existing folder."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=project, environ=clean_environ())


@pytest.fixture(scope="session")
def wheels(shared_folder: Path) -> dict[str, Path]:
    """A wheel of each distribution of the repository and of each in `plugins/`, by the distribution's name."""
    folder = shared_folder / "wheels"

    with locked(folder) as missing, ThreadPoolExecutor(os.cpu_count()) as pool:
        if missing:
            folder.mkdir(exist_ok=True)  # else all builds would make it, and all but one fail
            list(pool.map(lambda project: build_into("wheel", project, folder), [*PROJECTS, *THIRD_PARTY_PROJECTS]))
    return {canonicalize_name(wheel.name.partition("-")[0]): wheel for wheel in sorted(folder.glob("*.whl"))}


@pytest.fixture
def build() -> Build:
    """Return ``build(target, project, folder)``, which builds a source distribution or a wheel of a project."""
    return build_into


@pytest.fixture(scope="session")
def sdists(shared_folder: Path) -> dict[str, Path]:
    """A source distribution of each distribution of the repository, by the distribution's name."""
    folder = shared_folder / "sdists"
    with locked(folder) as missing, ThreadPoolExecutor(os.cpu_count()) as pool:
        if missing:
            folder.mkdir(exist_ok=True)
            list(pool.map(lambda project: build_into("sdist", project, folder), PROJECTS))
    return {canonicalize_name(sdist.name.partition("-")[0]): sdist for sdist in sorted(folder.glob("*.tar.gz"))}


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """A folder with the wheels of all dependencies, in the versions of constraints.txt."""
    constraints = ROOT / "constraints.txt"
    projects = [*PROJECTS, *THIRD_PARTY_PROJECTS]
    declared = [tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"] for project in projects]
    ours = {canonicalize_name(project["name"]) for project in declared}
    needed = sorted({text for project in declared for text in project.get("dependencies", ())})
    needed += ["editables>=0.5", "hatchling>=1.27"]  # the build requirements of an editable install
    needed += ["mypy>=1.15"]  # for the tests of a new plugin
    needed += [
        text for project in declared for extra in project.get("optional-dependencies", {}).values() for text in extra
    ]
    needed = [text for text in needed if canonicalize_name(Requirement(text).name) not in ours]
    pinned = constraints.read_bytes() if constraints.exists() else b""
    machine = f"{sys.version} {sysconfig.get_platform()}"
    key = hashlib.sha256(b"\0".join([pinned, machine.encode(), *map(str.encode, needed)])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncapy-tests"
    folder = cache / f"wheelhouse-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(folder) as missing:
        if missing or not folder.exists():
            constrained: list[str | Path] = ["--constraint", constraints] if pinned else []
            run(sys.executable, "-m", "pip", "wheel", "--quiet", *constrained, "--wheel-dir", folder, *needed)
    return folder


@pytest.fixture(scope="session")
def install(wheels: dict[str, Path], wheelhouse: Path, shared_folder: Path) -> Install:
    """Return ``install(*names, own="")``, which returns an environment with these distributions.

    A name may have an extra, as in ``asyncapy-core[testing]``. Tests with the same names and the same ``own`` share an
    environment.
    """
    offline = clean_environ(PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1")

    def wheel(name: str) -> str:
        plain, bracket, extra = name.partition("[")
        return f"{wheels[plain]}{bracket}{extra}"

    def make(*names: str, own: str = "") -> Environment:
        key = hashlib.sha256(repr((own, sorted(names))).encode()).hexdigest()[:16]
        environment = Environment(shared_folder / f"environment-{key}")
        with locked(environment.path) as missing:
            if not missing:
                return environment
            run(sys.executable, "-m", "venv", "--without-pip", environment.path, environ=offline)
            sources: list[str | Path] = [
                option for folder in (wheelhouse, wheels["asyncapy"].parent) for option in ("--find-links", folder)
            ]
            pip: list[str | Path] = [
                sys.executable,
                "-m",
                "pip",
                "--python",
                environment.python,
                "install",
                "--quiet",
                "--no-compile",
            ]
            if names:
                run(*pip, "--no-index", *sources, *map(wheel, names), environ=offline)
        return environment

    return make


@pytest.fixture
def start() -> Iterator[Start]:
    """Return ``start(environment, program, **environ)``, which runs a program until the end of the test."""
    started: list[Program] = []

    def begin(environment: Environment, program: str, **environ: str) -> Program:
        started.append(Program(environment.command(program), environment.path, clean_environ(**environ)))
        return started[-1]

    yield begin
    for program in started:
        program.end()


@pytest.fixture
def call() -> Iterator[Call]:
    """Return ``call(program)``, which connects to the server in a program until the end of the test."""
    made: list[Caller] = []

    def connect(program: Program) -> Caller:
        made.append(Caller(program.port))
        return made[-1]

    yield connect
    for caller in made:
        with caller:
            pass
