"""`Filter`, the base of all filters, and how filters combine with ``&``, ``|`` and ``~``.

Knows no particular filter: they arrive through the ``asyncapy_filters`` hook.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.session import Client


class Filter(ABC):
    """Decides whether a packet of a client may reach a handler.

    A subclass has one method, ``check``, plain or ``async``. Filters combine: ``a & b`` passes when both do, ``a | b``
    when one does, ``~a`` when ``a`` does not. A filter that raises does not pass, and neither does its ``~``.

    Filters that compare equal have to decide alike, always: a handler behind another with equal filters can never run,
    of which the server warns. Without an ``__eq__`` of its own, a filter is equal to itself alone.

    Attributes:
        authenticates: whether passing proves who the peer is, by an API key for instance. A server that anybody can
            reach, and that asks nobody for proof, says so in its log.
    """

    authenticates: bool = False

    @abstractmethod
    def check(self, c: Client, p: Packet) -> bool | Awaitable[bool]:
        """Return True when the packet ``p`` of the client ``c`` may pass."""

    def __and__(self, other: object) -> Filter:
        return And(self, other) if isinstance(other, Filter) else NotImplemented

    def __or__(self, other: object) -> Filter:
        return Or(self, other) if isinstance(other, Filter) else NotImplemented

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"a filter is neither true nor false: combine filters with & | ~, not with 'and', 'or', 'not' ({self!r})"
        )


def is_async(filter: Filter) -> bool:
    """Say whether this filter's ``check`` has to be awaited."""
    return returns_coroutine(filter.check)


def returns_coroutine(function: object) -> bool:
    """Say whether what this returns has to be awaited: it is an ``async def``, wraps one, or has one as its call."""
    if isinstance(function, functools.partial):
        return returns_coroutine(function.func)
    if inspect.iscoroutinefunction(function):
        return True
    if hasattr(function, "__wrapped__"):
        return returns_coroutine(function.__wrapped__)
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # the method itself is wanted


def passed(result: object) -> bool:
    """Return what a ``check`` said as a bool.

    Raises:
        TypeError: it said nothing yet, because it returned something to be awaited; which would count as true.
    """
    if result is True or result is False:
        return result
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("a check returned an awaitable; define it with 'async def', and await in it")
    return bool(result)


async def check(filter: Filter, client: Client, packet: Packet) -> bool:
    """Ask any filter, plain or async."""
    return await _ask(filter.check, is_async(filter), client, packet)


async def _ask(check: Callable[[Client, Packet], Any], awaited: bool, client: Client, packet: Packet) -> bool:  # noqa: FBT001  # one of a pair
    result = check(client, packet)
    return passed(await result if awaited else result)


class _Compound(Filter):
    """A filter made of others: one way to decide, awaited only when one of them has to be."""

    def __init__(self, *operands: Filter) -> None:
        self.operands = operands
        self._checks = tuple((operand.check, is_async(operand)) for operand in operands)
        if any(awaited for _, awaited in self._checks):
            self.check = self.decide  # type: ignore[method-assign]  # chosen here, once, rather than for each packet

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Compound) and type(self) is type(other) and self.operands == other.operands

    def __hash__(self) -> int:
        return hash((type(self), self.operands))

    @abstractmethod
    async def decide(self, c: Client, p: Packet) -> bool:
        """Ask the operands."""

    def check(self, c: Client, p: Packet) -> bool | Awaitable[bool]:
        decision = self.decide(c, p)
        try:
            decision.send(None)
        except StopIteration as done:
            return bool(done.value)
        raise AssertionError("plain operands have nothing to wait for")  # pragma: no cover


class And(_Compound):
    """Passes when all do; the next is asked only when the one before it passed."""

    @property
    def authenticates(self) -> bool:  # type: ignore[override]  # as its operands are
        """Whether one of them does."""
        return any(operand.authenticates for operand in self.operands)

    async def decide(self, c: Client, p: Packet) -> bool:
        for check, awaited in self._checks:
            if not await _ask(check, awaited, c, p):
                return False
        return True

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.operands))})"


class Or(_Compound):
    """Passes when one does, even when one before it raised; raises when one raised and none passed."""

    @property
    def authenticates(self) -> bool:  # type: ignore[override]  # as its operands are
        """Whether each of them does."""
        return all(operand.authenticates for operand in self.operands)

    async def decide(self, c: Client, p: Packet) -> bool:
        failure: Exception | None = None
        for check, awaited in self._checks:
            try:
                if await _ask(check, awaited, c, p):
                    return True
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return False

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.operands))})"


class Not(_Compound):
    """Passes when the filter does not; when that raises, so does this."""

    async def decide(self, c: Client, p: Packet) -> bool:
        ((check, awaited),) = self._checks
        return not await _ask(check, awaited, c, p)

    def __repr__(self) -> str:
        return f"~{self.operands[0]!r}"
