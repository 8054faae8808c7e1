"""``asyncapy describe`` and ``asyncapy client``: the description of a server, and code for its clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import trio

from asyncapy_cli.output import echo, note
from asyncapy_cli.plugins_dir import with_plugins_dir
from asyncapy_cli.setups import unseen
from asyncapy_cli.target import Target
from asyncapy_core import Server
from asyncapy_typed.describe import describe_server
from asyncapy_typed.python_client import python_client
from asyncapy_typed.typescript import typescript

LANGUAGES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {"typescript": typescript, "python": python_client}
"""The generators, by the names of their languages."""

_output = click.option(
    "--output", "-o", type=click.Path(dir_okay=False), help="Write this file instead of standard output."
)
_setup = click.option(
    "--setup", "with_setup", is_flag=True, help="Set up plugins and the server first; no port is opened."
)


@click.command()
@click.argument("target")
@with_plugins_dir
@click.option("--title", help="The name of the application; otherwise that of the program.")
@click.option("--api-version", default="0.0.0", show_default=True, help="The version of the application.")
@click.option("--host", metavar="HOST:PORT", help="The address for clients; otherwise those of the settings.")
@_setup
@_output
def describe(
    *, target: str, title: str | None, api_version: str, host: str | None, with_setup: bool, output: str | None
) -> None:
    """Write a description of TARGET in the format of AsyncAPI 3.0, as JSON.

    TARGET is module:server or path/to/file.py:server. The program runs until it would start the server, and no handler
    is called. Handlers that a setup registers are described with --setup only, which also runs the shutdown.
    """
    described = _describe(
        target, with_setup=with_setup, title=title or _name_of(target), version=api_version, host=host
    )
    _write(json.dumps(described, indent=2), output)


@click.command()
@click.argument("target")
@with_plugins_dir
@click.option(
    "--language", type=click.Choice(list(LANGUAGES)), required=True, help="The language of the code for clients."
)
@_setup
@_output
def client(*, target: str, language: str, with_setup: bool, output: str | None) -> None:
    """Write types for the clients of TARGET: TypeScript interfaces, or a Python module of pydantic models.

    TARGET is module:server or path/to/file.py:server, as for `asyncapy describe`. The code has the types of each
    operation, and does not need the program of the server.
    """
    described = _describe(target, with_setup=with_setup, title=_name_of(target), version="0.0.0", host=None)
    _write(LANGUAGES[language](described).rstrip("\n"), output)


def _describe(target: str, *, with_setup: bool, **options: Any) -> dict[str, Any]:
    """Return the description of a server.

    Raises:
        click.ClickException: there is no such server, or a handler cannot be described.
    """
    server = Target(target).load()
    try:
        if with_setup:
            found = trio.run(_describe_set_up, server, options)
            if isinstance(found, TypeError):
                raise found
            return found
        if missing := unseen(server):
            note(missing)
        return describe_server(server, **options)
    except TypeError as error:
        raise click.ClickException(f"{target} cannot be described: {error}") from error


async def _describe_set_up(server: Server, options: dict[str, Any]) -> dict[str, Any] | TypeError:
    """Return the description of a server that serves without a port, or the error of a handler."""
    from asyncapy_core.testing import serving  # noqa: PLC0415  # it imports the clients

    async with serving(server):
        try:
            return describe_server(server, **options)
        except TypeError as error:  # raised here, it would become a group of exceptions
            return error


def _name_of(target: str) -> str:
    """Return the name of a program: that of its module, or of its file."""
    place = target.partition(":")[0]
    return Path(place).stem if place.endswith(".py") or "/" in place else place.rpartition(".")[2]


def _write(text: str, output: str | None) -> None:
    if output is None:
        echo(text)
    else:
        Path(output).write_text(f"{text}\n", encoding="utf-8")
