"""Servers on a system without parts of POSIX, such as Windows: they serve TCP and refuse Unix domain sockets."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest
from program import ECHO, running

WITHOUT = """
import functools, os, select, signal, socket, sys

import trio  # imported first, as trio itself needs these parts

socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # trio wakes its loop with a pair
for owner, names in {
    os: ["fork", "geteuid", "getuid", "register_at_fork"],
    select: ["poll"],
    signal: ["SIGHUP"],
    socket: ["AF_UNIX"],
}.items():
    for name in names:
        delattr(owner, name)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None  # an import of it fails
"""
"""Runs at the start of the interpreter, before any module of AsyncAPY is imported."""

CHECK = 'note("lacking", not any([hasattr(sys.modules["socket"], "AF_UNIX"), hasattr(signal, "SIGHUP")]))\n'

SERVER = f"{CHECK}{ECHO}server.start()\n"
COMMAND = f"{CHECK}from asyncapy_cli.main import main\nmain()\n"

IMPORTS = """
import importlib, pkgutil
import asyncapy, asyncapy_cli, asyncapy_codecs, asyncapy_core, asyncapy_filters, asyncapy_limits, asyncapy_metrics
import asyncapy_redis, asyncapy_sqlite

packages = [asyncapy, asyncapy_cli, asyncapy_codecs, asyncapy_core, asyncapy_filters, asyncapy_limits]
for package in [*packages, asyncapy_metrics, asyncapy_redis, asyncapy_sqlite]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
note("imported", len([name for name in sys.modules if name.startswith("asyncapy")]))
"""


@pytest.fixture(autouse=True)
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove parts of POSIX from the programs of a test."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(
    ("program", "arguments"),
    [(SERVER, []), (COMMAND, ["serve", "app.py"]), (COMMAND, ["serve", "app.py", "--reload"])],
    ids=["start", "serve", "reload"],
)
def test_a_server_answers_over_tcp_and_stops_in_order(tmp_path: Path, program: str, arguments: list[str]) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(f"from asyncapy import Server\n{ECHO}"), encoding="utf-8")
    with running(tmp_path, program, *arguments) as server:
        with server.connect() as caller:
            assert caller.ask(a=1) == {"a": 1}
            assert caller.ask(a=2) == {"a": 2}
        assert server.end(signal.SIGTERM) == 0
        assert set(server.out) == {"lacking True"}
        assert not [line for line in server.err if "Traceback" in line]


def test_every_module_can_be_imported(tmp_path: Path) -> None:
    with running(tmp_path, f"{CHECK}{IMPORTS}") as program:
        assert program.end() == 0, program.err
        assert program.out[0] == "lacking True"
        assert int(program.out[1].removeprefix("imported ")) > 60


def test_a_unix_domain_socket_is_refused_with_its_reason(tmp_path: Path) -> None:
    with running(tmp_path, f"{CHECK}Server(addr='unix:api.sock').start()\n") as program:
        assert program.end() != 0
        assert len(program.err) == 1
        assert "cannot listen on unix:api.sock: no Unix domain sockets on this system; give an IP" in program.err[0]
