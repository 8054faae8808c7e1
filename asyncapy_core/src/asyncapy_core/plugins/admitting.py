"""Reads and checks an imported plugin, whose attributes may raise any exception, until it can be used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.logs import reason_of, traceback_of
from asyncapy_core.plugins.hook_results import refuse_coroutine
from asyncapy_core.plugins.implementations import (
    Functions,
    InvalidPlugin,
    find_functions,
    find_implementations,
    find_names,
    options_model,
)
from asyncapy_core.plugins.ordering import AFTER, REQUIRES
from asyncapy_core.plugins.record import PluginRecord
from asyncapy_core.plugins.specifications import Specification, SpecificationTable, find_specifications

HOOKSPECS: Final = "asyncapy_hookspecs"


def read_plugin(record: PluginRecord) -> Functions:
    """Read the attributes of a plugin, and return its functions that implement hooks.

    Raises:
        InvalidPlugin: they break a rule of the plugin API, or raise an exception.
    """
    plugin = record.plugin
    try:
        record.options = options_model(plugin)
        record.after, record.requires = find_names(plugin, AFTER), find_names(plugin, REQUIRES)
        return find_functions(plugin, record.name)
    except InvalidPlugin:
        raise
    except BaseException as error:  # a plugin may raise anything
        if is_from_signal(error):
            raise
        raise InvalidPlugin(f"its attributes cannot be read: {reason_of(error)}", traceback_of(error)) from error


def bring_specifications(record: PluginRecord, functions: Functions) -> list[Specification]:
    """Call `asyncapy_hookspecs` of a plugin, and return the hooks that it brings.

    Raises:
        InvalidPlugin: the call failed, or its result cannot be used.
    """
    found = find_implementations(functions.of(HOOKSPECS), record.name, {})
    specifications: list[Specification] = []
    try:
        for implementation in found.get(HOOKSPECS, ()):
            specifications += find_specifications(refuse_coroutine(implementation()))
    except BaseException as error:  # a plugin may raise anything
        if is_from_signal(error):
            raise
        raise InvalidPlugin(f"{HOOKSPECS} raised {reason_of(error)}", traceback_of(error)) from error
    return specifications


def admit_plugin(
    record: PluginRecord, functions: Functions, others: Iterable[PluginRecord], specifications: SpecificationTable
) -> None:
    """Check the hooks of a plugin, and mark it as loaded.

    Args:
        record: the plugin.
        functions: the result of `read_plugin`.
        others: the plugins of the manager.
        specifications: the hooks that plugins bring.

    Raises:
        InvalidPlugin: it breaks a rule of the plugin API.
    """
    for other in others:
        if other is not record and other.plugin is record.plugin and other.state == "loaded":
            raise InvalidPlugin(f"it is the same object as {other.title}")
    record.implementations = find_implementations(functions, record.name, specifications.functions)
    record.hooks = tuple(record.implementations)
    record.state, record.reason = "loaded", ""
