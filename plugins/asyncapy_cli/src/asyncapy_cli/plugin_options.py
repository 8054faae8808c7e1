"""Names of plugins and their options as arguments of commands, and their completion in shells."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from asyncapy_core.plugins import PluginManager


def complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the installed plugins whose names begin so."""
    return [CompletionItem(name) for name in sorted(_installed().names) if name.startswith(incomplete)]


def complete_option(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the options of the installed plugins that begin so."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = list(_completions())  # plugins may print, and the shell would take that for completions
    return [item for item in found if item.value.startswith(incomplete)]


def check_options(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return options that all have the form ``NAME.KEY=VALUE``.

    Raises:
        click.BadParameter: one has another form.
    """
    for each in given:
        path, equals, _ = each.partition("=")
        plugin, _, key = path.partition(".")
        if not (plugin and key and equals):
            raise click.BadParameter(f"{each!r} is not NAME.KEY=VALUE, as in codecs.engine=msgspec")
    return given


def by_plugin(given: Iterable[str], names: Collection[str]) -> dict[str, dict[str, str]]:
    """Return options by plugin, as `Server.configure` accepts them. The last of several values of one option counts.

    Args:
        given: options as ``NAME.KEY=VALUE``.
        names: the names of the plugins, which may have dots.
    """
    found: dict[str, dict[str, str]] = {}
    for each in given:
        path, _, value = each.partition("=")
        owners = (name for name in names if path.startswith(f"{name}."))
        owner = max(owners, key=len, default=path.partition(".")[0])
        found.setdefault(owner, {})[path[len(owner) + 1 :]] = value
    return found


def _installed() -> PluginManager:
    from asyncapy_core.plugins import default_manager  # noqa: PLC0415  # commands that need no plugins start faster

    return default_manager()


def _completions() -> Iterator[CompletionItem]:
    """Yield the beginning of each option of a plugin, or the whole option for each of its values if these are few."""
    manager = _installed()
    manager.load_all()
    for record in manager.plugins:
        if record.options is None or record.state != "loaded":
            continue
        for name, field in record.options.model_fields.items():
            for value in _values(field.annotation) or [""]:
                yield CompletionItem(f"{record.name}.{field.alias or name}={value}", help=field.description)


def _values(annotation: object) -> list[str]:
    """Return the values that an option of this type may have, or nothing if there are many."""
    if annotation is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []
