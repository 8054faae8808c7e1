"""``asyncapy serve --reload``: the same command in a process of its own, started anew after each change."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

import click
from watchfiles import Change, PythonFilter, watch

LAST_SECONDS: Final = 15.0
"""How long a server may take to end in order, before it is killed: the default ``drain_timeout`` and some more."""


class _Watched(PythonFilter):
    """Python files, and one configuration file."""

    def __init__(self, config: Path | None) -> None:
        super().__init__()
        self._config = config

    def __call__(self, change: Change, path: str) -> bool:
        return (self._config is not None and Path(path) == self._config) or super().__call__(change, path)


class _Child:
    """The server, in a session of its own: a Ctrl+C on the terminal reaches it through its parent alone."""

    def __init__(self) -> None:
        command = [sys.executable, sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--reload")]
        self._process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  # this very command

    def end(self) -> int:
        """Let it end in order, or kill it after `LAST_SECONDS`; return the status, as a shell has it.

        One that was told to end before it served has nothing to bring in order: that is status 0 as well.
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


def serve_and_watch(folder: Path, config: str | None) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, of which a second one kills the server; return its last status.

    Args:
        folder: watched together with the working directory.
        config: a configuration file to watch.
    """
    file = Path(config).resolve() if config else None
    if file is not None and not file.is_file():
        raise click.ClickException(f"there is no configuration file {config}")
    folders = {Path.cwd(), folder, *([file.parent] if file is not None else [])}
    stop = threading.Event()
    child: _Child | None = None
    status = 0

    def asked(signum: int, frame: FrameType | None) -> None:
        if stop.is_set() and child is not None:
            child.kill()
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):  # as under nohup
            signal.signal(number, asked)
    try:
        child = _Child()
        for changes in watch(*folders, watch_filter=_Watched(file), stop_event=stop):
            click.echo(
                f"{', '.join(sorted({_shown(name) for _, name in changes})[:3])} changed; starting anew", err=True
            )
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
