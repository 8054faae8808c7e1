"""The checks of ``asyncapy plugins doctor``: those of a start, and all of them, even if one fails."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncapy_cli.foreign_commands import find_commands, load_command
from asyncapy_cli.main import COMMANDS
from asyncapy_core.config import ServerConfig
from asyncapy_core.config.loading import load_config
from asyncapy_core.config.sources import PluginOptions
from asyncapy_core.errors import ConfigError, PluginError
from asyncapy_core.plugins import PluginManager, PluginRecord, Restriction
from asyncapy_core.server.running import tls_context


@dataclass(slots=True)
class Findings:
    """The result of the checks.

    Attributes:
        faults: a message for each fault.
        notes: messages about other things that a reader should know.
        broken: the quarantined plugins.
        plugins: the number of plugins.
        commands: the number of commands of other distributions.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: tuple[PluginRecord, ...] = ()
    plugins: int = 0
    commands: int = 0


def examine(manager: PluginManager, path: str | None) -> Findings:
    """Check the plugins, the settings in the environment, and a configuration file, as a start does.

    Args:
        manager: the plugins.
        path: a configuration file, or None. Without one, an option that a file has to set is a note.
    """
    findings = Findings()
    settings, options = ServerConfig(), PluginOptions()
    try:
        settings, options = load_config({}, path=path, plugins=manager)
        manager.restrict(Restriction(settings.plugins_allow, settings.plugins_deny))
        tls_context(settings)
    except ConfigError as error:
        findings.faults.append(str(error))
    try:
        _examine_plugins(manager, settings.plugins_require, options, findings, complete=path is not None)
    except ConfigError as error:  # a deny list with a name of no plugin
        findings.faults.append(str(error))
    _examine_commands(manager, findings)
    findings.faults = list(dict.fromkeys(findings.faults))
    return findings


def _examine_plugins(
    manager: PluginManager, required: list[str], options: PluginOptions, findings: Findings, *, complete: bool
) -> None:
    wrong = manager.option_faults(options)
    for name, fault in wrong.items():
        (findings.faults if complete or options.get(name) else findings.notes).append(fault)
    manager.load_all()
    usable = None if wrong else options  # with wrong options, codecs() would raise for all plugins
    codecs = manager.codecs(usable)
    contested = [*manager.codec_complaints(usable), *manager.filters.complaints, *manager.key_stores.complaints]
    findings.broken = manager.problems
    findings.plugins = len(manager.plugins)
    findings.faults += [f"{record.title} is quarantined: {record.reason}" for record in findings.broken]
    findings.faults += contested
    if not codecs:
        findings.faults.append("no codec is installed, so no server can start; pip install asyncapy-codecs")
    try:
        manager.require(required)
    except PluginError as error:
        findings.faults.append(str(error).partition("\n")[0])
    findings.notes += [
        f"{folder} is left over from an interrupted pip, and is not read; delete it" for folder in manager.leftovers
    ]


def _examine_commands(manager: PluginManager, findings: Findings) -> None:
    try:
        commands = find_commands(manager, COMMANDS)
    except ConfigError as error:  # as above
        findings.faults.append(str(error))
        return
    for record in commands:
        load_command(record)
    broken = tuple(record for record in commands if record.state == "quarantined")
    findings.commands = len(commands)
    findings.broken += broken
    findings.faults += [f"{record.title} is quarantined: {record.reason}" for record in broken]
