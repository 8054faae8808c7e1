"""`Dispatcher`: calls the handlers of a packet, guards first, then the groups in their order.

Does not use the connection: its caller answers the exceptions raised here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asyncapy_core.errors import ErrorCode
from asyncapy_core.routing.error_handlers import ErrorHandlers
from asyncapy_core.routing.handler import Guard, Handler
from asyncapy_core.routing.selection import SelectionTable

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client


class NoHandler(Exception):
    """No handler matches the packet (docs/protocol.md, ERR_NO_HANDLER).

    Args:
        failed: whether a guard or a filter raised an exception.
        fields: further fields of the answer, if there are any.
    """

    def __init__(self, *, failed: bool = False, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.failed = failed
        self.fields = fields


class Dispatcher:
    """The guards, handlers and error handlers of one server.

    Attributes:
        guards: the guards, in their order.
        errors: the functions for exceptions of the application.
        suggest: returns further fields for the answer to a packet that no handler gets, or None.
        waits: whether a dispatch with guards, several groups or async filters has waited; see `Handler`.
    """

    def __init__(self) -> None:
        self.guards: tuple[Guard, ...] = ()
        self.errors: ErrorHandlers = ErrorHandlers()
        self.suggest: Callable[[Packet], Mapping[str, Any] | None] | None = None
        self.waits: bool = False
        self._groups: tuple[_Group, ...] = ()
        self._without_waiting: _Group | None = None
        self._prepared = False

    def guard(self, guard: Guard) -> None:
        """Add a guard after the existing ones."""
        self.guards = (*self.guards, guard)
        self._prepared, self._without_waiting = False, None

    def remove_guard(self, guard: Guard) -> None:
        """Remove a guard; packets being dispatched are checked by it."""
        self.guards = tuple(each for each in self.guards if each is not guard)
        self._prepared, self._without_waiting = False, None

    def register(self, handler: Handler, group: int) -> None:
        """Add a handler after the others of its group; packets being dispatched do not see it."""
        self._replace(group, (*self.groups.get(group, ()), handler))

    def unregister(self, handler: Handler, group: int) -> None:
        """Remove a handler from its group; packets being dispatched still see it."""
        self._replace(group, tuple(each for each in self.groups[group] if each is not handler))

    @property
    def groups(self) -> dict[int, tuple[Handler, ...]]:
        """The handlers by group, in the order in which they are matched."""
        return {group.number: group.handlers for group in self._groups}

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
        group = self._without_waiting
        if group is None:
            if self._prepared:
                return self._dispatch_by_group(client, packet, traced=False)
            self._prepare()
            return self.dispatch(client, packet)
        failed = False
        for handler in group.handlers if group.table is None else group.table.candidates(packet.fields):
            match, run = handler.match, handler.run
            matches = match(client, packet)
            if matches:
                packet.handler = handler
                return run(client, packet)
            if matches is None:
                failed = True
        raise self._no_handler(packet, failed=failed)

    def note_wait(self, packet: Packet | None) -> None:
        """Note that the dispatch of a packet has waited for something other than its client."""
        if packet is not None and packet.handler is not None:
            packet.handler.waits = True
        if self._without_waiting is None:  # the next dispatch does not tell its handler before it is awaited
            self.waits = True

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
                    code = {"code": ErrorCode.NO_HANDLER.value}
                    client.log.info(refused, client.address, guard.filters[0], extra=code)
                raise NoHandler(failed=failed)
        matched = False
        for group in self._groups:
            if traced:
                client.log.debug("{API Parser} Checking group %d", group.number)
            handler, filter_failed = await _first_match(group.candidates(packet), client, packet)
            failed = failed or filter_failed
            if handler is not None:
                matched = True
                packet.handler = handler
                if traced:
                    name = {"handler": handler.name}
                    client.log.debug("{API Parser} Calling '%s' in group %d", handler.name, group.number, extra=name)
                result = await handler.run(client, packet)
                if result is not None:
                    await client.stream.answer(result, packet)
        if not matched:
            raise self._no_handler(packet, failed=failed)

    def _no_handler(self, packet: Packet, *, failed: bool) -> NoHandler:
        return NoHandler(failed=failed, fields=None if self.suggest is None else self.suggest(packet))

    def _replace(self, number: int, handlers: tuple[Handler, ...]) -> None:
        """Replace the handlers of a group. The tables are made with the next packet, once for many changes."""
        groups = {group.number: group for group in self._groups}
        groups[number] = _Group(number, handlers)
        self._groups = tuple(groups[each] for each in sorted(groups) if groups[each].handlers)
        self._prepared, self._without_waiting = False, None

    def _prepare(self) -> None:
        """Make the tables of the groups, and find out if `dispatch` can do without a coroutine of its own."""
        for group in self._groups:
            group.prepare()
        only = self._groups[0] if len(self._groups) == 1 and not self.guards else None
        self._without_waiting = only if only is not None and not any(each.is_async for each in only.handlers) else None
        self._prepared = True


class _Group:
    """The handlers of one group, with a table if many of them select packets."""

    __slots__ = ("_prepared", "handlers", "number", "table")

    def __init__(self, number: int, handlers: tuple[Handler, ...]) -> None:
        self.number = number
        self.handlers = handlers
        self.table: SelectionTable | None = None
        self._prepared = False

    def prepare(self) -> None:
        """Make the table."""
        if not self._prepared:
            self.table = SelectionTable.of(self.handlers)
            self._prepared = True

    def candidates(self, packet: Packet) -> Iterable[Handler]:
        """Return the handlers that can match a packet, in their order."""
        return self.handlers if self.table is None else self.table.candidates(packet.fields)


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
