"""`Handling`: runs handlers within their limits, and decides how their exceptions are answered."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from asyncapy_core.errors import ClientDisconnected, ErrorCode, Failure, StopPropagation
from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.foreign.inspection import first_leaf, is_a, split
from asyncapy_core.logs import Mistake
from asyncapy_core.routing.outcomes import DISCONNECTED, SUCCEEDED

if TYPE_CHECKING:
    import logging

    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.routing.error_handlers import ErrorHandlers
    from asyncapy_core.server.isolation import Peer, PeerTasks
    from asyncapy_core.session import Client

T = TypeVar("T")


class Handling:
    """Runs the handlers of one task, one packet after the other.

    Args:
        peers: splits exceptions, and closes dropped generators.
        errors: the functions for exceptions of the application.
        limit: ``handler_timeout``, which holds for these functions as well.
    """

    __slots__ = ("_errors", "_limit", "_peers", "_scope")

    def __init__(self, peers: PeerTasks, errors: ErrorHandlers, limit: float | None) -> None:
        self._peers = peers
        self._errors = errors
        self._limit = limit
        self._scope: trio.CancelScope | None = None

    def cancel(self) -> None:
        """Cancel the handlers of the current packet, as their client has left."""
        if self._scope is not None:
            self._scope.cancel()

    async def dispatch_in_scope(
        self, dispatch: Callable[[Client, Packet], Awaitable[object]], peer: Peer, client: Client, packet: Packet
    ) -> object:
        """Dispatch a packet, and cancel handlers that take longer than ``handler_timeout``, or on `cancel`.

        Returns:
            The result of the dispatch.

        Raises:
            TimeoutError: the handlers took too long, and were cancelled.
            ClientDisconnected: the handlers were cancelled as the client has left.
        """
        return await self.within_limit(peer, client, dispatch(client, packet))

    async def within_limit(self, peer: Peer, client: Client, under_way: Awaitable[object]) -> object:
        """Await handlers; see `dispatch_in_scope`."""

        async def handled() -> object:
            try:
                return await under_way
            finally:
                if self._peers.dropped.by_task:  # generators that were opened inside the scope are closed inside it
                    await self._peers.close_dropped(peer)

        return await self._in_scope(client, handled)

    async def _in_scope(self, client: Client, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call code of the application in a scope that `cancel` cancels, with the time limit of handlers."""
        self._scope = trio.CancelScope(
            deadline=trio.current_time() + (math.inf if self._limit is None else self._limit)
        )
        try:
            with ForeignScope(self._scope):
                return await function(*args)
        finally:
            self._scope = None
        if client.gone:
            raise ClientDisconnected("this client has left", client)
        raise TimeoutError(f"cut off after {self._limit:g} s (handler_timeout)")

    @property
    def is_cancelled(self) -> bool:
        """Whether the client has cancelled the current packet, so that a cancellation of its handlers is no failure."""
        return False

    def split(
        self, error: BaseException, client: Client, *, stops: bool = True
    ) -> tuple[BaseException | None, str, BaseException | None]:
        """Split an exception of a handler.

        Args:
            error: the exception.
            client: the client of the handler.
            stops: whether the code that raised it may stop the propagation.

        Returns:
            The part that belongs to the server (`PeerTasks.is_servers`); the outcome of the request; and the part that
            is a failure, which a stop of the propagation and a lost client are not.
        """
        disconnected, cancelled = False, self.is_cancelled

        def expected(leaf: BaseException) -> bool:
            nonlocal disconnected
            left = has_left(leaf, client)
            disconnected = disconnected or left
            stopped = stops and is_a(leaf, StopPropagation)
            return left or stopped or (cancelled and is_a(leaf, trio.Cancelled))

        through, failure = self._peers.split(error)
        if failure is not None:
            failure = split(failure, expected)[1]
        return through, DISCONNECTED if disconnected else SUCCEEDED, failure

    async def translate(
        self, client: Client, packet: Packet, error: BaseException
    ) -> tuple[Failure | None, str, BaseException | None]:
        """Find the `Failure` to send for an exception: its own, or that of the application's function for it.

        It may be the only exception of a group.

        Returns:
            The failure to send, or None; the outcome of the request; and the exception to log, or None: this one, or
            that of the function. There is neither if the client has left, or has cancelled the packet.

        Raises:
            BaseException: the part of an exception of the function that belongs to the server.
        """
        leaf, others = first_leaf(error)
        if others:
            return None, ErrorCode.HANDLER_FAILED, error
        try:
            answer = await self._in_scope(client, self._errors.translate, client, packet, leaf)
            if answer is not None:
                answer = Failure(answer.code, **answer.fields)  # those of a subclass may be anything
        except BaseException as fault:  # the function may raise anything
            through, outcome, failure = self.split(fault, client, stops=False)
            if through is not None:
                raise through from None
            return None, outcome if failure is None else ErrorCode.HANDLER_FAILED, failure
        if answer is None:
            return None, ErrorCode.HANDLER_FAILED, error
        return answer, answer.code, None

    def report(
        self, log: logging.LoggerAdapter[logging.Logger], packet: Packet, failure: BaseException, started: int = 0
    ) -> None:
        """Log a failure of a handler or filter.

        Args:
            log: the log of the session.
            packet: the packet.
            failure: the exception.
            started: the time of the dispatch, by `time.perf_counter_ns`, or 0 if it is not known.
        """
        extra: dict[str, object] = {"code": ErrorCode.HANDLER_FAILED.value}
        subject = "A filter"
        if packet.refused_by is not None:  # the handler of the packet, if there is one, is that of an earlier group
            extra |= packet.refused_by.log_fields
            subject = packet.refused_by.of_filters
        elif packet.handler is not None:
            extra |= packet.handler.log_fields
            subject = f"Handler '{extra['handler']}'"
        if started:
            extra["duration"] = round((time.perf_counter_ns() - started) / 1e9, 6)
        self._peers.failures.report(log, f"{{API Parser}} {subject}", failure, packet.fields, extra)


def has_left(error: BaseException | None, client: Client) -> bool:
    """Return True for the exception that tells that this client has left."""
    if not is_a(error, ClientDisconnected):
        return False
    try:
        return error.client is client or getattr(error.client, "session", None) is client.session
    except BaseException:  # an attribute of a subclass may raise anything
        return False


def as_answer(result: object, packet: Packet) -> Packet | Mapping[str, Any]:
    """Return the return value of a handler, if it can be sent.

    Args:
        result: the value.
        packet: the packet that the handler got.

    Raises:
        TypeError: it is neither a mapping nor a packet.
    """
    if isinstance(result, Mapping):  # a packet is one, too
        return result
    handler: Any = packet.handler  # wrapped, if its functions differ
    name = "a handler" if handler is None else repr(handler.name)
    if handler is not None and getattr(handler, "run", None) is not getattr(handler, "inner", None):
        name = f"{name}, inside {getattr(handler.run, '__qualname__', 'another function')!r},"
    advice = "await it" if inspect.isawaitable(result) else "return a mapping, a Packet, or None for no answer"
    raise Mistake(f"{name} returned a {type(result).__name__}; {advice}")
