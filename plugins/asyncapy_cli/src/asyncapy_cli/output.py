"""The output of commands: lines, tables, JSON, and text from elsewhere, escaped for a terminal.

A failure to write to standard output is an OSError, which `main` reports. One to write to standard error has no effect:
nobody can be told, and the result of the command is the same.

rich is imported where it is used: JSON for scripts and ``--help`` do not need it.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

UNWRITABLE: Final = 74
"""The exit status if output cannot be written, or a file not read or written: EX_IOERR of sysexits.h."""

KEPT_WHOLE: Final = 20
"""Characters of the first column that stay on one line even in a narrow terminal."""


class Unwritten(click.ClickException):
    """Important output could not be written."""

    exit_code = UNWRITABLE


def escape_unencodable() -> None:
    """Have standard output and error escape the characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def echo(text: str) -> None:
    """Write a line to standard output, and flush it."""
    if sys.stdout is not None:
        click.echo(text, file=sys.stdout)


def note(text: str) -> None:
    """Write a line to standard error, and flush it."""
    if sys.stderr is not None:
        with _unwritable_stderr_ignored():
            click.echo(text, file=sys.stderr)


def discard(stream: TextIO) -> None:
    """Send all further output of a standard stream nowhere, also that in its buffer."""
    with contextlib.suppress(OSError, ValueError):  # it has no file descriptor, or is closed
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


@contextlib.contextmanager
def _unwritable_stderr_ignored() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:  # for example a full disk
        discard(sys.stderr)


def printable(text: str) -> str:
    """Escape, as in JSON, all characters that could move the cursor or change colours; keep newlines."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each != "\n" else each for each in text
    )


def print_json(value: Any) -> None:
    """Print a value as JSON, for scripts."""
    echo(json.dumps(value, indent=2))


def print_coloured(text: str) -> None:
    """Print JSON in colour, for a terminal."""
    from rich.syntax import Syntax

    _console().print(Syntax(printable(text), "json", background_color="default", word_wrap=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Short texts in its first column are not wrapped, so that they can be copied."""
    from rich.table import Table
    from rich.text import Text

    first, *others = columns
    body = list(rows)
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold", min_width=min(max((len(row[0]) for row in body), default=0), KEPT_WHOLE))
    for name in others:
        table.add_column(name, overflow="fold")
    for row in body:
        table.add_row(*map(Text, row))
    _console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print a table of names and values on standard error."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(value))
    with _unwritable_stderr_ignored():
        _console(stderr=True).print(table)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    class Failing(Console):
        """Raises BrokenPipeError, which some releases of rich turn into an exit status of their own."""

        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704  # called where the exception is handled

    return Failing(stderr=stderr)
