"""``asyncapy serve``: run a server that a module or a file defines."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from asyncapy_cli.target import load_server
from asyncapy_core import Server, ServerConfig

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(function: F) -> F:
    """Add an option for each setting of a server."""
    for name, setting in reversed(ServerConfig.model_fields.items()):
        option = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=f"{setting.description}.")
        function = option(function)
    return function


@click.command()
@click.argument("target")
@click.option("--config", "path", type=click.Path(dir_okay=False), help="A configuration file, INI or TOML.")
@click.option("--reload", is_flag=True, help="Start anew when a Python file below this folder changes.")
@with_settings
def serve(*, target: str, path: str | None, reload: bool, **settings: str | None) -> None:
    """Run the server that TARGET names: module:server, or path/to/file.py:server.

    Settings given here come before those in the program, the environment and configuration files.
    """
    if reload:
        sys.exit(_serve_and_watch(Path.cwd()))
    server = load_server(target)
    server.configure({name: value for name, value in settings.items() if value is not None}, path=path)
    _print_banner(target, server)
    server.start()


def _serve_and_watch(folder: Path) -> int:
    """Run this command without ``--reload`` in a process of its own, anew after each change; return its last status."""
    from watchfiles import PythonFilter, watch  # noqa: PLC0415  # only for --reload

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    command = [sys.executable, sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--reload")]
    process = subprocess.Popen(command)  # noqa: S603  # this very command
    try:
        for changes in watch(folder, watch_filter=PythonFilter(), stop_event=stop):
            names = ", ".join(sorted({str(Path(name).relative_to(folder)) for _, name in changes})[:3])
            click.echo(f"{names} changed; starting anew", err=True)
            _end(process)
            process = subprocess.Popen(command)  # noqa: S603  # as above
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _print_banner(target: str, server: Server) -> None:
    """Say what is about to be served."""
    from rich.console import Console  # noqa: PLC0415  # --help does without
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    config = server.config
    loaded = [record.name for record in server.plugins.plugins if record.state == "loaded"]
    problems = [f"{record.name}: {record.reason}" for record in server.plugins.problems]
    handlers = sum(map(len, server.handlers.values()))
    rows = {
        "server": f"{target}, {handlers} handlers in {len(server.handlers)} groups",
        "address": f"{config.addr}, port {config.port or 'any'}{', TLS' if config.tls_cert else ''}",
        "codecs": ", ".join(codec.name for codec in server.plugins.codecs()) or "none",
        "filters": ", ".join(server.plugins.filters) or "none",
        "plugins": ", ".join(loaded) or "none",
        "limits": f"{config.max_packet} bytes a packet, {config.max_connections} connections, {config.timeout:g} s",
    }
    if problems:
        rows["quarantined"] = "; ".join(problems)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console(stderr=True).print(table)
