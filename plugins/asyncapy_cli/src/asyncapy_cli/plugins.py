"""``asyncapy plugins``: list the installed plugins and their problems."""

from __future__ import annotations

import sys
from typing import Any

import click

from asyncapy_cli.output import print_json, print_table
from asyncapy_core.plugins import PluginManager, PluginRecord, default_manager


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
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo(f"{len(manager.plugins)} plugins, no problems found.")


def _looked_through(manager: PluginManager) -> PluginManager:
    """Load all plugins and call the hooks that collect filters, key stores and codecs, so that failures are found."""
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
