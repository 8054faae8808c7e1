"""`Plan`: the arguments of a handler, with its dependencies in the order in which they are called."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from enum import Enum, auto
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncapy_core.logs import Mistake
from asyncapy_core.routing.filter import returns_coroutine
from asyncapy_core.routing.handler import name_of
from asyncapy_typed.errors import invalid
from asyncapy_typed.parameters import Dependency, Found, Given, Modelled, Source, parameters_of, sources_of, unwrapped

if TYPE_CHECKING:
    from asyncapy_core import Client, Packet
    from asyncapy_typed.model_types import ModelType

Reader: TypeAlias = "Callable[[Client, Packet, list[Any]], Any]"
"""Returns an argument, given the client, the packet, and the results of the steps before, by place."""

Overrides: TypeAlias = Mapping[Any, Callable[..., Any]]
"""The functions that are replaced by others, and their replacements."""

Hidden: TypeAlias = Callable[[], frozenset[str]]
"""Returns the names of fields that are those of filters and guards, and of the operation, at present."""

_GIVEN: Final[dict[str, Reader]] = {
    "client": lambda client, _packet, _results: client,
    "packet": lambda _client, packet, _results: packet,
    "session": lambda client, _packet, _results: client.session,
    "server": lambda client, _packet, _results: client.server,
}


NOT_YIELDED: Final = "generator didn't yield"
"""The message of contextlib for a generator that returns before it yields."""


class _Kind(Enum):
    """The kinds of functions that provide something."""

    PLAIN = auto()
    ASYNC = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


class Arguments:
    """Reads the arguments of one function.

    Args:
        positional: reads those that are passed by position.
        named: reads the others, by name.
    """

    __slots__ = ("named", "positional")

    def __init__(self, positional: Sequence[Reader], named: Mapping[str, Reader]) -> None:
        self.positional: tuple[Reader, ...] = tuple(positional)
        self.named: tuple[tuple[str, Reader], ...] = tuple(named.items())

    def call(self, function: Callable[..., Any], client: Client, packet: Packet, results: list[Any]) -> Any:
        """Call the function."""
        positional = [read(client, packet, results) for read in self.positional]
        if self.named:
            return function(*positional, **{name: read(client, packet, results) for name, read in self.named})
        return function(*positional)


class _Step:
    """A dependency: a function to call, and the place of its result."""

    __slots__ = ("arguments", "function", "kind", "name", "place")

    def __init__(self, function: Callable[..., Any], arguments: Arguments, kind: _Kind, place: int) -> None:
        self.place = place
        self.name: str = name_of(function)
        self.function: Callable[..., Any] = function
        if kind is _Kind.GENERATOR:
            self.function = _managing(function, contextlib.contextmanager(_as_it_is), "__enter__")
        elif kind is _Kind.ASYNC_GENERATOR:
            self.function = _managing(function, contextlib.asynccontextmanager(_as_it_is), "__aenter__")
        self.arguments = arguments
        self.kind = kind

    def unawaited(self, coroutine: CoroutineType[Any, Any, Any]) -> TypeError:
        """Return the error for a plain function that has returned a coroutine, and close that."""
        coroutine.close()
        return TypeError(f"{name_of(self.function)!r} returned a coroutine: make it 'async def'")

    async def finish(self, called: Any, stack: AsyncExitStack | None) -> Any:
        """Return the result of a call of the function."""
        if self.kind is _Kind.ASYNC:
            return await called
        if self.kind is _Kind.PLAIN:
            if type(called) is CoroutineType:
                raise self.unawaited(called)
            return called
        assert stack is not None
        try:
            if self.kind is _Kind.GENERATOR:
                plain: AbstractContextManager[Any] = called
                return stack.enter_context(plain)
            asynchronous: AbstractAsyncContextManager[Any] = called
            return await stack.enter_async_context(asynchronous)
        except RuntimeError as error:
            if str(error) == NOT_YIELDED:
                raise RuntimeError(f"it has to yield once: the dependency {self.name!r}") from None
            raise


class Plan:
    """The arguments of a handler, and the functions that provide some of them.

    Args:
        function: the handler.
        title: names it in messages.
        hidden: returns the names of fields that models which refuse or keep other fields do not get.
        sources: the sources of its arguments, if they are known.
        overrides: the replacements of dependencies.

    Attributes:
        arguments: reads the arguments of the handler from the results of the steps.
        models: the types of the models, those of dependencies among them; that of the handler first.
        manages: whether a dependency is a generator, so that there is something to clean up.
        depends: whether there are dependencies.
        is_plain: whether all of them are plain functions.

    Raises:
        TypeError: a parameter cannot be filled, or dependencies depend on each other in a circle.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        title: str,
        hidden: Hidden,
        *,
        sources: Mapping[str, Source] | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        self._title = title
        self._hidden = hidden
        self._overrides = overrides or {}
        self._size = 0
        self._models: list[tuple[int, Reader]] = []
        self._steps: list[_Step] = []
        self._places: dict[object, int] = {}
        self._under_way: list[Callable[..., Any]] = []
        known = sources_of(function, title) if sources is None else sources
        self.depends: bool = any(isinstance(source, Dependency) for source in known.values())
        self.models: list[ModelType] = []
        self.manages: bool = False
        self.arguments: Arguments = self._arguments_of(function, title, known)
        self.is_plain: bool = all(step.kind is _Kind.PLAIN for step in self._steps)

    def resolve_now(self, client: Client, packet: Packet) -> list[Any]:
        """Validate the models, call the dependencies, and return the results by place; if the plan ``is_plain``.

        Raises:
            Failure: the packet has wrong fields.
            BaseException: any exception of a dependency.
        """
        results = self._validated(client, packet)
        for step in self._steps:
            result = step.arguments.call(step.function, client, packet, results)
            if type(result) is CoroutineType:
                raise step.unawaited(result)
            results[step.place] = result
        return results

    async def resolve(self, client: Client, packet: Packet, stack: AsyncExitStack | None) -> list[Any]:
        """Do the same for dependencies of any kind.

        Args:
            client: the client.
            packet: the packet.
            stack: is given the clean-up of generators; needed if the plan ``manages``.
        """
        results = self._validated(client, packet)
        for step in self._steps:
            called = step.arguments.call(step.function, client, packet, results)
            results[step.place] = await step.finish(called, stack)
        return results

    def _validated(self, client: Client, packet: Packet) -> list[Any]:
        results = [None] * self._size
        for place, read in self._models:
            results[place] = read(client, packet, results)
        return results

    def _arguments_of(self, function: Callable[..., Any], title: str, known: Mapping[str, Source]) -> Arguments:
        positional: list[Reader] = []
        named: dict[str, Reader] = {}
        for name, parameter in parameters_of(function).items():
            source = known.get(name)
            read = _constant(parameter.default) if source is None else self._reader(source, name, title)
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                named[name] = read
            else:
                positional.append(read)
        return Arguments(positional, named)

    def _reader(self, source: Source, name: str, title: str) -> Reader:
        if isinstance(source, Given):
            return _GIVEN[source.kind]
        if isinstance(source, Found):
            return found_reader(source, name, title)
        if isinstance(source, Modelled):
            self.models.append(source.model)
            read = model_reader(source.model, self._hidden)
            if not self.depends:
                return read
            place = self._next_place()
            self._models.append((place, read))
        else:
            place = self._place_of(source)
        return lambda _client, _packet, results: results[place]

    def _place_of(self, dependency: Dependency) -> int:
        """Return the place of the result of a dependency, and add its steps before it if it has none."""
        function = self._overrides.get(_key(dependency.function), dependency.function)
        key = _key(function)
        if dependency.cache and key in self._places:
            return self._places[key]
        if key in map(_key, self._under_way):
            circle = " -> ".join(name_of(each) for each in [*self._under_way, function])
            raise TypeError(
                f"the dependencies of {self._title} depend on each other in a circle: {circle}; leave one Depends out"
            )
        self._under_way.append(function)
        kind = _kind_of(function)
        self.manages = self.manages or kind in (_Kind.GENERATOR, _Kind.ASYNC_GENERATOR)
        title = f"the dependency {name_of(function)!r}"
        arguments = self._arguments_of(function, title, sources_of(function, title))
        place = self._next_place()
        self._steps.append(_Step(function, arguments, kind, place))
        self._under_way.pop()
        if dependency.cache:
            self._places[key] = place
        return place

    def _next_place(self) -> int:
        self._size += 1
        return self._size - 1


def model_reader(model: ModelType, hidden: Hidden) -> Reader:
    """Return a reader of a model, which raises a `Failure` for wrong fields.

    Args:
        model: its type.
        hidden: returns the names of fields that it does not get if it refuses or keeps other fields.
    """
    validate, errors = model.validate, model.errors
    own = model.field_names if model.sees_others else frozenset()

    def read(client: Client, packet: Packet, results: list[Any]) -> Any:
        try:
            return validate(packet.fields)
        except errors as error:
            problems = model.problems(error, packet.fields)
        raise invalid(*problems)

    def read_without_hidden(client: Client, packet: Packet, results: list[Any]) -> Any:
        others = hidden() - own
        fields = {name: value for name, value in packet.fields.items() if name not in others}
        try:
            return validate(fields)
        except errors as error:
            problems = model.problems(error, fields)
        raise invalid(*problems)

    return read_without_hidden if model.sees_others else read


def found_reader(source: Found, name: str, title: str) -> Reader:
    """Return a reader of a value that a filter has put into the context of the packet.

    It raises a TypeError if there is none, or if several have the type.
    """
    kind, in_context, default = source.kind, source.name, source.default

    def missing(problem: str, packet: Packet) -> TypeError:
        found = ", ".join(f"{each!r} ({type(value).__name__})" for each, value in packet.context.items())
        return Mistake(
            f"{problem}: put a filter or guard before it; for {name!r} of {title}, in the context of the packet, which "
            f"has {found or 'nothing'}"
        )

    def read_by_name(client: Client, packet: Packet, results: list[Any]) -> Any:
        context = packet.context
        if in_context not in context:
            if default is inspect.Parameter.empty:
                raise missing(f"there is no {in_context!r}", packet)
            return default
        value = context[in_context]
        if kind is not None and not isinstance(value, kind) and value is not None:
            raise missing(f"{in_context!r} is a {type(value).__name__} and no {kind.__name__}", packet)
        return value

    def read_by_type(client: Client, packet: Packet, results: list[Any]) -> Any:
        assert kind is not None
        values = [value for value in packet.context.values() if isinstance(value, kind)]
        if len(values) == 1:
            return values[0]
        if values:
            raise missing(f"there are {len(values)} of {kind.__name__}", packet)
        if default is inspect.Parameter.empty:
            raise missing(f"there is no {kind.__name__}", packet)
        return default

    return read_by_type if in_context is None else read_by_name


def _managing(function: Callable[..., Any], manage: Callable[[Any], object], method: str) -> Callable[..., Any]:
    """Return a function that returns a context manager: the result of a function, or one around a generator.

    Args:
        function: a generator function, or one that `contextlib` has made a context manager of.
        manage: makes a context manager of a generator.
        method: a method of context managers.
    """

    def call(*args: Any, **named: Any) -> object:
        made = function(*args, **named)
        return made if hasattr(made, method) else manage(made)

    return call


def _as_it_is(generator: Any) -> Any:
    return generator


def _key(function: Callable[..., Any]) -> object:
    """Return the function as a key of mappings; a number for an object that is none, such as that of a dataclass."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def _constant(value: object) -> Reader:
    return lambda _client, _packet, _results: value


def _kind_of(function: Callable[..., Any]) -> _Kind:
    target = unwrapped(function)
    for each in (target, getattr(target, "__call__", None)):  # noqa: B004  # the method itself is wanted
        if inspect.isasyncgenfunction(each):
            return _Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(each):
            return _Kind.GENERATOR
        if inspect.isroutine(each) and each is target:
            break
    return _Kind.ASYNC if returns_coroutine(function) else _Kind.PLAIN
