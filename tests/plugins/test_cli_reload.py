"""``asyncapy serve --reload``: servers that are restarted after changes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from commands import APP, COMMAND, SLOW, Serving, ask, run, serving
from ports import free_port

from asyncapy.client import Client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_reload_serves_anew_what_has_changed_and_ends_in_order(folder: Path) -> None:
    port = free_port()
    with serving(folder, "app", "--reload", "--port", str(port)) as server:
        assert ask(server.port, foo=1) == {"foo": 1}
        for _ in range(10):  # no line reports that the watch has begun; earlier changes are not seen
            (folder / "app.py").write_text(APP.replace("client.send(packet)", 'client.send({"new": 1})'))
            with contextlib.suppress(AssertionError):
                server.wait_for("app.py changed; restarting", within=2)
                break
        server.wait_for("Serving on", count=2)
        assert ask(port, foo=1) == {"new": 1}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_ctrl_c_on_a_terminal_lets_a_reloading_server_finish_what_it_does(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW)
    options = ("--reload", "--logging-level", "DEBUG")
    with serving(folder, "slow.py", *options) as server, Client(tls=False, timeout=10) as client:
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        server.wait_for("Calling 'slow'")
        os.killpg(server.process.pid, signal.SIGINT)  # a terminal sends it to all processes in the foreground
        assert client.receive() == {"a": 1}
        assert server.process.wait(20) == 0


def test_hanging_up_ends_a_reloading_server(folder: Path) -> None:
    with serving(folder, "app", "--reload") as server:
        port = server.port
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_server_that_is_stuck_is_killed_by_a_second_signal(folder: Path) -> None:
    (folder / "stuck.py").write_text(SLOW.replace("await trio.sleep(1)", "__import__('time').sleep(1000)"))
    with serving(folder, "stuck.py", "--reload", "--logging-level", "DEBUG") as server, Client(tls=False) as client:
        client.connect("127.0.0.1", server.port)
        client.send({"a": 1})
        server.wait_for("Calling 'slow'")
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)  # two signals at the same time would count as one
        assert server.process.wait(10) == 128 + signal.SIGKILL


def test_a_reloading_server_sees_changes_beside_its_file_and_in_its_configuration(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "app.py").write_text(APP)
    config = there / "server.toml"
    config.write_text("[AsyncAPY]\nport = 0\n")
    with serving(here, "../there/app.py", "--config", str(config), "--reload") as server:
        assert ask(server.port, foo=1) == {"foo": 1}
        written = 0
        deadline = time.monotonic() + 20
        while not [line for line in server.lines if "server.toml changed" in line] and time.monotonic() < deadline:
            written += 1
            config.write_text(f"[AsyncAPY]\nport = 0\nsession_limit = {written}\n")
            time.sleep(0.2)  # no line reports that the watch has begun
        server.wait_for("an address")
        while not [line for line in server.lines if "app.py changed" in line] and time.monotonic() < deadline:
            written += 1
            (there / "app.py").write_text(APP + f"# {written}\n")
            time.sleep(0.2)  # as above
        server.wait_for(r"app\.py changed")


def test_a_configuration_to_watch_that_is_not_there_is_told(folder: Path) -> None:
    done = run(folder, "serve", "app", "--reload", "--config", "nowhere/x.ini")
    assert (done.returncode, done.stderr) == (1, "Error: there is no configuration file nowhere/x.ini\n")


WITHOUT_PRIVILEGES = """
import ctypes, os, sys

DROP, DAC_OVERRIDE, DAC_READ_SEARCH = 24, 1, 2
if os.geteuid() == 0:  # permissions hold for root as well without these capabilities
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        assert ctypes.CDLL(None).prctl(DROP, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def touch_until_restarted(server: Serving, file: Path, text: str) -> None:
    """Change a file until the server restarts; no line reports that the watch has begun."""
    for number in range(10):
        file.write_text(f"{text}# {number}\n")
        with contextlib.suppress(AssertionError):
            server.wait_for(f"{file.name} changed; restarting", within=2)
            return
    raise AssertionError(f"no restart: {server.lines}")


def test_a_folder_that_may_not_be_read_is_not_watched_and_ends_nothing(folder: Path) -> None:
    secret = folder / "secret"
    secret.mkdir()
    (secret / "inner").mkdir()
    secret.chmod(0)
    command = (sys.executable, "-c", WITHOUT_PRIVILEGES, *COMMAND[1:])
    try:
        with serving(folder, "app", "--reload", command=command) as server:
            assert ask(server.port, foo=1) == {"foo": 1}
            touch_until_restarted(server, folder / "app.py", APP)
            server.wait_for("Serving on", count=2)
    finally:
        secret.chmod(0o700)


PATHS = {
    "python -m": COMMAND,
    "python -m with options": (sys.executable, "-X", "utf8", "-W", "error::UserWarning", *COMMAND[1:]),
    "asyncapy": (str(Path(sys.executable).with_name("asyncapy")),),
}


@pytest.mark.parametrize("command", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("place", [".", "inner"])
def test_a_reloading_program_imports_the_same_modules_as_without_reload(
    folder: Path, command: tuple[str, ...], place: str
) -> None:
    """The module `config` of a program is its own, and not that of the command line."""
    inner = folder / place
    inner.mkdir(exist_ok=True)
    (inner / "config.py").write_text("MINE = 'mine'\n")
    program = APP.replace("client.send(packet)", "client.send({'config': config.MINE, 'path': sys.path, 'w': W})")
    imports = "import sys\nimport config\nW = [sys.flags.utf8_mode, sys.warnoptions]\n"
    (inner / "main.py").write_text(imports + program)
    with serving(folder, f"{place}/main.py", command=command) as server:
        alone = ask(server.port, foo=1)
    with serving(folder, f"{place}/main.py", "--reload", command=command) as server:
        assert ask(server.port, foo=1) == alone
    assert alone["config"] == "mine"


def test_a_reloading_program_may_have_relative_imports(folder: Path) -> None:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "names.py").write_text("WORD = 'hello'\n")
    program = "from .names import WORD\n" + APP.replace("client.send(packet)", "client.send({'word': WORD})")
    (package / "main.py").write_text(program)
    with serving(folder, "package/main.py", "--reload") as server:
        assert ask(server.port, foo=1) == {"word": "hello"}
        touch_until_restarted(server, package / "names.py", "WORD = 'hello'\n")
        server.wait_for("Serving on", count=2)
