"""Explains why a packet does or does not reach a handler: checks all filters, and calls no handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from asyncapy_core.errors import Failure
from asyncapy_core.logs import escape_for_log
from asyncapy_core.routing.filter import check
from asyncapy_core.routing.handler import Handler
from asyncapy_core.server.detached import Detached

if TYPE_CHECKING:
    from asyncapy_core.protocol.packet import Packet
    from asyncapy_core.server.server import Server
    from asyncapy_core.session import Client


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one filter.

    Attributes:
        filter: the repr of the filter.
        passed: whether the packet passes.
        reason: the exception that the filter raised, or nothing.
    """

    filter: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result at one handler or guard.

    Attributes:
        handler: the name of the handler, or the repr of the guard.
        group: the group of the handler; None for a guard.
        checks: the results of the filters.
        passes: whether all filters pass.
        runs: whether the handler is called: the first of its group that passes, if all guards pass.
    """

    handler: str
    group: int | None
    checks: tuple[Check, ...]
    passes: bool
    runs: bool

    @property
    def guard(self) -> bool:
        """Whether this is a guard."""
        return self.group is None


class _Silent(Detached):
    """A client to which a filter cannot send."""

    def post(self, packet: Packet) -> NoReturn:
        raise RuntimeError("a filter sent a packet; a filter may only return whether a packet passes")


async def explain_packet(server: Server, fields: Any, address: str = "127.0.0.1") -> list[Verdict]:
    """Check a packet with all guards and filters of a server, the guards first, then the groups in their order.

    Args:
        server: the server; it need not be running.
        fields: a mapping, or a JSON object as text.
        address: the IP address of the sender.

    Raises:
        ValueError: the text is not a JSON object.
    """
    detached = _Silent(address, server=server)
    client, packet = detached.client, detached.packet(fields)
    verdicts = []
    answered = False  # by a filter that raised a Failure
    for guard in server.guards:
        checks, failed = await _checks(guard, client, packet)
        answered = answered or failed
        verdicts.append(Verdict(checks[0].filter, None, checks, all(each.passed for each in checks), runs=False))
    refused = not all(verdict.passes for verdict in verdicts)
    for group, handlers in server.handlers.items():
        taken = refused or answered
        for handler in handlers:
            checks, failed = await _checks(handler, client, packet)
            passes = all(each.passed for each in checks)
            verdicts.append(Verdict(handler.name, group, checks, passes, runs=passes and not taken))
            answered = answered or (failed and not taken)
            taken = taken or passes or answered
    return verdicts


async def _checks(handler: Handler, client: Client, packet: Packet) -> tuple[tuple[Check, ...], bool]:
    """Check all filters of a handler; return the results, and whether a `Failure` is the answer."""
    checks, passes, answered = list[Check](), True, False
    for filter in handler.filters:
        try:
            checks.append(Check(repr(filter), await check(filter, client, packet)))
        except Exception as error:
            answered = answered or (passes and isinstance(error, Failure))
            checks.append(Check(repr(filter), passed=False, reason=f"{type(error).__name__}: {escape_for_log(error)}"))
        passes = passes and checks[-1].passed
    return tuple(checks), answered
