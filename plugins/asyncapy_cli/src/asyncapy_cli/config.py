"""``asyncapy config``: check configuration files without starting a server."""

from __future__ import annotations

import click

from asyncapy_cli.output import echo, note
from asyncapy_cli.plugins_dir import with_plugins_dir
from asyncapy_core.config import ServerConfig
from asyncapy_core.config.loading import load_config
from asyncapy_core.plugins import default_manager
from asyncapy_core.plugins.restriction import Restriction
from asyncapy_core.server.log_formats import log_formatter
from asyncapy_core.server.running import prepare_plugins, tls_context


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@with_plugins_dir
def check(path: str) -> None:
    """Validate PATH, together with the environment and the options of plugins, and print the settings that are set."""
    load_config({}, path=path, environ={})  # the file alone, as the environment may hide its errors
    manager = default_manager()
    settings, options = load_config({}, path=path, plugins=manager)
    tls_context(settings)
    log_formatter(settings)
    manager.restrict(Restriction(settings.plugins_allow, settings.plugins_deny))
    prepare_plugins(manager, settings, options)
    for name in ServerConfig.model_fields:
        value = getattr(settings, name)
        if name in settings.model_fields_set:
            echo(f"{name} = {value!r}")
    note(f"{path} is valid.")
