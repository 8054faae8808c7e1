"""The commands of other distributions: found, imported one at a time, and named when they fail."""

from __future__ import annotations

import errno
import inspect
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from asyncapy_cli.output import note
from asyncapy_core.errors import AsyncAPYError
from asyncapy_core.foreign.inspection import is_a
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import reason_of, traceback_of
from asyncapy_core.plugins import PluginManager, PluginRecord
from asyncapy_core.plugins.discovery import COMMANDS, find_plugins
from asyncapy_core.plugins.hookspecs import PROJECT
from asyncapy_core.plugins.implementations import short_repr
from asyncapy_core.plugins.inventory import Provided
from asyncapy_core.plugins.record import METADATA

_OUTPUT: Final = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""The numbers of errors that a write to standard output raises, for which `main` has exit statuses."""

_MACHINERY: Final = (str(Path(click.__file__).parent), str(Path(__file__).parent))


class Raised(click.ClickException):
    """A command of another distribution raised an exception; its traceback is printed in front of the message."""

    def __init__(self, message: str, error: Exception) -> None:
        super().__init__(message)
        self._error: Final = error

    def show(self, file: object = None) -> None:
        try:
            trace = self._error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_MACHINERY):
                trace = trace.tb_next
            lines = "".join(traceback.format_exception(type(self._error), self._error, trace))
        except Exception:  # the attributes of an exception may raise
            lines = reason_of(self._error)
        note(lines.rstrip("\n"))
        note(f"asyncapy: {self.message}")


def find_commands(manager: PluginManager, own: Mapping[str, str]) -> list[PluginRecord]:
    """Find the commands of other distributions. None is imported; those that cannot be used have a reason.

    The lists of plugins name a command by its own name, and by those of the plugins of its distribution.

    Args:
        manager: the plugins, with their lists.
        own: the commands of this distribution.

    Raises:
        ConfigError: a list is wrong.
    """
    _ = manager.names  # checks the lists
    commands = [record for record in find_plugins(COMMANDS).records if record.name != METADATA]
    plugins = find_plugins(PROJECT).records if commands else []
    for record in commands:
        record.kind = "command"
        claiming = sorted({each.distribution for each in commands if each.name == record.name})
        names = [each.name for each in plugins if each.distribution == record.distribution]
        if reason := manager.refusal(record.name, *names):
            record.state, record.reason = "denied", reason
        elif record.name.startswith("-"):
            record.quarantine(f"its name {record.name!r} begins as an option does; give it another one")
        elif record.name in own:
            record.quarantine(f"asyncapy has a command {record.name!r} itself; uninstall {record.distribution}")
        elif len(claiming) > 1:
            record.quarantine(f"the name {record.name!r} is claimed by {' and '.join(claiming)}; uninstall one of them")
        elif sum(each.name == record.name for each in commands) > 1:
            record.quarantine(f"{record.distribution} has two commands {record.name!r}; install it again")
    return commands


def load_command(record: PluginRecord) -> None:
    """Import a command that was found, unless it has a reason not to be used. A failure quarantines it."""
    if record.state != "found" or record.entry_point is None:
        return
    activity = "import failed with"
    try:
        found = record.entry_point.load()
        if inspect.isroutine(found):  # and no other callable: to call an application of Typer is to run it
            activity = f"{record.entry_point.value} raised"
            found = found()
        if isinstance(found, click.Command):
            record.plugin, record.state = found, "loaded"
            return
        if inspect.iscoroutine(found):
            found.close()
        reason = f"{record.entry_point.value} gives {short_repr(found)} and no click.Command, nor a function for one"
        record.quarantine(reason)
    except BaseException as error:  # a command may raise anything
        if is_from_signal(error):
            raise
        record.quarantine(f"{activity} {reason_of(error)}", traceback_of(error))


def import_command(manager: PluginManager, own: Mapping[str, str], name: str) -> click.Command:
    """Import the command of a name, and no other.

    Raises:
        click.ClickException: it cannot be used; the message names it, its distribution and the reason.
        ConfigError: a list of plugins is wrong.
    """
    named = [record for record in find_commands(manager, own) if record.name == name]
    for record in named:
        load_command(record)
        if record.state == "loaded":
            command: click.Command = record.plugin
            return command
    title = named[0].title if named else f"command {name!r}"
    problem = f"{named[0].state}: {named[0].reason}" if named else "in metadata that cannot be read"
    more = "\n`asyncapy plugins doctor` shows the traceback." if named and named[0].traceback else ""
    raise click.ClickException(f"{title} is {problem}{more}")


def name_failure(name: str, error: Exception) -> Exception:
    """Return an exception of a command of another distribution as one that names the command.

    Exceptions for users, of click and of AsyncAPY, and those of writing to standard output are returned as they are.
    """
    if any(is_a(error, kind) for kind in (click.ClickException, click.Abort, click.exceptions.Exit, AsyncAPYError)):
        return error
    if is_a(error, OSError) and (error.filename is not None or error.errno in _OUTPUT):
        return error
    commands = (record for record in find_plugins(COMMANDS).records if record.name == name)
    title = next((f"command {name!r} of {each.distribution} {each.version}" for each in commands), f"command {name!r}")
    return Raised(f"{title} raised this exception; tell its authors, or uninstall it", error)


def add_commands(found: dict[PluginRecord, Provided], commands: list[PluginRecord]) -> None:
    """Add the commands of other distributions to an inventory.

    A command is listed under the plugin of its name in its distribution, or else under the first plugin there. One of
    a distribution without plugins, and one that cannot be used, is listed by itself.
    """
    plugins = [record for record in found if record.name != METADATA]
    for record in commands:
        load_command(record)
        beside = [plugin for plugin in plugins if plugin.distribution == record.distribution]
        owner = record
        if record.state == "loaded" and beside:
            owner = next((plugin for plugin in beside if plugin.name == record.name), beside[0])
        found.setdefault(owner, Provided()).commands.append(record.name)
