"""The output of commands: tables, JSON, and text from elsewhere, escaped for a terminal.

rich is imported where it is used: JSON for scripts and ``--help`` do not need it.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

KEPT_WHOLE: Final = 20
"""Characters of the first column that stay on one line even in a narrow terminal."""


def printable(text: str) -> str:
    """Escape, as in JSON, all characters that could move the cursor or change colours; keep newlines."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each != "\n" else each for each in text
    )


def print_json(value: Any) -> None:
    """Print a value as JSON, for scripts."""
    click.echo(json.dumps(value, indent=2))


def print_coloured(text: str) -> None:
    """Print JSON in colour, for a terminal."""
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(printable(text), "json", background_color="default", word_wrap=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Short texts in its first column are not wrapped, so that they can be copied."""
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
    """Print a table of names and values on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console(stderr=True).print(table)
