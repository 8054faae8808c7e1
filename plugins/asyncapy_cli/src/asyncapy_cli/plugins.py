"""``asyncapy plugins``: list the installed plugins, their problems and their stubs, and test them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from asyncapy_cli.foreign_commands import add_commands, find_commands
from asyncapy_cli.main import COMMANDS
from asyncapy_cli.output import echo, note, print_json, print_table
from asyncapy_cli.plugin_options import complete_name
from asyncapy_cli.plugins_dir import with_plugins_dir
from asyncapy_core.errors import ConfigError
from asyncapy_core.plugins import PluginManager, PluginRecord, default_manager
from asyncapy_core.plugins.inventory import Option, Provided, take_inventory

TYPINGS: Final = "typings"
"""The folder in which pyright looks for stubs unless its configuration names another."""

_COLUMNS: Final = ("Plugin", "Distribution", "Version", "State", "Import", "Hooks")


class ByName(click.Group):
    """A group in which the name of a plugin, in place of a command, stands for ``show`` with this name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            return show.name, show, args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        (name,) = (each for each in show.params if isinstance(each, click.Argument))
        return [*super().shell_complete(ctx, incomplete), *name.shell_complete(ctx, incomplete)]


@click.group(cls=ByName, invoke_without_command=True, subcommand_metavar="[PLUGIN | COMMAND [ARGS]...]")
@with_plugins_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.pass_context
def plugins(context: click.Context, *, as_json: bool) -> None:
    """List the installed plugins, and the codecs, filters, key stores, commands and options of each.

    With the name of a plugin, show this plugin and the types and defaults of its options.
    """
    if context.invoked_subcommand is not None:
        return
    found = _inventory(_looked_through(default_manager()))
    if as_json:
        print_json([{**_fields(record), **asdict(provided)} for record, provided in found.items()])
        return
    print_table(_COLUMNS, map(_row, found))
    rows = [(record.name, *row) for record, provided in found.items() for row in _provided(provided)]
    if rows:
        echo("")
        print_table(("Plugin", "Provides", "Name"), rows)


@plugins.command()
@click.argument("name", metavar="PLUGIN", shell_complete=complete_name)
@with_plugins_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def show(*, name: str, as_json: bool) -> None:
    """Show PLUGIN, and the types and defaults of its options.

    `asyncapy plugins PLUGIN` does the same, unless a command has this name.
    """
    manager = _looked_through(default_manager())
    found = {record: provided for record, provided in _inventory(manager).items() if record.name == name}
    if not found:
        installed = ", ".join(sorted(manager.names)) or "none"
        commands = ", ".join(plugins.commands)
        raise click.ClickException(f"no plugin is called {name!r}; installed: {installed}; commands: {commands}")
    if as_json:
        print_json([{**_fields(record), **asdict(provided)} for record, provided in found.items()])
        return
    print_table(_COLUMNS, map(_row, found))
    for provided in found.values():
        if rows := [row for row in _provided(provided) if row[0] != "option"]:
            echo("")
            print_table(("Provides", "Name"), rows)
        if not provided.options:
            continue
        echo("")
        print_table(("Option", "Type", "Default", "Description"), map(_option_row, provided.options))
        option = provided.options[0].name
        variable = f"ASYNCAPY_PLUGIN_{name}__{option}".upper().replace("-", "_").replace(".", "_")
        note(f"\nSet one with --option {name}.{option}=VALUE, {variable}=VALUE, or [plugins.{name}] in a TOML file.")


@plugins.command()
@with_plugins_dir
@click.option(
    "--config", "path", type=click.Path(exists=True, dir_okay=False), help="Check a start with this configuration file."
)
def doctor(*, path: str | None) -> None:
    """Report all that would keep a server from starting or plugins from being used, with tracebacks.

    It checks the installed plugins, the settings in the environment, and a configuration file. The exit status is 1 if
    there is a problem.
    """
    from asyncapy_cli.doctor import examine  # noqa: PLC0415  # it imports pydantic

    findings = examine(default_manager(), path)
    for record in findings.broken:
        if record.traceback:
            note(record.traceback)
    for each in findings.notes:
        note(f"note: {each}")
    for fault in findings.faults:
        echo(fault)
    if findings.faults:
        sys.exit(1)
    commands = {0: "", 1: " and 1 command"}.get(findings.commands, f" and {findings.commands} commands")
    echo(f"{findings.plugins} plugins{commands}, no problems found.")


@plugins.command()
@with_plugins_dir
@click.argument("names", nargs=-1, metavar="[PLUGIN]...")
@click.option("--store", "stores", multiple=True, metavar="URL", help="An empty key store to test; it is left empty.")
def test(*, names: tuple[str, ...], stores: tuple[str, ...]) -> None:
    """Run the contracts over the installed plugins, or over these: their codecs, filters and key stores.

    Codecs are tested in any case, filters by the contracts that their plugin brings, and key stores by those or with
    --store. The exit status is 1 if a contract is broken.
    """
    from asyncapy_cli.contracts import run_contracts  # noqa: PLC0415  # it imports the server and the clients

    if not run_contracts(_looked_through(default_manager()), names, stores):
        sys.exit(1)


@plugins.command()
@with_plugins_dir
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
    for each in made.notes:
        note(each)
    stale = [path for path in sorted({*wanted, *found}) if wanted.get(path) != found.get(path)]
    if check:
        if stale:
            again = "asyncapy plugins stubs" if folder == TYPINGS else f"asyncapy plugins stubs {folder}"
            names = ", ".join(map(str, stale))
            raise click.ClickException(f"not up to date: {names}; run {again}")
        echo(f"The {len(wanted)} stubs in {folder} are up to date.")
        return
    for path in sorted({*wanted, *found}):
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
        else:
            path.unlink()
    for path in sorted({*wanted, *found}):
        echo(f"{path}" if path in wanted else f"{path} removed")
    pyright = "pyright without any" if folder == TYPINGS else f'pyright with stubPath = "{folder}"'
    note(f'\nmypy reads the stubs with mypy_path = "{folder}" in its configuration, {pyright}.')


def _looked_through(manager: PluginManager) -> PluginManager:
    """Load all plugins, make their options, and call the hooks that collect, to find the failures of a start."""
    with contextlib.suppress(ConfigError):  # an option without a default, which a configuration file may set
        manager.check_options({})
    manager.load_all()
    manager.codecs()
    return manager


def _inventory(manager: PluginManager) -> dict[PluginRecord, Provided]:
    """Return everything that the plugins provide, and the commands of other distributions, which are imported."""
    found = take_inventory(manager)
    add_commands(found, find_commands(manager, COMMANDS))
    return found


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


def _provided(provided: Provided) -> Iterator[tuple[str, str]]:
    """Yield rows with the kind and the name of each thing that a plugin provides."""
    for name, wire_id in provided.codecs.items():
        yield "codec", f"{name} (wire id {wire_id})"
    for name in provided.filters:
        yield "filter", f"{name} (contested)" if name in provided.contested else name
    for name in provided.key_stores:
        yield "key store", f"{name}:// (contested)" if name in provided.contested else f"{name}://"
    for name in provided.commands:
        yield "command", f"asyncapy {name}"
    for option in provided.options:
        yield "option", f"{option.name}: {option.type}" + (f" = {option.default}" if option.default else ", required")


def _option_row(option: Option) -> tuple[str, ...]:
    return option.name, option.type, "required" if option.default is None else option.default, option.description


def _row(record: PluginRecord) -> tuple[str, ...]:
    state = f"{record.state}: {record.reason}" if record.reason else record.state
    hooks = ", ".join(hook.removeprefix("asyncapy_") for hook in record.hooks)
    took = f"{record.import_seconds * 1000:.0f} ms"
    return record.name, record.distribution, record.version, state, took, hooks
