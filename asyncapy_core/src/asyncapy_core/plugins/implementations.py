"""The hook implementations of a plugin, checked against the specifications in `hookspecs`.

A plugin is any object: each access to its attributes may raise any exception.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pluggy

from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.plugins import hookspecs

if TYPE_CHECKING:
    from pydantic import BaseModel

HOOKS: Final = tuple(name for name in vars(hookspecs) if name.startswith("asyncapy_"))
_OPTIONS: Final = "asyncapy_options"
_MARK: Final = f"{hookspecs.PROJECT}_impl"
"""The attribute that `hookimpl` sets on a function."""


class InvalidPlugin(Exception):
    """A plugin breaks a rule of the plugin API; the message is the reason for its quarantine."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation of a hook.

    Attributes:
        function: the function.
        arguments: the names of the arguments that it takes.
        rank: 0 for one that is called before those of other plugins, 2 for one that is called after them, 1 for others.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    rank: int

    def __call__(self, **given: Any) -> Any:
        """Call the function with those of the given arguments that it takes."""
        return self.function(*(given[name] for name in self.arguments))


def find_implementations(plugin: Any, name: str) -> dict[str, tuple[Implementation, ...]]:
    """Return the implementations of a plugin by hook.

    Args:
        plugin: the plugin.
        name: its name, for messages.

    Raises:
        InvalidPlugin: a hook is unknown, takes an unknown argument, is a wrapper, or is not marked.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    functions = _Functions(_marked(plugin), name)
    try:
        manager.register(functions, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise InvalidPlugin(_hint(str(error))) from error
    found = {}
    for caller in manager.get_hookcallers(functions) or []:
        implementations = caller.get_hookimpls()
        if any(each.wrapper or each.hookwrapper for each in implementations):
            raise InvalidPlugin(
                f"{caller.name} is a hook wrapper, which is not supported: each plugin is called on its own"
            )
        found[caller.name] = tuple(map(_implementation, implementations))
    return dict(sorted(found.items()))


def _implementation(found: pluggy.HookImpl) -> Implementation:
    rank = 2 if found.trylast else 0 if found.tryfirst else 1
    return Implementation(found.function, tuple(found.argnames), rank)


def options_model(plugin: Any) -> type[BaseModel] | None:
    """Return the model of a plugin's options, or None.

    Raises:
        InvalidPlugin: its attribute ``asyncapy_options`` is not a pydantic model.
    """
    model = _attribute(plugin, _OPTIONS)
    if model is None:
        return None
    from pydantic import BaseModel  # noqa: PLC0415  # a plugin with a model has imported it already

    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise InvalidPlugin(f"{_OPTIONS} is {short_repr(model)}, which is not a subclass of pydantic.BaseModel")
    return model


def short_repr(value: object) -> str:
    """Return the repr of an object of a plugin, cut, or its type if the repr raises."""
    try:
        text = repr(value)
    except Exception:  # foreign code may raise anything
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


class _Functions:
    """Has functions as attributes, as pluggy wants them. Two of these are never equal, unlike plugins."""

    def __init__(self, functions: dict[str, Any], name: str) -> None:
        self._name = name
        vars(self).update(functions)

    def __repr__(self) -> str:
        return repr(self._name)


def _marked(plugin: Any) -> dict[str, Any]:
    """Return the functions that `hookimpl` has marked, by attribute.

    Raises:
        InvalidPlugin: a hook is not marked, or a mark is on another object than a function.
    """
    if plugin is None:
        raise InvalidPlugin("its entry point names None instead of a module or an object")
    found = {}
    for name in dir(plugin):
        value = _attribute(plugin, name)
        routine = _is_routine(value)
        marked = (routine or name in HOOKS) and isinstance(_attribute(value, _MARK), dict)
        if marked and routine:
            found[name] = value
        elif marked:
            raise InvalidPlugin(f"{name} is marked with hookimpl, but it is {short_repr(value)}, not a function")
        elif name in HOOKS and value is not None:
            raise InvalidPlugin(f"{name} is not marked with hookimpl, so it would never be called")
    return found


def _is_routine(value: object) -> bool:
    try:
        return inspect.isroutine(value)
    except Exception:  # a proxy may raise for its class
        return False


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute, or None if there is none, or if one that is not ours raises."""
    try:
        return getattr(owner, name)
    except AttributeError:
        return None
    except BaseException as error:  # a property or `__getattr__` may raise anything
        if is_from_signal(error) or (name.startswith("asyncapy_") and name != _MARK):
            raise
        return None


def _hint(message: str) -> str:
    """Return pluggy's message on one line, with the hook that its author probably meant."""
    import difflib  # noqa: PLC0415  # only for a mistake

    message = " ".join(message.split())
    for word in message.replace("'", " ").split():
        if word.startswith("asyncapy") and word not in HOOKS:
            close = difflib.get_close_matches(word, HOOKS, n=1)
            return f"{message} (did you mean {close[0]}?)" if close else f"{message} (hooks: {', '.join(HOOKS)})"
    return message
