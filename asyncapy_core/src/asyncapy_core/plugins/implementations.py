"""The hook implementations of a plugin, checked against the specifications of hooks.

A plugin is any object: each access to its attributes may raise any exception.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pluggy

from asyncapy_core.defaults import PLUGIN_NAME
from asyncapy_core.interrupts import is_from_signal
from asyncapy_core.plugins import hookspecs
from asyncapy_core.plugins.tracing import is_tracing, trace_call, trace_wait

if TYPE_CHECKING:
    from pydantic import BaseModel

HOOKS: Final = tuple(name for name in vars(hookspecs) if name.startswith("asyncapy_"))
_OPTIONS: Final = "asyncapy_options"
_WITHOUT_YIELD: Final = ("asyncapy_setup", "asyncapy_shutdown", "asyncapy_run", "asyncapy_drain", "asyncapy_session")
_MARK: Final = f"{hookspecs.PROJECT}_impl"
"""The attribute that `hookimpl` sets on a function."""


class InvalidPlugin(Exception):
    """A plugin breaks a rule of the plugin API; the message is the reason for its quarantine.

    Args:
        reason: the reason.
        trace: the traceback of an exception of the plugin.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Implementation:
    """One implementation of a hook.

    Attributes:
        function: the function.
        arguments: the names of the arguments that it takes.
        rank: 0 for one that is called before those of other plugins, 2 for one that is called after them, 1 for others.
        title: the hook and the plugin, for messages.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    rank: int = 1
    title: str = ""

    def __call__(self, **given: Any) -> Any:
        """Call the function with those of the given arguments that it takes."""
        if is_tracing():
            return trace_call(self.title, self.function, {name: given[name] for name in self.arguments})
        return self.function(*(given[name] for name in self.arguments))

    async def finish(self, result: Any) -> Any:
        """Return the result of a call; if the function is ``async``, await it."""
        if not inspect.isawaitable(result):
            return result
        return await (trace_wait(self.title, result) if is_tracing() else result)


class Functions:
    """Has functions as attributes, as pluggy wants them. Two of these are never equal, unlike plugins."""

    def __init__(self, functions: Mapping[str, Any], name: str = "") -> None:
        self._name = name
        vars(self).update(functions)

    def of(self, hook: str) -> Functions:
        """Return those that implement a hook."""
        named = ((name, function) for name, function in vars(self).items() if name != "_name")
        found = {name: function for name, function in named if (getattr(function, _MARK)["specname"] or name) == hook}
        return Functions(found, self._name)

    def __repr__(self) -> str:
        return repr(self._name)


def find_functions(plugin: Any, name: str) -> Functions:
    """Return the functions of a plugin that `hookimpl` has marked.

    Raises:
        InvalidPlugin: a hook is not marked, or a mark is on another object than a function.
    """
    if plugin is None:
        raise InvalidPlugin("its entry point names None instead of a module or an object")
    found = {}
    for attribute in dir(plugin):
        value = _attribute(plugin, attribute)
        routine = _is_routine(value)
        marked = (routine or attribute in HOOKS) and isinstance(_attribute(value, _MARK), dict)
        if marked and routine:
            found[attribute] = value
        elif marked:
            raise InvalidPlugin(f"{attribute} is marked with hookimpl, but it is {short_repr(value)}, not a function")
        elif attribute in HOOKS and value is not None:
            raise InvalidPlugin(f"{attribute} is not marked with hookimpl, so it would never be called")
    return Functions(found, name)


def find_implementations(
    functions: Functions, name: str, specifications: Mapping[str, Callable[..., Any]]
) -> dict[str, tuple[Implementation, ...]]:
    """Return the implementations of a plugin by hook.

    Args:
        functions: the result of `find_functions`.
        name: the name of the plugin, for messages.
        specifications: the hooks that plugins bring, by name.

    Raises:
        InvalidPlugin: a hook is unknown, takes an unknown argument, or is a wrapper.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    if specifications:
        manager.add_hookspecs(Functions(specifications))  # type: ignore[arg-type]  # pluggy reads attributes only
    try:
        manager.register(functions, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise InvalidPlugin(_hint(str(error), (*HOOKS, *specifications))) from error
    found = {}
    for caller in manager.get_hookcallers(functions) or []:
        implementations = caller.get_hookimpls()
        if any(each.wrapper or each.hookwrapper for each in implementations):
            raise InvalidPlugin(
                f"{caller.name} is a hook wrapper, which is not supported: each plugin is called on its own"
            )
        for each in implementations:
            _refuse_generator(caller.name, each.function)
        title = f"{caller.name} of plugin {name!r}"
        found[caller.name] = tuple(_implementation(each, title) for each in implementations)
    return dict(sorted(found.items()))


def _refuse_generator(hook: str, function: Callable[..., Any]) -> None:
    """Refuse a function with a ``yield`` for a hook around time: it would never run.

    Raises:
        InvalidPlugin: it is one.
    """
    is_async = inspect.isasyncgenfunction(function)
    if hook not in _WITHOUT_YIELD or not (is_async or inspect.isgeneratorfunction(function)):
        return
    if hook == "asyncapy_session":
        advice = "decorate it with contextlib.asynccontextmanager, below @hookimpl"
        if not is_async:
            advice = f"write 'async def', and {advice}"
    elif hook == "asyncapy_setup":
        advice = "move the part behind it to asyncapy_shutdown, or enter a context manager into server.exit_stack"
    else:
        advice = "remove it"
    raise InvalidPlugin(f"{hook} has a 'yield', so that it would never run; {advice}")


def _implementation(found: pluggy.HookImpl, title: str) -> Implementation:
    rank = 2 if found.trylast else 0 if found.tryfirst else 1
    return Implementation(found.function, tuple(found.argnames), rank, title)


def find_names(plugin: Any, attribute: str) -> tuple[str, ...]:
    """Return the names of other plugins in an attribute of a plugin; none if it has no such attribute.

    Raises:
        InvalidPlugin: the attribute is not a tuple or list of names of plugins.
    """
    names = _attribute(plugin, attribute)
    if names is None:
        return ()
    if not isinstance(names, (tuple, list)) or not all(
        isinstance(each, str) and PLUGIN_NAME.fullmatch(each) for each in names
    ):
        raise InvalidPlugin(
            f"{attribute} is {short_repr(names)}; write a tuple of names of plugins, such as ('metrics',)"
        )
    return tuple(names)


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


def _hint(message: str, hooks: tuple[str, ...]) -> str:
    """Return pluggy's message on one line, with the hook that its author probably meant."""
    import difflib  # noqa: PLC0415  # only for a mistake

    message = " ".join(message.split())
    unknown = re.search(r"unknown hook '(\w+)'", message)
    if unknown is None:
        return message
    close = difflib.get_close_matches(unknown[1], hooks, n=1)
    if close:
        return f"{message} (did you mean {close[0]}?)"
    if unknown[1].startswith(f"{hookspecs.PROJECT}_"):
        return f"{message} (hooks: {', '.join(hooks)})"
    return f"{message} (if a plugin that may be missing brings it, mark it with hookimpl(optionalhook=True))"
