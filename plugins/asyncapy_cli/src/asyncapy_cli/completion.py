"""``asyncapy completion``: scripts with which shells complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from asyncapy_cli.output import echo


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print a script with which SHELL completes this command.

    Evaluate it in the start-up file of the shell: eval "$(asyncapy completion bash)"
    """
    found = get_completion_class(shell)
    assert found is not None
    echo(found(context.find_root().command, {}, "asyncapy", "_ASYNCAPY_COMPLETE").source())
