"""`Router`: handlers that are defined apart from a server, and included into one; and `Routes`, the methods of both."""

from __future__ import annotations

import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from asyncapy_core.routing.filter import Filter
from asyncapy_core.routing.handler import Handler, HandlerFunction, name_of, require_filters
from asyncapy_core.routing.registration import Registration

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client

H = TypeVar("H", bound=HandlerFunction)


class OperationModel(Protocol):
    """A class of requests that knows its operation, as a plugin may provide; see `Routes.operation`.

    Attributes:
        __asyncapy_operation__: the name of a field, and the name of the operation, which is its value.
    """

    __asyncapy_operation__: ClassVar[tuple[str, str]]


class Operation(Filter):
    """Passes packets in which a field is this text.

    Args:
        field: the name of the field.
        name: the text, the name of an operation.
    """

    def __init__(self, field: str, name: str) -> None:
        self.field = field
        self.name = name

    def check(self, c: Client, p: Packet) -> bool:
        """Return True if the field is a string, and equal to the name of the operation."""
        return bool(p.fields.get(self.field) == self.name)

    def selects(self) -> tuple[str, str]:
        return self.field, self.name

    def schema(self) -> dict[str, Any]:
        return {"properties": {self.field: {"const": self.name}}, "required": [self.field]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and (self.field, self.name) == (other.field, other.name)

    def __hash__(self) -> int:
        return hash((self.field, self.name))

    def __repr__(self) -> str:
        return f"Operation({self.field}={self.name!r})"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A handler as it was registered with a router or a server.

    Attributes:
        function: the function.
        filters: its filters, without that for the operation.
        group: its group.
        operation: the name of its operation, or None.
        field: the field for the name of the operation.
        model: the class of requests that has named the operation, or None.
    """

    function: HandlerFunction
    filters: tuple[Filter, ...]
    group: int
    operation: str | None = None
    field: str = ""
    model: type[OperationModel] | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return name_of(self.function)

    def handler(self, adapted: HandlerFunction | None = None) -> Handler:
        """Return the handler. The filter for the operation comes first, so that a table can find it.

        Args:
            adapted: a function to be called in place of this one.

        Raises:
            TypeError: as for `Routes.register_handler`.
        """
        filters = self.filters
        if self.operation is not None:
            filters = (Operation(self.field, self.operation), *filters)
        return Handler(self.function, filters, group=self.group, operation=self.operation, adapted=adapted)


class Routes(ABC):
    """The methods with which a server and a router register handlers."""

    _field: str = "op"
    _prefix: str = ""

    def add_handler(self, *filters: Filter, group: int = 0) -> Callable[[H], H]:
        """Return a decorator that registers a handler, and returns the function unchanged.

        Args:
            filters: all of these must pass for a packet to reach the handler.
            group: in each group, the first handler whose filters pass gets the packet; lower groups come first.
        """
        self._check_not_a_function(filters, "add_handler()")

        def register(handler: H) -> H:
            self.register_handler(handler, *filters, group=group)
            return handler

        return register

    def register_handler(self, handler: HandlerFunction, *filters: Filter, group: int = 0) -> Registration[Any]:
        """Register a handler.

        A plugin may adapt functions of other shapes. A router does not know the server, so that the shape is checked
        when it is included.

        Args:
            handler: an ``async def`` that takes a `Client` and a `Packet`, or that a plugin adapts.
            filters: all of these must pass for a packet to reach the handler.
            group: in each group, the first handler whose filters pass gets the packet; lower groups come first.

        Returns:
            The registration, to take the handler out again.

        Raises:
            TypeError: the handler is not asynchronous, a filter is not a `Filter`, or the group is not an integer.
            PluginError: a plugin failed to adapt it.
        """
        return self.add_route(Route(handler, filters, _checked_group(group)))

    def operation(self, name: str | type[OperationModel], *filters: Filter, group: int = 0) -> Callable[[H], H]:
        """Return a decorator that registers a handler for the packets whose field ``op`` is this name.

        Packets are distributed by a table, however many operations there are. The filters are asked only about packets
        of this operation. A `Router` may use another field.

        Args:
            name: the name of the operation, such as ``"books.read"``; that of a router begins with its prefix. Or a
                class of requests that has a name, such as a ``Request`` of asyncapy-typed.
            filters: all of these must pass for a packet to reach the handler.
            group: as for `add_handler`.

        Raises:
            TypeError: the name is not a string; or as for `register_handler`.
            ValueError: the name is empty, or that of a class does not begin with the prefix of this router.
        """
        field, text = self._operation_of(name)
        self._check_not_a_function(filters, f"operation({text!r})")

        model = None if isinstance(name, str) else name

        def register(handler: H) -> H:
            self.add_route(Route(handler, filters, _checked_group(group), text, field, model))
            return handler

        return register

    def _operation_of(self, name: object) -> tuple[str, str]:
        """Return the field and the name of an operation; that of a class without the prefix, which is added later."""
        of_class: object = getattr(name, "__asyncapy_operation__", None)
        if isinstance(of_class, tuple) and inspect.isclass(name):
            field, text = of_class
            if not text.startswith(self._prefix) or text == self._prefix:
                raise ValueError(
                    f"{name.__name__} is the operation {text!r}, but the names of this router begin with "
                    f"{self._prefix!r}; change one of them"
                )
            return field, text.removeprefix(self._prefix)
        if not isinstance(name, str):
            if hasattr(name, "__asyncapy_fields__"):  # a class of requests, see client/typed_calls.py
                title = getattr(name, "__name__", "Read")
                problem = f"{title} has no operation: write class {title}(Request[...], op='books.read')"
            elif inspect.isclass(name):
                problem = (
                    f"{name.__name__} is no class of requests with an operation: give one, such as class "
                    "Read(Request[Book], op='books.read'), or the name of an operation"
                )
            elif callable(name):
                problem = f"an operation has a name: write @server.operation('books.read'); got {name!r}"
            else:
                problem = f"the name of an operation is a string, such as 'books.read'; got {name!r}"
            raise TypeError(problem)
        if not name:
            raise ValueError("the name of an operation is empty; write one such as 'books.read'")
        return self._field, name

    def include(self, router: Router, *filters: Filter, group: int = 0) -> Registration[Router]:
        """Register all handlers of a router, and those that are added to it later.

        Args:
            router: the router. It may be included several times, in routers too.
            filters: these must pass as well, before those of each handler; the filter for an operation comes first.
            group: added to the groups of the handlers.

        Returns:
            The registration, to take all these handlers out again.

        Raises:
            TypeError: an argument is of another type.
            ValueError: the router includes this one; or this one has a prefix, and the router another field.
        """
        if not isinstance(router, Router):
            raise TypeError(f"include takes a Router; got {router!r}")
        for filter in filters:
            if not isinstance(filter, Filter):
                raise TypeError(f"a filter must be a Filter, such as Filters.Fields(a=None); got {filter!r}")
        return router.mount(self, filters, _checked_group(group))

    @abstractmethod
    def add_route(self, route: Route) -> Registration[Any]:
        """Register a route; called by the other methods, and by included routers."""

    @staticmethod
    def _check_not_a_function(filters: tuple[Any, ...], call: str) -> None:
        if any(inspect.isroutine(filter) for filter in filters):
            raise TypeError(f"{call.partition('(')[0]} is called before it decorates: write @server.{call}")


class Router(Routes):
    """Handlers that are defined in a module of their own, and included into a server or into another router.

    Args:
        field: the name of the field that has the name of an operation.
        prefix: the beginning of the names of all its operations, such as ``"books."``.

    Raises:
        TypeError: an argument is not a string.
        ValueError: ``field`` is empty.
    """

    def __init__(self, *, field: str = "op", prefix: str = "") -> None:
        for name, value in (("field", field), ("prefix", prefix)):
            if not isinstance(value, str):
                raise TypeError(f"{name} is a string; got {value!r}")
        if not field:
            raise ValueError("field is empty; it must be the name of a field, such as 'op'")
        self._field = field
        self._prefix = prefix
        self._routes: list[Route] = []
        self._mounts: list[_Mount] = []

    def mount(self, routes: Routes, filters: tuple[Filter, ...], group: int) -> Registration[Router]:
        """Register the handlers of this router elsewhere; see `Routes.include`."""
        if routes is self or (isinstance(routes, Router) and routes.is_mounted_in(self)):
            raise ValueError(f"{self!r} cannot be included into itself")
        mount = _Mount(routes, filters, group)
        _add_all([mount], self._routes)
        self._mounts.append(mount)

        def remove() -> None:
            self._mounts.remove(mount)
            for route in self._routes:
                mount.discard(route)

        return Registration(self, remove)

    def is_mounted_in(self, router: Router) -> bool:
        """Return True if the handlers of this router are also those of another."""
        outer = [mount.routes for mount in self._mounts if isinstance(mount.routes, Router)]
        return any(each is router or each.is_mounted_in(router) for each in outer)

    def add_route(self, route: Route) -> Registration[Any]:
        """Register a route here, and wherever this router is included.

        Args:
            route: the route; the prefix of this router is added to the name of its operation.
        """
        route = self._with_prefix(route)
        if not callable(route.function):
            raise TypeError(f"a handler must be an 'async def' function; got {route.function!r}")
        require_filters(route.filters)  # here, and not in `include`, where a plugin may adapt the function
        _add_all(self._mounts, [route])
        self._routes.append(route)

        def remove() -> None:
            self._routes.remove(route)
            for mount in self._mounts:
                mount.discard(route)

        return Registration(route.function, remove)

    def _with_prefix(self, route: Route) -> Route:
        if route.operation is None or not self._prefix:
            return route
        if route.field != self._field:
            raise ValueError(
                f"a router with the prefix {self._prefix!r} has the field {self._field!r}, but the operation "
                f"{route.operation!r} has {route.field!r}; give both routers the same field"
            )
        return replace(route, operation=self._prefix + route.operation)

    def __repr__(self) -> str:
        prefix = f" prefix={self._prefix!r}" if self._prefix else ""
        return f"<Router field={self._field!r}{prefix} handlers={len(self._routes)}>"


class _Mount:
    """The handlers of one router in a server, or in another router."""

    def __init__(self, routes: Routes, filters: tuple[Filter, ...], group: int) -> None:
        self.routes = routes
        self._filters = filters
        self._group = group
        self._registrations: dict[Route, Registration[Any]] = {}

    def add(self, route: Route) -> None:
        """Register a route of the router."""
        filters = (*self._filters, *route.filters)
        outer = replace(route, filters=filters, group=self._group + route.group)
        try:
            self._registrations[route] = self.routes.add_route(outer)
        except TypeError as error:
            code = getattr(route.function, "__code__", None)
            if code is not None and not hasattr(error, "__notes__"):  # a router inside this one has added it already
                error.add_note(f"the handler {route.name!r} is at {code.co_filename}:{code.co_firstlineno}")
            raise

    def discard(self, route: Route) -> None:
        """Take a route out again."""
        self._registrations.pop(route).remove()


def _add_all(mounts: Iterable[_Mount], routes: Iterable[Route]) -> None:
    """Register routes at mounts: all of them, or none if one cannot be registered."""
    added: list[tuple[_Mount, Route]] = []
    try:
        for mount, route in itertools.product(mounts, routes):
            mount.add(route)
            added.append((mount, route))
    except BaseException:  # raised again
        for mount, route in added:
            mount.discard(route)
        raise


def _checked_group(group: object) -> int:
    if isinstance(group, bool) or not isinstance(group, int):
        raise TypeError(f"group must be an integer, the lower the earlier; got {group!r}")
    return group
