"""`Filter`, the base class of filters, and their combinations with ``&``, ``|`` and ``~``.

Filters come from plugins, through the ``asyncapy_filters`` hook.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.session import Client


Verdict: TypeAlias = bool | Mapping[str, Any]
"""The result of a check: whether the packet passes, or a mapping if it does."""


class Filter(ABC):
    """Decides whether a packet may reach a handler.

    A subclass has one method, ``check``, plain or ``async``. Filters combine: ``a & b`` passes if both pass, ``a | b``
    if one of them passes, ``~a`` if ``a`` does not pass. If ``a`` raises, neither ``a`` nor ``~a`` passes.

    A ``check`` that has found out something about a packet returns it as a mapping, which passes, also if it is empty.
    If all filters of the handler pass, ``packet.context`` is updated with these mappings.

    Equal filters must decide alike: a handler after another with equal filters is never called, and the server warns
    of it. A filter without an ``__eq__`` of its own is equal to itself only.

    Attributes:
        authenticates: whether a pass proves the identity of the peer, as an API key does. A server that is reachable
            from other machines and has no such filter logs a warning.
    """

    authenticates: bool = False

    @abstractmethod
    def check(self, c: Client, p: Packet) -> Verdict | Awaitable[Verdict]:
        """Return True or a mapping if the packet ``p`` of the client ``c`` passes."""

    def as_guard(self) -> Filter:
        """Return the filter to be used where this one is a guard: one that raises a `Failure` to give the reason."""
        return self

    def selects(self) -> tuple[str, str] | None:
        """Return a field, and the text that it has in every packet that passes; or None if there is no such field.

        The text is that of ``str()`` for numbers, booleans and null; bytes, maps and arrays have none. It may be a
        `Prefix`, with which the field begins. If this is the first filter of a handler, packets with another text are
        not checked, so that the time to find one of many handlers does not depend on their number. The result must
        never change.
        """
        return None

    def schema(self) -> Mapping[str, Any] | None:
        """Return a JSON Schema of the packets that pass, for descriptions of a server; None if there is none to give.

        It describes an object, with ``properties`` and ``required``. A property that is a secret, such as an API key,
        has ``"writeOnly": true``. ``"x-errors"`` may list the codes of the failures that the filter answers with.
        """
        return None

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
    """Return True if the filter's ``check`` must be awaited."""
    return returns_coroutine(filter.check)


def returns_coroutine(function: object) -> bool:
    """Return True for an ``async def``, for a wrapper of one, and for an object whose ``__call__`` is one."""
    if isinstance(function, functools.partial):
        return returns_coroutine(function.func)
    if inspect.iscoroutinefunction(function):
        return True
    if hasattr(function, "__wrapped__"):
        return returns_coroutine(function.__wrapped__)
    return inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # the method itself is wanted


def passed(result: object) -> Verdict:
    """Return the result of a ``check`` as a bool or a mapping. A mapping passes, also an empty one.

    Raises:
        TypeError: the result is an awaitable or a generator, which would count as true.
    """
    if result is True or result is False or isinstance(result, Mapping):
        return result
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("a check returned an awaitable; define it with 'async def', and await in it")
    return bool(result)


def merged(found: Mapping[str, Any] | None, verdict: Verdict) -> Mapping[str, Any] | None:
    """Return the findings of the checks before, and of one more that passes; None if there are none."""
    if isinstance(verdict, bool):
        return found
    return verdict if found is None else {**found, **verdict}


async def check(filter: Filter, client: Client, packet: Packet) -> bool:
    """Return True if a filter, plain or async, passes."""
    return False is not await ask(filter.check, is_async(filter), client, packet)


async def ask(check: Callable[[Client, Packet], Any], awaited: bool, client: Client, packet: Packet) -> Verdict:  # noqa: FBT001  # a pair, kept together
    """Call the ``check`` of a filter, and await its result if ``awaited``."""
    result = check(client, packet)
    return passed(await result if awaited else result)


class _Compound(Filter):
    """A filter made of others. `decide` is one algorithm for both kinds: it waits only for async operands."""

    def __init__(self, *operands: Filter) -> None:
        self.operands = operands
        self._checks = tuple((operand.check, is_async(operand)) for operand in operands)
        if any(awaited for _, awaited in self._checks):
            self.check = self.decide  # type: ignore[method-assign]  # chosen once, not for each packet

    def as_guard(self) -> Filter:
        return type(self)(*(operand.as_guard() for operand in self.operands))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Compound) and type(self) is type(other) and self.operands == other.operands

    def __hash__(self) -> int:
        return hash((type(self), self.operands))

    def _schemas(self) -> list[Mapping[str, Any]]:
        """Return the schemas of the operands that have one."""
        return [schema for operand in self.operands if (schema := operand.schema()) is not None]

    @abstractmethod
    async def decide(self, c: Client, p: Packet) -> Verdict:
        """Return True or a mapping if the combination of the operands passes."""

    def check(self, c: Client, p: Packet) -> Verdict | Awaitable[Verdict]:
        decision = self.decide(c, p)
        try:
            decision.send(None)
        except StopIteration as done:
            return passed(done.value)
        raise AssertionError("plain operands do not wait")  # pragma: no cover


class And(_Compound):
    """Passes if all operands pass, with the mappings of all. An operand is checked only if those before it passed."""

    @property
    def authenticates(self) -> bool:  # type: ignore[override]  # computed from the operands
        """Whether an operand authenticates."""
        return any(operand.authenticates for operand in self.operands)

    def selects(self) -> tuple[str, str] | None:
        return self.operands[0].selects()

    def schema(self) -> Mapping[str, Any] | None:
        schemas = self._schemas()
        return {"allOf": schemas} if schemas else None

    async def decide(self, c: Client, p: Packet) -> Verdict:
        found: Mapping[str, Any] | None = None
        for check, awaited in self._checks:
            verdict = await ask(check, awaited, c, p)
            if verdict is False:
                return False
            found = merged(found, verdict)
        return True if found is None else found

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.operands))})"


class Or(_Compound):
    """Passes if an operand passes, with its mapping, even after one that raised. Raises if one did and none passed."""

    @property
    def authenticates(self) -> bool:  # type: ignore[override]  # computed from the operands
        """Whether all operands authenticate."""
        return all(operand.authenticates for operand in self.operands)

    def schema(self) -> Mapping[str, Any] | None:
        schemas = self._schemas()
        return {"anyOf": schemas} if len(schemas) == len(self.operands) else None

    async def decide(self, c: Client, p: Packet) -> Verdict:
        failure: Exception | None = None
        for check, awaited in self._checks:
            try:
                verdict = await ask(check, awaited, c, p)
                if verdict is not False:
                    return verdict
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return False

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.operands))})"


class Not(_Compound):
    """Passes if the operand does not pass. Raises if the operand raises."""

    def as_guard(self) -> Filter:
        return self

    def schema(self) -> Mapping[str, Any] | None:
        schema = self.operands[0].schema()
        return None if schema is None else {"not": schema}

    async def decide(self, c: Client, p: Packet) -> bool:
        ((check, awaited),) = self._checks
        return False is await ask(check, awaited, c, p)

    def __repr__(self) -> str:
        return f"~{self.operands[0]!r}"
