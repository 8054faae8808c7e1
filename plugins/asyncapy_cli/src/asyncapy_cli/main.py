"""The command ``asyncapy``, which imports each of its commands when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

import click

COMMANDS: Final = {
    "serve": "Run the server that a module or a file defines.",
    "call": "Send packets to a server and print its replies.",
    "explain": "Show why a packet reaches a handler or not.",
    "plugins": "List the installed plugins and their problems.",
    "config": "Check configuration files.",
    "new": "Create a plugin project with tests.",
    "keys": "Issue, list and revoke API keys.",
    "completion": "Print a completion script for a shell.",
}
"""Summaries by command. Each command is a module of this package with a click command of the same name."""


INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""Exit statuses, as a shell reports SIGINT and SIGPIPE."""


class LazyGroup(click.Group):
    """A group that lists its commands with their summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"asyncapy_cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader closed the pipe; click would exit with status 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ctx.exit(BROKEN_PIPE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asyncapy-cli", prog_name="asyncapy")
def asyncapy() -> None:
    """Serve APIs over AsyncAProto."""


def main() -> None:
    """Run the command line. An AsyncAPYError becomes one line on standard error and exit status 1."""
    try:
        status = asyncapy.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:  # Ctrl+C
        status = INTERRUPTED
    except Exception as error:
        from asyncapy_core.errors import AsyncAPYError  # noqa: PLC0415  # it imports trio, which --help does not need

        if not isinstance(error, AsyncAPYError):
            raise
        click.echo(f"asyncapy: {error}", err=True)
        status = 1
    sys.exit(status)
