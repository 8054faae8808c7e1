"""`Dispatcher`: calls the handlers of a packet, guards first, then the groups in their order.

Does not use the connection: its caller answers the exceptions raised here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from asyncapy_core.routing.error_handlers import ErrorHandlers
from asyncapy_core.routing.filter import Filter
from asyncapy_core.routing.handler import Guard, GuardFunction, Handler

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client


class NoHandler(Exception):
    """No handler matches the packet (docs/protocol.md, ERR_NO_HANDLER).

    Args:
        failed: whether a guard or a filter raised an exception.
    """

    def __init__(self, *, failed: bool = False) -> None:
        super().__init__()
        self.failed = failed


class Dispatcher:
    """The guards, handlers and error handlers of one server."""

    def __init__(self) -> None:
        self.guards: tuple[Guard, ...] = ()
        self._groups: tuple[tuple[int, tuple[Handler, ...]], ...] = ()
        self._without_waiting: tuple[Handler, ...] | None = ()
        self.errors: ErrorHandlers = ErrorHandlers()

    def guard(self, check: Filter | GuardFunction) -> None:
        """Add a guard after the existing ones."""
        self.guards = (*self.guards, Guard(check))
        self._without_waiting = None

    def register(self, handler: Handler, group: int) -> None:
        """Add a handler after the others of its group; packets being dispatched do not see it.

        Raises:
            TypeError: the group is not an integer.
        """
        if isinstance(group, bool) or not isinstance(group, int):
            raise TypeError(f"group must be an integer, the lower the earlier; got {group!r}")
        groups = self.groups
        groups[group] = (*groups.get(group, ()), handler)
        self._groups = tuple(sorted(groups.items()))
        only = self._groups[0][1] if len(self._groups) == 1 and not self.guards else None
        self._without_waiting = only if only is not None and not any(handler.is_async for handler in only) else None

    @property
    def groups(self) -> dict[int, tuple[Handler, ...]]:
        """The handlers by group, in the order in which they are matched."""
        return dict(self._groups)

    def dispatch(self, client: Client, packet: Packet) -> Awaitable[object]:
        """Call the first matching handler of each group, the lowest group first.

        Returns:
            An awaitable of the whole dispatch. If there is one group and no async filter, it is the handler's own
            coroutine, whose result is the answer. Otherwise the results are sent, and that of the awaitable is None.

        Raises:
            NoHandler: no handler matches in any group; raised here, or by the awaitable.
            StopPropagation: a handler kept the packet from later groups.
            Failure: a filter, a guard or a handler answers with a failure; later groups do not get the packet.
            Exception: any exception of a handler; later groups do not get the packet.
        """
        if self._without_waiting is None:
            return self._dispatch_by_group(client, packet, traced=False)
        failed = False
        for handler in self._without_waiting:
            match, function = handler.match, handler.function
            matches = match(client, packet)
            if matches:
                packet.handler = handler
                return function(client, packet)
            if matches is None:
                failed = True
        raise NoHandler(failed=failed)

    def dispatch_traced(self, client: Client, packet: Packet) -> Awaitable[object]:
        """`dispatch`, with a debug line for each step."""
        return self._dispatch_by_group(client, packet, traced=True)

    async def _dispatch_by_group(self, client: Client, packet: Packet, *, traced: bool) -> None:
        failed = False
        for guard in self.guards:
            passed, failed = await _first_match((guard,), client, packet)
            if passed is None:
                if guard.should_log():
                    refused = "{API Parser} A packet from %s was refused by the guard %r"
                    client.log.info(refused, client.address, guard.filters[0])
                raise NoHandler(failed=failed)
        matched = False
        for number, handlers in self._groups:
            if traced:
                client.log.debug("{API Parser} Checking group %d", number)
            handler, filter_failed = await _first_match(handlers, client, packet)
            failed = failed or filter_failed
            if handler is not None:
                matched = True
                packet.handler = handler
                if traced:
                    client.log.debug("{API Parser} Calling '%s' in group %d", handler.name, number)
                result = await handler.function(client, packet)
                if result is not None:
                    await client.stream.answer(result, packet)
        if not matched:
            raise NoHandler(failed=failed)


async def _first_match(handlers: Iterable[Handler], client: Client, packet: Packet) -> tuple[Handler | None, bool]:
    """Return the first handler that matches, and whether a filter before it failed."""
    failed = False
    for handler in handlers:
        matches = handler.match(client, packet)
        if handler.is_async:
            matches = await matches
        if matches:
            return handler, failed
        failed = failed or matches is None
    return None, failed
