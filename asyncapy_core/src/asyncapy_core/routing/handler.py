"""`Handler`: a function behind filters. A packet is matched against filters here only."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from asyncapy_core.errors import Failure
from asyncapy_core.foreign.inspection import is_a, leaves
from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import RateLimited, describe, escape_for_log
from asyncapy_core.routing.filter import Filter, Verdict, ask, is_async, merged, passed, returns_coroutine
from asyncapy_core.routing.outcomes import Outcomes

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client

HandlerFunction: TypeAlias = "Callable[..., Awaitable[object] | AsyncIterator[object]]"
"""``async def handler(client: Client, packet: Packet)``, which may be an async generator of answers.

A plugin may adapt a function with other parameters, which is why they are not a part of the type.
"""

GuardFunction: TypeAlias = "Callable[[Client, Packet], Verdict | Awaitable[Verdict]]"
"""A function like `Filter.check`, plain or ``async``."""


class Handler:
    """A function, and the filters that a packet must pass to reach it.

    Args:
        function: an ``async def`` that takes a `Client` and a `Packet`. If it is an async generator, each mapping or
            packet that it yields is sent.
        filters: all of these must pass; they are checked in this order.
        group: its group.
        operation: the name of its operation, if it has one.
        adapted: a function to be called in place of ``function``, which may then have any shape.

    Attributes:
        function, group, operation: as given.
        is_async: whether a filter is ``async``, so that the result of `match` must be awaited.
        match: returns whether all filters pass, or None if one raised. The failure is logged, at most once a second.
        inner: called with a client and a packet; sends the answers of an async generator.
        run: ``inner``, or a function around it.
        outcomes: the counters of its requests.
        selection: the result of `Filter.selects` of the first filter.
        waits: whether its function has waited for something; then a request of version 23 that comes while others are
            in flight is handled in a task of its own.
        should_log: limits the log lines of this handler's filters.

    Raises:
        TypeError: the function is not asynchronous, cannot be called with two arguments, a filter is not a `Filter`, or
            ``selects`` of the first one returned something else.
    """

    __slots__ = (
        "_checks",
        "_noted",
        "_only",
        "filters",
        "function",
        "group",
        "inner",
        "is_async",
        "match",
        "operation",
        "outcomes",
        "run",
        "selection",
        "should_log",
        "waits",
    )

    def __init__(
        self,
        function: HandlerFunction,
        filters: Sequence[Filter] | None = None,
        *,
        group: int = 0,
        operation: str | None = None,
        adapted: HandlerFunction | None = None,
    ) -> None:
        self.function: HandlerFunction = function
        self.group: int = group
        self.operation: str | None = operation
        self.inner: Callable[..., Awaitable[object]] = answering_function(function if adapted is None else adapted)
        self.run: Callable[..., Awaitable[object]] = self.inner
        self.filters: list[Filter] = list(filters or ())
        require_filters(self.filters)
        self._checks = tuple((filter.check, is_async(filter)) for filter in self.filters)
        self.is_async: bool = any(awaited for _, awaited in self._checks)
        self.match: Callable[[Client, Packet], Any] = self._choose_match()
        self.selection: tuple[str, str] | None = _selection(self.filters[0]) if self.filters else None
        self.should_log: RateLimited = RateLimited()
        self.outcomes: Outcomes = Outcomes()
        self.waits: bool = False
        self._noted: set[str] = set()

    def notes(self, subject: str) -> bool:
        """Return True the first time that it is called with this subject, to log it once."""
        first = subject not in self._noted
        self._noted.add(subject)
        return first

    @property
    def name(self) -> str:
        """The name of the function, for log lines."""
        return name_of(self.function)

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields of a log line about this handler."""
        return {"handler": escape_for_log(self.name)}

    @property
    def of_filters(self) -> str:
        """The subject of a log line about its filters."""
        return f"A filter of '{escape_for_log(self.name)}'"

    def adapt(self, function: HandlerFunction) -> None:
        """Call another function in place of the registered one from now on, without the functions around it."""
        self.run = self.inner = answering_function(function)

    async def call(self, *args: Any) -> Any:
        """Call the function with these arguments, and return its result."""
        return await self.run(*args)

    async def check(self, client: Client, packet: Packet) -> bool:
        """Return True if all filters pass.

        Raises:
            BaseException: any exception of a filter.
        """
        found: Mapping[str, Any] | None = None
        for check, awaited in self._checks:
            verdict = await ask(check, awaited, client, packet)
            if verdict is False:
                return False
            found = merged(found, verdict)
        if found is not None:
            packet.context.update(found)
        return True

    def _choose_match(self) -> Callable[[Client, Packet], Any]:
        if self.is_async:
            return self._match_async
        if not self._checks:
            return _match_all
        if len(self._checks) > 1:
            return self._match
        self._only = self._checks[0][0]
        return self._match_one

    def _match_one(self, client: Client, packet: Packet) -> bool | None:
        """Match a packet against the only filter: as `_match`, without a loop."""
        check = self._only
        try:
            result = check(client, packet)
            if result is True or result is False:
                return result
            verdict = passed(result)
            if isinstance(verdict, bool):
                return verdict
            packet.context.update(verdict)
        except BaseException as error:  # a filter may raise anything
            self._fail(client, packet, error, awaited=False)
            return None
        return True

    def _match(self, client: Client, packet: Packet) -> bool | None:
        found: Mapping[str, Any] | None = None
        try:
            for check, _ in self._checks:
                result = check(client, packet)
                if result is not True:
                    verdict = passed(result)
                    if verdict is False:
                        return False
                    found = merged(found, verdict)
            if found is not None:
                packet.context.update(found)
        except BaseException as error:  # a filter may raise anything
            self._fail(client, packet, error, awaited=False)
            return None
        return True

    async def _match_async(self, client: Client, packet: Packet) -> bool | None:
        try:
            return await self.check(client, packet)
        except BaseException as error:  # a filter may raise anything
            self._fail(client, packet, error, awaited=True)
            return None

    def _fail(self, client: Client, packet: Packet, error: BaseException, *, awaited: bool) -> None:
        """Log that a filter has raised.

        Raises:
            BaseException: the exception, if it is no failure of the filter.
        """
        if _propagates(error, awaited=awaited):
            packet.refused_by = self
            raise error
        if self.should_log():
            client.log.error(
                "{API Parser} %s raised %s, so the packet does not pass",
                self.of_filters,
                describe(error, packet.fields),
                extra=self.log_fields,
            )

    def __repr__(self) -> str:
        return f"<Handler {self.name} filters={self.filters!r}>"


class Guard(Handler):
    """A filter that every packet must pass before any handler.

    Args:
        check: a filter, or a function of client and packet, plain or ``async``.

    Raises:
        TypeError: ``check`` is neither.
    """

    __slots__ = ()

    def __init__(self, check: Filter | GuardFunction) -> None:
        super().__init__(_no_op, [check.as_guard() if isinstance(check, Filter) else FunctionFilter(check)])

    @property
    def log_fields(self) -> dict[str, object]:
        """No fields: a guard is no handler."""
        return {}

    @property
    def of_filters(self) -> str:
        """The subject of a log line about it."""
        return f"The guard {escape_for_log(self.filters[0])}"


class FunctionFilter(Filter):
    """A function as a filter.

    Raises:
        TypeError: it is not callable, or a class.
    """

    def __init__(self, function: object) -> None:
        if not callable(function) or inspect.isclass(function):
            raise TypeError(f"a guard is a Filter, or a function of client and packet; got {function!r}")
        self.check = function  # type: ignore[method-assign]  # called like the method

    def check(self, c: Client, p: Packet) -> Any:
        """Replaced by the function."""

    def __repr__(self) -> str:
        return str(getattr(self.check, "__name__", "function"))


def _selection(filter: Filter) -> tuple[str, str] | None:
    selection: object = filter.selects()
    if selection is None:
        return None
    if isinstance(selection, tuple) and len(selection) == 2 and all(isinstance(each, str) for each in selection):
        return selection
    raise TypeError(f"selects() of {filter!r} returned {selection!r}; return a field and its text, or None")


def _match_all(client: Client, packet: Packet) -> bool:
    """Match every packet: the handler has no filters."""
    return True


async def _no_op(client: Client, packet: Packet) -> None:
    """Do nothing: a guard has filters, and no handler of its own."""


def _propagates(error: BaseException, *, awaited: bool) -> bool:
    """Return True for a Failure and for a Ctrl+C, and if the filter was awaited also for a cancellation.

    A cancellation is that of the server, or a timeout.
    """

    def propagates(leaf: BaseException) -> bool:
        own = is_a(leaf, Failure) or (awaited and (is_a(leaf, trio.Cancelled) or is_a(leaf, GeneratorExit)))
        return own or is_interrupt(leaf)

    return any(map(propagates, leaves(error)))


def require_filters(filters: Iterable[object]) -> None:
    """Raise TypeError unless all of these are filters."""
    for filter in filters:
        if not isinstance(filter, Filter):
            raise TypeError(f"a filter must be a Filter, such as Filters.Fields(a=None); got {filter!r}")


def name_of(function: object) -> str:
    """Return the name of a function, or its repr if it has none."""
    return getattr(function, "__name__", None) or repr(function)


def is_handler(function: object) -> bool:
    """Return True if a function can be a handler as it is."""
    try:
        answering_function(function)  # type: ignore[arg-type]  # this is checked here
    except TypeError:
        return False
    return True


def answering_function(function: HandlerFunction) -> Callable[..., Awaitable[object]]:
    """Return the function to await for a handler: itself, or one that sends the answers of an async generator.

    Raises:
        TypeError: the function is not asynchronous, or cannot be called with two arguments.
    """
    _require_async(function)
    _require_two_parameters(function)
    return _sending(function) if _is_generator(function) else function  # type: ignore[return-value]  # checked above


def _require_two_parameters(function: object) -> None:
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]  # a callable, see _require_async
    except ValueError:  # a function that is not written in Python may have no signature
        return
    try:
        signature.bind(None, None)
    except TypeError:
        name = getattr(function, "__name__", "the handler")
        raise TypeError(
            f"a handler is called with a client and a packet, but {name!r} takes {signature}; "
            f"write 'async def {name}(client, packet)'"
        ) from None


def _is_generator(function: object) -> bool:
    """Return True for an async generator function, a wrapper of one, and an object whose ``__call__`` is one."""
    if isinstance(function, functools.partial):
        return _is_generator(function.func)
    if inspect.isasyncgenfunction(function):
        return True
    if hasattr(function, "__wrapped__"):
        return _is_generator(function.__wrapped__)
    return inspect.isasyncgenfunction(getattr(function, "__call__", None))  # noqa: B004  # the method itself is wanted


def _sending(function: Any) -> Callable[[Client, Packet], Awaitable[None]]:
    """Return a handler that sends each answer that an async generator yields."""

    async def send_all(client: Client, packet: Packet) -> None:
        async with contextlib.aclosing(function(client, packet)) as answers:
            async for answer in answers:
                await client.send(answer)

    return send_all


def _require_async(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a handler must be an 'async def' function; got {function!r}")
    if not (returns_coroutine(function) or _is_generator(function)):
        name = getattr(function, "__name__", "handler")
        raise TypeError(
            f"a handler must be asynchronous: write 'async def {name}(client, packet)' "
            "(for blocking work inside it there is Server.run_sync_task)"
        )
