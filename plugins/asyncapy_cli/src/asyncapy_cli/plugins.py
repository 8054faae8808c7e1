"""``asyncapy plugins``: list the installed plugins and their problems."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Final

import click

from asyncapy_cli.output import print_json, print_table
from asyncapy_core.errors import ConfigError
from asyncapy_core.plugins import PluginManager, PluginRecord, default_manager

TYPINGS: Final = "typings"
"""The folder in which pyright looks for stubs unless its configuration names another."""


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def plugins(context: click.Context, *, as_json: bool) -> None:
    """List the installed plugins with their distributions, states, import times and hooks."""
    if context.invoked_subcommand is not None:
        return
    records = _looked_through(default_manager()).plugins
    if as_json:
        print_json([_fields(record) for record in records])
    else:
        print_table(("Plugin", "Distribution", "Version", "State", "Import", "Hooks"), map(_row, records))


@plugins.command()
def doctor() -> None:
    """Report the problems of the installed plugins. The exit status is 1 if there are any."""
    manager = _looked_through(default_manager())
    faults = [f"{record.title} is quarantined: {record.reason}" for record in manager.problems]
    faults += [*manager.filters.complaints, *manager.key_stores.complaints]
    if not list(manager.codecs()):
        faults.append("no codec is installed, so no server can start; pip install asyncapy-codecs")
    for record in manager.problems:
        if record.traceback:
            click.echo(record.traceback, err=True)
    for folder in manager.leftovers:
        click.echo(f"{folder} is left over from an interrupted pip, and is not read; delete it", err=True)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo(f"{len(manager.plugins)} plugins, no problems found.")


@plugins.command()
@click.argument("folder", metavar="[DIR]", default=TYPINGS, type=click.Path(file_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; the status is 1 when the stubs are not up to date.")
def stubs(*, folder: str, check: bool) -> None:
    """Write stubs into DIR, typings by default, so that type checkers know the filters of the installed plugins.

    A filter that no plugin provides and a wrong argument of a filter are then errors of mypy and pyright. Run it again
    when plugins have changed.
    """
    from asyncapy_cli.stubs import HEADER, make_stubs  # noqa: PLC0415  # no other command reads modules

    try:
        made = make_stubs(_looked_through(default_manager()))
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    wanted = {Path(folder, path): text for path, text in made.files.items()}
    found = {path: path.read_text("utf-8", "replace") for path in Path(folder).glob("asyncapy/*.pyi")}
    for path in sorted(found):
        if not found[path].startswith(HEADER):
            raise click.ClickException(f"{path} is not from this command; move it away, or give another folder")
    for note in made.notes:
        click.echo(note, err=True)
    stale = [path for path in sorted({*wanted, *found}) if wanted.get(path) != found.get(path)]
    if check:
        if stale:
            again = "asyncapy plugins stubs" if folder == TYPINGS else f"asyncapy plugins stubs {folder}"
            names = ", ".join(map(str, stale))
            raise click.ClickException(f"not up to date: {names}; run {again}")
        click.echo(f"The {len(wanted)} stubs in {folder} are up to date.")
        return
    for path in sorted({*wanted, *found}):
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
            click.echo(path)
        else:
            path.unlink()
            click.echo(f"{path} removed")
    pyright = "pyright without any" if folder == TYPINGS else f'pyright with stubPath = "{folder}"'
    click.echo(f'\nmypy reads the stubs with mypy_path = "{folder}" in its configuration, {pyright}.', err=True)


def _looked_through(manager: PluginManager) -> PluginManager:
    """Load all plugins, make their options, and call the hooks that collect, to find the failures of a start."""
    with contextlib.suppress(ConfigError):  # an option without a default, which a configuration file may set
        manager.check_options({})
    manager.load_all()
    manager.codecs()
    return manager


def _fields(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "reason": record.reason,
        "hooks": list(record.hooks),
        "import_seconds": record.import_seconds,
    }


def _row(record: PluginRecord) -> tuple[str, ...]:
    state = f"{record.state}: {record.reason}" if record.reason else record.state
    hooks = ", ".join(hook.removeprefix("asyncapy_") for hook in record.hooks)
    took = f"{record.import_seconds * 1000:.0f} ms"
    return record.name, record.distribution, record.version, state, took, hooks
