"""`Registering`: the handlers and guards of a server, and the functions around its handlers, sessions and itself."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from asyncapy_core.plugins.implementations import Implementation
from asyncapy_core.routing.dispatch import Dispatcher
from asyncapy_core.routing.error_handlers import ErrorFunction
from asyncapy_core.routing.filter import returns_coroutine
from asyncapy_core.routing.handler import Guard, GuardFunction, Handler, is_handler, name_of
from asyncapy_core.routing.registration import Registration
from asyncapy_core.routing.router import Route, Routes

if TYPE_CHECKING:
    from asyncapy_core.plugins.server_hooks import ServerHooks
    from asyncapy_core.routing.filter import Filter
    from asyncapy_core.session import Client

F = TypeVar("F", bound="Callable[..., Any]")
G = TypeVar("G", bound="Filter | GuardFunction")
E = TypeVar("E", bound=ErrorFunction)
W = TypeVar("W", bound="Callable[..., Callable[[Any, Any], Awaitable[object]] | None]")
S = TypeVar("S", bound="Callable[[Client], AbstractAsyncContextManager[Any] | AsyncIterator[Any] | None]")
B = TypeVar("B", bound="Callable[..., Awaitable[object]]")


class Registering(Routes):
    """The methods with which a program registers handlers, guards and other functions with a server.

    Args:
        hooks: the hooks of the plugins of this server.
    """

    def __init__(self, hooks: ServerHooks) -> None:
        self.hooks: ServerHooks = hooks
        self._dispatcher = Dispatcher()
        self._not_adapted: dict[Handler, Route] = {}
        self._replacements: dict[Callable[..., Any], list[Callable[..., Any]]] = {}
        self._changing = threading.Lock()
        self._overrides: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType({})

    @property
    def handlers(self) -> dict[int, tuple[Handler, ...]]:
        """The handlers by group, in the order in which they are matched."""
        return self._dispatcher.groups

    @property
    def guards(self) -> tuple[Guard, ...]:
        """The guards, in the order in which they are checked."""
        return self._dispatcher.guards

    @property
    def overrides(self) -> Mapping[Callable[..., Any], Callable[..., Any]]:
        """The functions that are replaced by others, and their replacements; see `override`.

        It is another object after each change.
        """
        return self._overrides

    def add_route(self, route: Route) -> Registration[Any]:
        """Register a route; called by `register_handler`, `operation` and `include`."""
        if self.hooks.have_begun or not is_handler(route.function):
            handler = route.handler(self.hooks.adapt(route))
        else:  # at the start: settings may still deny plugins, and others may be registered by hand
            handler = route.handler()
            self._not_adapted[handler] = route
        self.hooks.wrap(handler)
        self._dispatcher.register(handler, route.group)

        def remove() -> None:
            self._not_adapted.pop(handler, None)
            self._dispatcher.unregister(handler, route.group)

        return Registration(route.function, remove)

    def guard(self, check: G) -> Registration[G]:
        """Check every packet before any group gets it; a decorator.

        A packet that does not pass reaches no handler, and is answered with ERR_NO_HANDLER. If the guard raises, the
        packet does not pass.

        Args:
            check: a filter, or a function of client and packet, plain or ``async``, that returns whether it passes.

        Returns:
            The registration, to take the guard out again. That of a function can be called like the function.

        Raises:
            TypeError: ``check`` is neither a filter nor a function.
        """
        registered = check.registered if isinstance(check, Registration) else check
        guard = Guard(registered)
        self._dispatcher.guard(guard)
        return Registration(registered, functools.partial(self._dispatcher.remove_guard, guard))

    def override(self, function: F, replacement: Callable[..., Any]) -> Registration[F]:
        """Call a replacement wherever a plugin calls this function for a handler, such as a dependency; for tests.

        ``with server.override(open_database, open_test_database): ...`` lasts for the block. Plugins look at
        `overrides` for each packet, so that this works while the server serves, and from any thread. Of several
        replacements of one function, the last one is called. A handler is no such function: register another one.

        Args:
            function: the function.
            replacement: a function with any arguments that the plugin can provide.

        Returns:
            The registration, to call the function itself again.

        Raises:
            TypeError: an argument is not callable, or the function is an object that cannot be hashed.
        """
        for each in (function, replacement):
            if not callable(each):
                raise TypeError(f"override takes two functions; got {each!r}")
        try:
            hash(function)
        except TypeError as error:
            raise TypeError(
                f"override takes a function that can be hashed; got {function!r}: add a __hash__"
            ) from error
        self._replace(function, lambda replacements: replacements.append(replacement))

        def remove(replacements: list[Callable[..., Any]]) -> None:
            del replacements[next(index for index, each in enumerate(replacements) if each is replacement)]

        return Registration(function, lambda: self._replace(function, remove))

    def _replace(self, function: Callable[..., Any], change: Callable[[list[Callable[..., Any]]], None]) -> None:
        """Change the replacements of a function."""
        with self._changing:
            change(self._replacements.setdefault(function, []))
            if not self._replacements[function]:
                del self._replacements[function]
            self._overrides = MappingProxyType({each: last[-1] for each, last in self._replacements.items()})

    def on_error(self, kind: type[Exception]) -> Callable[[E], E]:
        """Return a decorator for a function that turns exceptions of handlers into answers.

        The function is called with the client, the packet and the exception, plain or ``async``. It returns or raises a
        `Failure`, which is sent and not logged; after None, the exception is a failure of the handler as usual. Of
        several functions, that for the nearest class of the exception is called. It is not called for an exception that
        is raised after an answer.

        Args:
            kind: a class of exceptions.

        Raises:
            TypeError: ``kind`` is not a class of exceptions, or the function cannot be called with three arguments.
        """

        def register(function: E) -> E:
            self._dispatcher.errors.register(kind, function)
            return function

        return register

    def around(self, wrap: W) -> W:
        """Put a function around each handler, also those that are registered later; a decorator.

        It is called once for each handler when the server starts, with those of the arguments ``server``, ``handler``
        and ``call`` that it takes. It returns an ``async (client, packet)`` that awaits ``call(client, packet)``, or
        None to leave the handler as it is. ``handler`` has a ``name``, ``filters``, a ``group`` and an ``operation``.
        The first function is the outermost; those of plugins (`asyncapy_wrap`) are outside all of them.

        Raises:
            TypeError: the function takes other arguments.
            RuntimeError: the server is serving, and has been set up.
        """
        if returns_coroutine(wrap) or inspect.isgeneratorfunction(wrap) or inspect.isasyncgenfunction(wrap):
            got = _title(wrap, "around")
            raise TypeError(f"around takes a plain 'def' function, which returns an 'async def' function; got {got}")
        arguments = _arguments(wrap, ("server", "handler", "call"), "around")
        self.hooks.add("asyncapy_wrap", Implementation(wrap, arguments, title=_title(wrap, "around")))
        return wrap

    def on_session(self, manage: S) -> S:
        """Put an async context manager around each session; a decorator.

        It is entered before the first packet of a session is read, and left when the connection and the handlers have
        ended. An exception ends the session, and is logged. The first function is entered first; those of plugins
        (`asyncapy_session`) are entered before all of them.

        Args:
            manage: a function of a client that returns an async context manager or None, such as one decorated with
                `contextlib.asynccontextmanager`; or an async generator function that yields once.

        Raises:
            TypeError: the function cannot be called with a client.
            RuntimeError: the server is serving, and has been set up.
        """
        title = _title(manage, "on_session")
        try:
            inspect.signature(manage).bind(None)
        except TypeError:
            raise TypeError(f"on_session calls its function with a client; got {title}, which takes others") from None
        if inspect.iscoroutinefunction(manage) or inspect.isgeneratorfunction(manage):
            kind = "an 'async def' without 'yield'" if inspect.iscoroutinefunction(manage) else "no 'async def'"
            raise TypeError(
                "on_session takes an 'async def' function that yields once, or one that returns an async context "
                f"manager; got {title}, which is {kind}"
            )
        open_manager: Any = contextlib.asynccontextmanager(manage) if inspect.isasyncgenfunction(manage) else manage
        self.hooks.add("asyncapy_session", Implementation(open_manager, ("client",), title=title))
        return manage

    def beside(self, run: B) -> B:
        """Run a function beside the server, from its setup to the end of its last session; a decorator.

        It is called with those of the arguments ``server`` and ``task_status`` that it takes. With ``task_status``, the
        server opens its port after ``task_status.started()``. An exception is logged, and the function is called again
        after a while; a return ends it. It is cancelled when the server has drained.

        Args:
            run: an ``async`` function.

        Raises:
            TypeError: the function is not ``async``, or takes other arguments.
            RuntimeError: the server is serving, and has been set up.
        """
        if not returns_coroutine(run):
            raise TypeError(f"beside takes an 'async def' function without 'yield'; got {_title(run, 'beside')}")
        arguments = _arguments(run, ("server", "task_status"), "beside")
        self.hooks.add("asyncapy_run", Implementation(run, arguments, title=_title(run, "beside")))
        return run

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Adapt and wrap all handlers, also those that are registered during the block."""
        for handler, route in tuple(self._not_adapted.items()):
            adapted = self.hooks.adapt(route)
            if adapted is not None:
                handler.adapt(adapted)
            del self._not_adapted[handler]
        self.hooks.begin()
        try:
            for handlers in self.handlers.values():
                for handler in handlers:
                    self.hooks.wrap(handler)
            yield
        finally:
            self.hooks.end()


def _title(function: object, decorator: str) -> str:
    return f"function {name_of(function)!r} of server.{decorator}"


def _arguments(function: Callable[..., Any], known: tuple[str, ...], decorator: str) -> tuple[str, ...]:
    """Return the names of the arguments of a function.

    Raises:
        TypeError: it takes other arguments than the known ones.
    """
    signature = inspect.signature(function)
    required = [name for name, each in signature.parameters.items() if each.default is inspect.Parameter.empty]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not all(name in known and signature.parameters[name].kind in positional for name in required):
        raise TypeError(
            f"{decorator} calls its function with those of the arguments {', '.join(known)} that it takes, by name; "
            f"got {_title(function, decorator)}, which takes {signature}"
        )
    return tuple(required)
