"""The parameters of a handler or dependency: where the argument for each of them comes from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from asyncapy_core import Client, KeyRecord, Packet, Server, Session
from asyncapy_core.interfaces import ClientInterface, ServerInterface, SessionInterface
from asyncapy_typed.model_types import ModelType, is_union, name_of_type, without_alias
from asyncapy_typed.models import model_type

_BY_NAME: Final = {"client": "client", "packet": "packet"}
"""The names of parameters that are filled without an annotation, and the kinds of their arguments."""

_BY_TYPE: Final[dict[type, str]] = {
    Client: "client",
    ClientInterface: "client",
    Packet: "packet",
    Session: "session",
    SessionInterface: "session",
    ServerInterface: "server",
}

_KNOWN: Final = (
    "annotate it with Client, Packet, Session, Server, KeyRecord, or a model of the fields; write "
    "Annotated[..., FromContext()] for a value that a filter has found, or Depends(function) for the result of a "
    "function"
)


def Depends(function: Callable[..., Any] | None = None, /, *, cache: bool = True) -> Any:  # noqa: N802  # a marker, as a class is
    """Mark a parameter that a function provides: ``db: Annotated[Database, Depends(database)]``, or as its default.

    The function is plain or ``async``, or a generator of either kind that yields once: the code behind its ``yield``
    runs when the answer has been sent, and sees the exception of the handler, if there is one. A plain function is
    called in the trio loop, and must not block. Its parameters are filled like those of a handler.

    Args:
        function: the function; its result is the argument.
        cache: call it once for a packet, for all parameters that it provides.
    """
    if not callable(function):
        raise TypeError(
            f"Depends takes a function, and not its result: write Depends(function), without calling it; "
            f"got {function!r}"
        )
    return Dependency(function, cache)


@dataclass(frozen=True, slots=True)
class Dependency:
    """The result of `Depends`."""

    function: Callable[..., Any]
    cache: bool = True


@dataclass(frozen=True, slots=True)
class FromContext:
    """Marks a parameter that a filter has found: ``user: Annotated[User, FromContext()]``.

    Args:
        name: its name in ``packet.context``; None for the only value there of the annotated type.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """An argument that is the client, the packet, the session or the server."""

    kind: str


@dataclass(frozen=True, slots=True)
class Found:
    """An argument that a filter has put into the context of the packet.

    Attributes:
        kind: its type, or None for any.
        name: its name in the context, or None.
        default: the argument if there is none; `inspect.Parameter.empty` if that is a failure.
    """

    kind: type | None
    name: str | None
    default: Any


@dataclass(frozen=True, slots=True, eq=False)
class Modelled:
    """An argument that is a model, made of the fields of the packet."""

    model: ModelType


Source = Given | Found | Modelled | Dependency


def sources_of(function: Callable[..., Any], title: str) -> dict[str, Source]:
    """Return the source of the argument for each parameter of a function.

    Args:
        function: the function.
        title: names it in messages.

    Raises:
        TypeError: a parameter cannot be filled; the message names it, and says what to write.
    """
    hints = type_hints(function, title)
    found: dict[str, Source] = {}
    for name, parameter in parameters_of(function).items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise TypeError(f"{title} takes {stars}{name}, which cannot be filled; name its parameters")
        source = _source(name, parameter, hints.get(name, inspect.Parameter.empty), title)
        if source is not None:
            found[name] = source
    return found


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; none if it is not written in Python."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}


def unwrapped(function: Any) -> Any:
    """Return the function inside decorators, as `functools.wraps` notes it, and inside `functools.partial`."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function


def called_function(function: Any) -> Any:
    """Return the function that is called with the arguments: of a class its ``__init__``, of an object ``__call__``."""
    target = unwrapped(function)
    if inspect.isroutine(target):
        return target
    return target.__init__ if inspect.isclass(target) else type(target).__call__


def type_hints(function: Callable[..., Any], title: str) -> dict[str, Any]:
    """Return the annotations of a function, or of the object or class that is called, with ``Annotated``.

    Raises:
        TypeError: an annotation cannot be evaluated.
    """
    try:
        return get_type_hints(called_function(function), include_extras=True)
    except NameError as error:
        raise TypeError(
            f"an annotation of {title} has the unknown name {error.name!r}: import it at run time, not below 'if "
            "TYPE_CHECKING', and define it outside of functions"
        ) from error
    except Exception as error:  # an annotation is any expression
        raise TypeError(f"an annotation of {title} cannot be evaluated: {error}") from error


def _source(name: str, parameter: inspect.Parameter, hint: Any, title: str) -> Source | None:
    """Return the source of an argument, or None if the default is to be used."""
    hint = _without_alias(hint, name, title)
    kind, *marks = (get_args(hint)[0], *hint.__metadata__) if get_origin(hint) is Annotated else (hint,)
    kind = _without_alias(kind, name, title)
    marked = _mark([*marks, parameter.default], f"the parameter {name!r} of {title}")
    if isinstance(marked, Dependency):
        return marked
    if marked is not None:
        return _found(name, parameter, kind, title, marked.name)
    if hint is not inspect.Parameter.empty:
        source = _source_by_type(name, parameter, kind, title, Annotated[kind, *marks] if marks else kind)
        problem = f"has the type {name_of_type(kind)}, which is not known"
    else:
        source = Given(_BY_NAME[name]) if name in _BY_NAME else None
        problem = "has no annotation"
    if source is None and parameter.default is inspect.Parameter.empty:
        raise TypeError(f"the parameter {name!r} of {title} {problem}; {_KNOWN}")
    return source


def _mark(marks: list[Any], parameter: str) -> Dependency | FromContext | None:
    """Return the one of these objects that is the result of `Depends`, or a `FromContext`."""
    if any(mark is Depends for mark in marks):
        raise TypeError(f"{parameter} has Depends without a function: write Depends(function)")
    own = [FromContext() if mark is FromContext else mark for mark in marks]
    own = [mark for mark in own if isinstance(mark, (Dependency, FromContext))]
    if len(own) > 1:
        raise TypeError(f"{parameter} has several of Depends and FromContext; leave one")
    return own[0] if own else None


def _without_alias(hint: Any, name: str, title: str) -> Any:
    try:
        return without_alias(hint)
    except TypeError as error:
        raise TypeError(f"the parameter {name!r} of {title}: {error}") from error


def _source_by_type(name: str, parameter: inspect.Parameter, kind: Any, title: str, hint: Any) -> Source | None:
    plain, optional = _without_none(kind)
    if isinstance(plain, type):
        if (given := given_kind(plain)) is not None:
            return Given(given)
        if issubclass(plain, KeyRecord):
            return _found(name, parameter, kind, title, None)
    model = None if optional else model_type(hint)
    return None if model is None else Modelled(model)


def given_kind(kind: type) -> str | None:
    """Return the kind of the argument for a parameter of a type, such as ``"client"``, or None for other types."""
    return _BY_TYPE.get(kind) or ("server" if issubclass(kind, Server) else None)


def _found(name: str, parameter: inspect.Parameter, kind: Any, title: str, in_context: str | None) -> Found:
    plain, optional = _without_none(kind)
    outer = get_origin(plain) or plain
    checked = outer if isinstance(outer, type) and outer is not object and _has_instances(outer) else None
    if checked is None and in_context is None:
        raise TypeError(
            f"the parameter {name!r} of {title} is a {name_of_type(kind)}, by which nothing is found in the context; "
            "write FromContext('name')"
        )
    default = parameter.default
    if optional and default is inspect.Parameter.empty:
        default = None
    return Found(checked, in_context, default)


def _has_instances(kind: type) -> bool:
    """Return False for classes that ``isinstance`` refuses, such as protocols and typed dictionaries."""
    try:
        isinstance(None, kind)
    except TypeError:
        return False
    return True


def optional_model(hint: Any) -> str | None:
    """Return the name of a model if an annotation is that of a model or None, which no packet fills."""
    kind, optional = _without_none(hint)
    return name_of_type(kind) if optional and model_type(kind) is not None else None


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Return a type without ``| None``, and whether it had it."""
    if not is_union(kind):
        return kind, False
    members = get_args(kind)
    others = [member for member in members if member is not type(None)]
    return (others[0], True) if len(others) == 1 and len(others) < len(members) else (kind, False)
