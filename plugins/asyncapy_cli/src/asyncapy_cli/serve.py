"""``asyncapy serve``: run a server that a module or a file defines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from asyncapy_cli.log_config import apply_log_config
from asyncapy_cli.output import print_facts
from asyncapy_cli.plugin_options import by_plugin, check_options, complete_option
from asyncapy_cli.plugins_dir import is_plugins_dir_given, plugins_dir, with_plugins_dir
from asyncapy_cli.target import Target
from asyncapy_core import Server, ServerConfig, defaults
from asyncapy_core.addresses import is_unix
from asyncapy_core.config import describe_setting
from asyncapy_core.logs.writer import program_logs
from asyncapy_core.plugins import default_manager
from asyncapy_core.server.log_formats import FORMATS

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(function: F) -> F:
    """Add an option for each setting of a server."""
    for name, setting in reversed(ServerConfig.model_fields.items()):
        text = f"{describe_setting(name)} Default: {'none' if setting.default is None else repr(setting.default)}."
        function = click.option(f"--{name.replace('_', '-')}", name, metavar="VALUE", help=text)(function)
    return function


@click.command()
@click.argument("target")
@click.option("--config", "path", type=click.Path(dir_okay=False), help="A configuration file, INI or TOML.")
@with_plugins_dir
@click.option(
    "--reload", is_flag=True, help="Restart when --config or a Python file here, in TARGET's folder or in DIR changes."
)
@click.option(
    "--log-config",
    type=click.Path(dir_okay=False),
    help="A configuration of the logging module: JSON or TOML for dictConfig, or INI for fileConfig.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=check_options,
    shell_complete=complete_option,
    metavar="NAME.KEY=VALUE",
    help="An option of the plugin NAME; `asyncapy plugins NAME` lists them. May be repeated.",
)
@with_settings
def serve(
    *,
    target: str,
    path: str | None,
    reload: bool,
    log_config: str | None,
    options: tuple[str, ...],
    **settings: Any,
) -> None:
    """Run the server TARGET: module:server or path/to/file.py:server.

    Settings and options given here override those in the program, the environment and configuration files. The program
    runs as a module: code under `if __name__ == "__main__"` does not run, and code after `server.start()` runs when the
    server has ended.
    """
    program = Target(target)
    if reload:
        from asyncapy_cli.reloading import serve_and_watch  # noqa: PLC0415  # watchfiles is needed here only

        folders = [folder for folder in (program.folder, plugins_dir()) if folder is not None]
        sys.exit(serve_and_watch(folders, [file for file in (path, log_config) if file is not None]))
    if log_config is not None:
        if formats := [f"--{name.replace('_', '-')}" for name in sorted(FORMATS) if settings[name] is not None]:
            raise click.UsageError(f"--log-config has the formats of log lines; leave out {', '.join(formats)}")
        apply_log_config(log_config)
    with contextlib.ExitStack() as stack:

        def prepare(server: Server) -> None:
            if is_plugins_dir_given() and server.plugins is not default_manager():
                raise click.ClickException(
                    f"{target} has plugins of its own, to which --plugins-dir adds none; give it "
                    "plugins=PluginManager(folder=...)"
                )
            given = {name: value for name, value in settings.items() if value is not None}
            server.configure(path=path, plugin_options=by_plugin(options, server.plugins.names), **given)
            if log_config is not None:
                server.log.console.steps_back = True
            stack.enter_context(program_logs(server.log, server.config.logging_level))
            if log_config is None and server.log_format == defaults.LOG_FORMAT:
                _print_banner(target, server)

        program.run(prepare)


def _print_banner(target: str, server: Server) -> None:
    """Print a summary of the server before it starts."""
    loaded = [record.name for record in server.plugins.plugins if record.state == "loaded"]
    problems = [f"{record.name}: {record.reason}" for record in server.plugins.problems]
    handlers = sum(map(len, server.handlers.values()))
    guards = f", behind {_counted(len(server.guards), 'guard')}" if server.guards else ""
    rows = {
        "server": f"{target}, {_counted(handlers, 'handler')} in {_counted(len(server.handlers), 'group')}{guards}",
        "address": _addresses(server.config),
        "filters": ", ".join(server.plugins.filters) or "none",
        "plugins": ", ".join(loaded) or "none",
        "limits": _limits(server.config),
    }
    if problems:
        rows["quarantined"] = "; ".join(problems)
    print_facts(rows)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _addresses(config: ServerConfig) -> str:
    unix = [address for address in config.addresses if is_unix(address)]
    hosts = [address for address in config.addresses if address not in unix]
    if hosts:
        hosts[-1] += f", port {config.port or 'any'}"
    return ", ".join([*hosts, *unix]) + (", TLS" if config.tls_cert else "")


def _limits(config: ServerConfig) -> str:
    limits = [f"{config.max_packet} bytes a packet", f"{config.max_connections} connections"]
    if config.session_limit:
        limits.append(f"{config.session_limit} an address")
    limits.append(f"{config.timeout:g} s")
    if config.handler_timeout is not None:
        limits.append(f"handlers {config.handler_timeout:g} s")
    return ", ".join(limits)
