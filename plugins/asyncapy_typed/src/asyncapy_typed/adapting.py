"""Makes an ``async (client, packet)`` of a handler with models and dependencies."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import AsyncIterable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from asyncapy_core.foreign.cancellation import ForeignScope
from asyncapy_core.logs import Mistake
from asyncapy_core.protocol.wire import NUMBERED_VERSION
from asyncapy_typed.answers import dump_any
from asyncapy_typed.errors import too_old
from asyncapy_typed.filter_schemas import fields_of
from asyncapy_typed.parameters import Given
from asyncapy_typed.plans import Hidden, Overrides, Plan
from asyncapy_typed.signatures import Signature, is_typed

if TYPE_CHECKING:
    from asyncapy_core import Client, Packet
    from asyncapy_core.interfaces import ServerInterface
    from asyncapy_core.routing.router import Route

Handler: TypeAlias = "Callable[[Client, Packet], Any]"

CHECK_REPLIES = "ASYNCAPY_CHECK_REPLIES"
"""The environment variable that makes handlers check their answers, if it is 1 when they are registered."""


def adapt(function: Callable[..., Any], server: ServerInterface, route: Route) -> Handler | None:
    """Return the handler for a function with models or dependencies, or None for any other function.

    Raises:
        TypeError: the function cannot be called for a packet; the message gives the reason.
    """
    if not is_typed(function):
        return None
    try:
        signature = Signature(function, route)
        plans = _Plans(signature, _hidden_fields(server, route))
        _require_request(signature, plans.own, route)
    except TypeError as error:
        raise TypeError(f"{error}{_place_of(function)}") from error
    dump = _dump_of(signature)
    if plans.own.depends:
        made = _with_dependencies(server, signature, plans, dump)
    else:
        make = _streaming if signature.streams else _answering
        made = make(signature, plans.own, dump)
    return _of_version_23(made) if signature.streams else made


def _require_request(signature: Signature, plan: Plan, route: Route) -> None:
    """Raise TypeError for a handler that is registered with a class of requests, and reads none of its fields."""
    if route.model is None or plan.models or Given("packet") in signature.sources.values():
        return
    name = route.model.__name__
    raise TypeError(
        f"{signature.title} is registered with @server.operation({name}), and takes no {name}: add the parameter "
        f"'request: {name}'"
    )


def _place_of(function: Callable[..., Any]) -> str:
    """Return where a function is defined, for messages; nothing if that is not known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f" (at {code.co_filename}:{code.co_firstlineno})"


def _of_version_23(handler: Handler) -> Handler:
    """Return a handler that refuses packets of version 22, whose client could not tell which answer is the last."""

    async def refuse_or_call(client: Client, packet: Packet) -> None:
        if client.version < NUMBERED_VERSION:
            raise too_old()
        await handler(client, packet)

    return refuse_or_call


class _Plans:
    """The plan of a handler, and that with the present replacements of dependencies.

    Attributes:
        own: the plan without replacements.
    """

    def __init__(self, signature: Signature, hidden: Hidden) -> None:
        self._signature = signature
        self._hidden = hidden
        self._overrides: Overrides = {}
        self.own: Plan = self._plan({})
        self._overridden = self.own

    def current(self, overrides: Overrides) -> Plan:
        """Return the plan with these replacements.

        Raises:
            TypeError: a replacement cannot be called.
        """
        if not overrides:
            return self.own
        if overrides is not self._overrides:
            self._overridden = self._plan(overrides)
            self._overrides = overrides
        return self._overridden

    def _plan(self, overrides: Overrides) -> Plan:
        signature = self._signature
        return Plan(signature.function, signature.title, self._hidden, sources=signature.sources, overrides=overrides)


def _answering(signature: Signature, plan: Plan, dump: Callable[[Any], Any]) -> Handler:
    """Return a handler with one answer and without dependencies."""
    function, named = signature.function, plan.arguments.named
    if not named and len(plan.arguments.positional) == 1:
        read = plan.arguments.positional[0]

        async def call_with_one(client: Client, packet: Packet) -> Any:
            return dump(await function(read(client, packet, _NO_RESULTS)))

        return call_with_one
    arguments = plan.arguments

    async def call(client: Client, packet: Packet) -> Any:
        return dump(await arguments.call(function, client, packet, _NO_RESULTS))

    return call


def _streaming(signature: Signature, plan: Plan, dump: Callable[[Any], Any]) -> Handler:
    """Return a handler with any number of answers and without dependencies."""
    function, arguments, iterates = signature.function, plan.arguments, signature.iterates

    async def stream(client: Client, packet: Packet) -> None:
        answers = arguments.call(function, client, packet, _NO_RESULTS)
        await _send_all(client, answers if iterates else await answers, dump)

    return stream


def _with_dependencies(
    server: ServerInterface, signature: Signature, plans: _Plans, dump: Callable[[Any], Any]
) -> Handler:
    """Return a handler with dependencies, which may be replaced while the server serves."""
    function, streams, iterates = signature.function, signature.streams, signature.iterates

    async def call(client: Client, packet: Packet, plan: Plan, stack: AsyncExitStack | None) -> Any:
        results = plan.resolve_now(client, packet) if plan.is_plain else await plan.resolve(client, packet, stack)
        answer = plan.arguments.call(function, client, packet, results)
        if not iterates:
            answer = await answer
        if streams:
            return await _send_all(client, answer, dump)
        return dump(answer)

    async def resolve_and_call(client: Client, packet: Packet) -> Any:
        overrides = server.overrides
        plan = plans.current(overrides) if overrides else plans.own
        if not plan.manages:
            return await call(client, packet, plan, None)
        has_ended = False
        scope = trio.CancelScope()
        with ForeignScope(scope):
            async with AsyncExitStack() as stack:
                fields = await call(client, packet, plan, stack)
                if fields is not None:
                    await client.send(fields, last=True)
                has_ended = True
                # a client may leave with its answer, which cancels its requests; dependencies may have scopes inside
                # this one, so that no other can be opened here
                limit = server.config.handler_timeout
                scope.deadline = math.inf if limit is None else trio.current_time() + limit
                scope.shield = True
        if has_ended and scope.cancelled_caught:
            raise TimeoutError("the clean-up was cut off (handler_timeout)")
        if not has_ended:
            raise RuntimeError(
                f"a dependency of {signature.title} has caught its exception, and not raised it again: write "
                "'raise' at the end of 'except', or use 'finally'"
            )
        return None

    return resolve_and_call


async def _send_all(client: Client, answers: AsyncIterable[Any], dump: Callable[[Any], Any]) -> None:
    """Send each answer of an iterator, and close it."""
    if not hasattr(answers, "__aiter__"):
        raise Mistake(f"it returned a {type(answers).__name__}; yield its items instead")
    iterator = aiter(answers)
    try:
        async for answer in iterator:
            await client.send(dump(answer))
    finally:
        close = getattr(iterator, "aclose", None)  # most are generators
        if close is not None:
            await close()


def _dump_of(signature: Signature) -> Callable[[Any], Any]:
    answer = signature.answer
    if answer is None:
        return dump_any
    return answer.checked if os.environ.get(CHECK_REPLIES) == "1" else answer.dump


def _hidden_fields(server: ServerInterface, route: Route) -> Hidden:
    """Return a function for the fields that filters and guards examine, and that of the operation.

    Guards may be registered after the handler.
    """
    of_route = fields_of(route.filters) | ({route.field} if route.operation is not None else set())
    known: tuple[Any, frozenset[str]] = (None, frozenset())

    def hidden() -> frozenset[str]:
        nonlocal known
        guards = server.guards
        if guards is not known[0]:
            known = guards, of_route.union(*(fields_of(guard.filters) for guard in guards))
        return known[1]

    return hidden


_NO_RESULTS: list[Any] = []
"""The results of no dependencies; it stays empty."""
