"""The command ``asyncapy``, which imports each of its commands when it is called.

Other distributions bring commands, too: `command_names` finds them, `foreign_commands` imports them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from asyncapy_cli.command_names import command_names
from asyncapy_cli.output import UNWRITABLE, discard, escape_unencodable, note, printable

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


class _SystemFailed(Exception):
    """Carries an OSError through click, which has an exit status of its own for some of them."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error: OSError = error


@contextlib.contextmanager
def _carried_through_click() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _SystemFailed(error) from error


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in _foreign_names() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"asyncapy_cli.{cmd_name}")
            command: click.Command = getattr(module, cmd_name)
            return command
        if cmd_name not in command_names():
            return None
        if not ctx.resilient_parsing:
            return _import_foreign(cmd_name)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:  # for a completion: the shell would show errors, and take all other output for completions
                return _import_foreign(cmd_name)
            except Exception:  # a command that cannot be used, or a wrong list of plugins
                return None

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _carried_through_click():  # --help and --version write here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _carried_through_click():
            try:
                return super().invoke(ctx)
            except Exception as error:
                name = ctx.invoked_subcommand
                if name is None or name in COMMANDS:
                    raise
                from asyncapy_cli.foreign_commands import name_failure  # noqa: PLC0415  # it imports the core

                named = name_failure(name, error)
                if named is error:
                    raise
                raise named from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = {**dict.fromkeys(self.list_commands(ctx), None), **COMMANDS}
        found = [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        foreign = _foreign_names()
        if foreign:
            with formatter.section("Commands of other distributions"):
                formatter.write_dl([(printable(name), _origin(name, titles)) for name, titles in foreign.items()])


def _foreign_names() -> dict[str, list[str]]:
    """Return the commands of other distributions, with these, that no list denies."""
    names = command_names()
    if names and any(os.environ.get(f"ASYNCAPY_PLUGINS_{each}") is not None for each in ("ALLOW", "DENY")):
        from asyncapy_cli.foreign_commands import find_commands  # noqa: PLC0415  # it imports the core
        from asyncapy_core.errors import ConfigError  # noqa: PLC0415  # as above
        from asyncapy_core.plugins import default_manager  # noqa: PLC0415  # as above

        try:
            denied = {each.name for each in find_commands(default_manager(), COMMANDS) if each.state == "denied"}
        except ConfigError:  # of a wrong list, which allows nothing; each other command reports it
            return {}
        return {name: titles for name, titles in names.items() if name not in denied}
    return names


def _origin(name: str, titles: list[str]) -> str:
    """Return the line about a command of another distribution."""
    brought = printable(" and ".join(sorted(titles)))
    if name in COMMANDS:
        return f"Brought by {brought}, but not used: asyncapy has this command itself."
    return f"Brought by {brought}." if len(titles) == 1 else f"Claimed by {brought}, and not used: uninstall one."


def _import_foreign(name: str) -> click.Command:
    from asyncapy_cli.foreign_commands import import_command  # noqa: PLC0415  # it imports the core
    from asyncapy_core.plugins import default_manager  # noqa: PLC0415  # as above

    return import_command(default_manager(), COMMANDS, name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asyncapy-cli", prog_name="asyncapy")
def asyncapy() -> None:
    """Serve APIs over AsyncAProto."""


def main() -> None:
    """Run the command line. An AsyncAPYError or OSError becomes one line on standard error and an exit status."""
    escape_unencodable()
    status: Any
    try:
        status = _run()
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):  # of a server that cannot start
            status = _complain(status, 1)
    sys.exit(_flushed(status))


def _run() -> int | None:
    """Run a command, and return its exit status."""
    try:
        status: int | None = asyncapy.main(standalone_mode=False)
    except _SystemFailed as failed:
        return _report(failed.error)
    except OSError as error:  # from click, at a Ctrl+C
        return _report(error)
    except click.ClickException as error:
        try:
            error.show(sys.stderr)
        except OSError as failure:
            return _report(failure) if isinstance(failure, BrokenPipeError) else error.exit_code
        return error.exit_code
    except click.Abort:  # Ctrl+C
        return INTERRUPTED
    except Exception as error:
        from asyncapy_core.errors import AsyncAPYError  # noqa: PLC0415  # it imports trio, which --help does not need

        if not issubclass(type(error), AsyncAPYError):  # isinstance reads __class__, which may raise
            raise
        return _complain(f"asyncapy: {error}", 1)
    return status


def _complain(text: str, status: int) -> int:
    """Write a message, and return the exit status: the given one, unless the reader of standard error has left."""
    try:
        note(text)
    except BrokenPipeError:
        return BROKEN_PIPE
    return status


def _report(error: OSError) -> int:
    """Report a failed system call, and return the exit status."""
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe; no line, like other programs
        return BROKEN_PIPE
    from asyncapy_core.errors import AsyncAPYError  # noqa: PLC0415  # as above

    expected = isinstance(error, AsyncAPYError)
    text = str(error) if expected or error.filename else f"the output cannot be written: {error.strerror or error}"
    return _complain(f"asyncapy: {text}", 1 if expected else UNWRITABLE)


def _flushed(status: Any) -> Any:
    """Write the buffered output, so that a failure is reported here and not by the interpreter; return the status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            discard(stream)
            if stream is sys.stdout and not status and isinstance(error, OSError):
                status = _report(error)
    return status
