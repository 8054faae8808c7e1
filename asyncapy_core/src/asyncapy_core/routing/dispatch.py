"""From a packet to the handlers it is for: handlers with their filters, in ordered groups.

Knows no connection: what is raised here is answered by the one who asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from asyncapy_core.interrupts import is_interrupt
from asyncapy_core.logs import RateLimited, describe
from asyncapy_core.routing.filter import Filter, is_async, passed, returns_coroutine

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.session import Client

HandlerFunction: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""``async def handler(client: Client, packet: Packet)``."""


class NoHandler(Exception):
    """No handler of any group wants the packet (docs/protocol.md, ERR_NO_HANDLER).

    Args:
        failed: whether a guard or a filter raised an exception.
    """

    def __init__(self, *, failed: bool = False) -> None:
        super().__init__()
        self.failed = failed


class Handler:
    """A function together with the filters that a packet has to pass to reach it.

    Args:
        function: an ``async def`` that takes a `Client` and a `Packet`.
        filters: all of these must pass, in this order.

    Raises:
        TypeError: the function is not asynchronous, or a filter is not a `Filter`.
    """

    __slots__ = ("_checks", "filters", "function", "is_async", "match", "should_log")

    def __init__(self, function: HandlerFunction, filters: Sequence[Filter] | None = None) -> None:
        _require_async(function)
        self.function = function
        self.filters = list(filters or ())
        for filter in self.filters:
            if not isinstance(filter, Filter):
                raise TypeError(f"a filter must be a Filter, such as Filters.Fields(a=None); got {filter!r}")
        self._checks = tuple((filter.check, is_async(filter)) for filter in self.filters)
        self.is_async = any(awaited for _, awaited in self._checks)
        self.match = self._matcher()
        self.should_log = RateLimited()

    @property
    def name(self) -> str:
        """What to call it in a log line."""
        return getattr(self.function, "__name__", None) or repr(self.function)

    async def call(self, *args: Any) -> Any:
        """Call the function with these arguments and wait for it."""
        return await self.function(*args)

    async def check(self, client: Client, packet: Packet) -> bool:
        """Return True when all filters pass, False otherwise. What a filter raises comes through."""
        for check, awaited in self._checks:
            result: Any = check(client, packet)
            if not passed(await result if awaited else result):
                return False
        return True

    def _matcher(self) -> Callable[[Client, Packet], Any]:
        """Choose, once, what decides about a packet: what it returns is to be awaited if `is_async`, then judged."""
        if self.is_async:
            return self.check
        if len(self._checks) == 1:
            return self._checks[0][0]
        return self._check_now

    def _check_now(self, client: Client, packet: Packet) -> bool:
        """`check`, for a handler none of whose filters has to be awaited."""
        for check, _ in self._checks:
            result = check(client, packet)
            if result is not True and not passed(result):
                return False
        return True

    def __repr__(self) -> str:
        return f"<Handler {self.name} filters={self.filters!r}>"


class Dispatcher:
    """The guards and handlers of one server, and the order in which a packet meets them."""

    def __init__(self) -> None:
        self.guards: tuple[Handler, ...] = ()
        self._groups: tuple[tuple[int, tuple[Handler, ...]], ...] = ()
        self._at_once: tuple[Handler, ...] | None = ()

    def guard(self, check: Filter | Callable[[Any, Any], Any]) -> None:
        """Have every packet checked before any handler is looked for: by a filter, or a function like its ``check``."""
        filter = check if isinstance(check, Filter) else _Check(check)
        self.guards = (*self.guards, Handler(_nothing, [filter]))
        self._at_once = None

    def register(self, handler: Handler, group: int) -> None:
        """Add a handler behind those that its group already has; a packet under way does not see it any more."""
        if isinstance(group, bool) or not isinstance(group, int):
            raise TypeError(f"group must be an integer, the lower the earlier; got {group!r}")
        groups = self.groups
        groups[group] = (*groups.get(group, ()), handler)
        self._groups = tuple(sorted(groups.items()))
        only = self._groups[0][1] if len(self._groups) == 1 and not self.guards else None
        self._at_once = only if only is not None and not any(handler.is_async for handler in only) else None

    @property
    def groups(self) -> dict[int, tuple[Handler, ...]]:
        """The handlers by group, in the order in which they are asked."""
        return dict(self._groups)

    def dispatch(self, client: Client, packet: Packet) -> Awaitable[None]:
        """Give the packet to the first handler of each group whose filters pass, lower groups first.

        Returns:
            What to wait for until that is done. Where there is one group, and no filter has to be awaited, that is
            the handler's own coroutine.

        Raises:
            NoHandler: there was no such handler in any group; raised at once, or when it is awaited.
            StopPropagation: a handler stopped the packet; no later group has seen it.
            Exception: what a handler raised; no later group has seen the packet.
        """
        if self._at_once is None:
            return self._dispatch_by_group(client, packet, traced=False)
        failed = False
        for handler in self._at_once:
            match, function = handler.match, handler.function
            try:
                found = match(client, packet)
                if found is not True and not passed(found):
                    continue
            except BaseException as error:  # a filter may raise anything
                if _goes_through(error, awaited=False):
                    raise
                self._filter_failed(client, handler, error)
                failed = True
            else:
                packet.handler = handler
                return function(client, packet)
        raise NoHandler(failed=failed)

    def dispatch_traced(self, client: Client, packet: Packet) -> Awaitable[None]:
        """Do the same as `dispatch`, and log each step at DEBUG."""
        return self._dispatch_by_group(client, packet, traced=True)

    async def _dispatch_by_group(self, client: Client, packet: Packet, *, traced: bool) -> None:
        failures: list[BaseException] = []
        for guard in self.guards:
            if await self._first((guard,), client, packet, failures) is None:
                if guard.should_log():
                    client.log.info("{API Parser} A packet was refused by the guard %r", guard.filters[0])
                raise NoHandler(failed=bool(failures))
        matched = False
        for number, handlers in self._groups:
            if traced:
                client.log.debug("{API Parser} Checking group %d", number)
            handler = await self._first(handlers, client, packet, failures)
            if handler is not None:
                matched = True
                packet.handler = handler
                if traced:
                    client.log.debug("{API Parser} Calling '%s' in group %d", handler.name, number)
                await handler.function(client, packet)
        if not matched:
            raise NoHandler(failed=bool(failures))

    async def _first(
        self, handlers: Iterable[Handler], client: Client, packet: Packet, failures: list[BaseException]
    ) -> Handler | None:
        """Return the first handler whose filters pass; put what filters raise into ``failures``."""
        for handler in handlers:
            try:
                found = handler.match(client, packet)
                if found is True or passed(await found if handler.is_async else found):
                    return handler
            except BaseException as error:  # a filter may raise anything
                if _goes_through(error, awaited=handler.is_async):
                    raise
                self._filter_failed(client, handler, error)
                failures.append(error)
        return None

    def _filter_failed(self, client: Client, handler: Handler, error: BaseException) -> None:
        """Say so, at most once a second: a key store that is away fails every packet's filter."""
        if handler.should_log():
            client.log.error(
                "{API Parser} A filter of '%s' raised %s, so the packet does not pass", handler.name, describe(error)
            )


class _Check(Filter):
    """A function as a filter."""

    def __init__(self, function: object) -> None:
        if not callable(function) or inspect.isclass(function):
            raise TypeError(f"a guard is a Filter, or a function of client and packet; got {function!r}")
        self.check = function  # type: ignore[method-assign]  # asked like a method

    def check(self, c: Client, p: Packet) -> Any:
        """What the function says."""

    def __repr__(self) -> str:
        return str(getattr(self.check, "__name__", "function"))


async def _nothing(client: Client, packet: Packet) -> None:
    """What is behind a guard."""


def _goes_through(error: BaseException, *, awaited: bool) -> bool:
    """Return True for a Ctrl+C, and where a filter was awaited for the possible end of the server or of its time."""

    def goes_through(leaf: BaseException) -> bool:
        return (awaited and isinstance(leaf, (trio.Cancelled, GeneratorExit))) or is_interrupt(leaf)

    return error.subgroup(goes_through) is not None if isinstance(error, BaseExceptionGroup) else goes_through(error)


def _require_async(function: object) -> None:
    if not callable(function):
        raise TypeError(f"a handler must be an 'async def' function; got {function!r}")
    if not returns_coroutine(function):
        name = getattr(function, "__name__", "handler")
        raise TypeError(
            f"a handler must be asynchronous: write 'async def {name}(client, packet)' "
            "(for blocking work inside it there is Server.run_sync_task)"
        )
