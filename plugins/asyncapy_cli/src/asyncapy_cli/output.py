"""What commands print: tables, JSON, and text that is not ours, made fit for a terminal.

rich is imported where it is used: scripts, pipes and ``--help`` do without.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

KEPT_WHOLE: Final = 20
"""So many characters of the first column are kept on one line, however narrow the terminal."""


def printable(text: str) -> str:
    """Return text with all that moves the cursor or changes colours escaped as in JSON; line ends stay."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each != "\n" else each for each in text
    )


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    click.echo(json.dumps(value, indent=2))


def print_coloured(text: str) -> None:
    """Print JSON for a person."""
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(printable(text), "json", background_color="default", word_wrap=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under the names of their columns; short texts in the first stay whole, so that they can be copied."""
    from rich.console import Console
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
    Console().print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and what is to be said of them, on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console(stderr=True).print(table)
