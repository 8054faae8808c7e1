"""``asyncapy serve --reload``: the same command in a child process, restarted after each change."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from types import FrameType
from typing import Final

import click
from watchfiles import Change, PythonFilter, watch

from asyncapy_cli.output import note

LAST_SECONDS: Final = 15.0
"""Seconds that a server may take to shut down before it is killed: the default ``drain_timeout`` plus a margin."""


class _Watched(PythonFilter):
    """Accepts changes of Python files and of configuration files."""

    def __init__(self, configs: Collection[Path]) -> None:
        super().__init__()
        self._configs = configs

    def __call__(self, change: Change, path: str) -> bool:
        return Path(path) in self._configs or super().__call__(change, path)


class _Child:
    """The server process. It has its own session, so that only its parent gets a Ctrl+C from the terminal."""

    def __init__(self) -> None:
        # As this process was started, with the options of the interpreter and -m: sys.path begins as without --reload.
        command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--reload")]
        self._process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  # the command of this process

    def end(self) -> int:
        """Terminate the server, kill it after `LAST_SECONDS`, and return its status as a shell reports it.

        A server that SIGTERM ends before it serves has nothing to shut down, so its status is 0 as well.
        """
        self._process.terminate()
        try:
            status = self._process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        if status == -signal.SIGTERM:
            return 0
        return status if status >= 0 else 128 - status

    def kill(self) -> None:
        self._process.kill()


def serve_and_watch(folders: Iterable[Path], configs: Iterable[str]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return the last status of the server. A second signal kills it.

    Args:
        folders: folders to watch in addition to the working directory.
        configs: configuration files to watch.

    Raises:
        click.ClickException: a configuration file does not exist.
    """
    files = []
    for config in configs:
        files.append(Path(config).resolve())
        if not files[-1].is_file():
            raise click.ClickException(f"there is no configuration file {config}")
    watched = {Path.cwd(), *folders, *(file.parent for file in files)}
    stop = threading.Event()
    child: _Child | None = None
    status = 0

    def asked(signum: int, frame: FrameType | None) -> None:
        if stop.is_set() and child is not None:
            child.kill()
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):  # nohup ignores it
            signal.signal(number, asked)
    try:
        child = _Child()
        changed = watch(*watched, watch_filter=_Watched(files), stop_event=stop, ignore_permission_denied=True)
        for changes in changed:
            note(f"{', '.join(sorted({_shown(name) for _, name in changes})[:3])} changed; restarting")
            child.end()
            if stop.is_set():
                break
            child = _Child()
    finally:
        if child is not None:
            status = child.end()
    return status


def _shown(name: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(name).relative_to(Path.cwd()))
    return name
