"""Pages that are generated from the code: the settings of a server, the commands."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from asyncapy_cli.main import COMMANDS
from asyncapy_cli.main import asyncapy as command_line
from asyncapy_core import ServerConfig
from asyncapy_core.config import describe_setting


def write_reference(folder: Path) -> None:
    """Write the files that other pages include."""
    folder.mkdir(exist_ok=True)
    for name, text in {"settings": _settings(), "commands": _commands()}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def _settings() -> str:
    parts = []
    for name, field in ServerConfig.model_fields.items():
        default = "none" if field.default is None else f"`{field.default!r}`"
        parts.append(f"`{name}`\n: {describe_setting(name)} Default: {default}.\n")
    return "\n".join(parts)


def _commands() -> str:
    parts: list[str] = []

    def describe(command: click.Command, name: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=name, parent=parent)
        if parent is not None:
            parts.append(_command(command, context))
        if isinstance(command, click.Group):
            for child in COMMANDS if parent is None else command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                describe(found, child, context)

    describe(command_line, "asyncapy", None)
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    usage = f"`{context.command_path} {' '.join(command.collect_usage_pieces(context))}`"
    lines = [f"## {context.command_path}", usage, inspect.cleandoc(command.help or "")]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and "--help" not in record[0]:
            lines.append(f"`{record[0]}`\n: {record[1]}")
    return "\n\n".join(lines) + "\n"
