"""Why a packet does, or does not, reach a handler: every filter of every handler asked, and no handler called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

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
    """What one filter made of the packet.

    Attributes:
        filter: its repr.
        reason: the exception that it raised, or nothing.
    """

    filter: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the packet at one handler, or one guard.

    Attributes:
        passes: whether all filters pass.
        runs: whether it is the handler of its group that is called, which none is where a guard refuses the packet.
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
    """A client that nothing can be sent to."""

    def post(self, packet: Packet) -> NoReturn:
        raise RuntimeError("a filter sent something; filters only say whether a packet passes")


async def explain_packet(server: Server, fields: Any, address: str = "127.0.0.1") -> list[Verdict]:
    """Ask all guards and filters of a server for a packet, guards first, then groups in their order.

    Args:
        server: where the handlers are registered; it need not serve.
        fields: a mapping, or a JSON object as text.
        address: the IP address that the packet is from.

    Raises:
        ValueError: the text is no JSON object.
    """
    detached = _Silent(address, server=server)
    client, packet = detached.client, detached.packet(fields)
    verdicts = []
    for guard in server.guards:
        checks = await _ask(guard, client, packet)
        verdicts.append(Verdict(checks[0].filter, None, checks, all(each.passed for each in checks), runs=False))
    refused = not all(verdict.passes for verdict in verdicts)
    for group, handlers in server.handlers.items():
        taken = refused
        for handler in handlers:
            checks = await _ask(handler, client, packet)
            passes = all(each.passed for each in checks)
            verdicts.append(Verdict(handler.name, group, checks, passes, runs=passes and not taken))
            taken = taken or passes
    return verdicts


async def _ask(handler: Handler, client: Client, packet: Packet) -> tuple[Check, ...]:
    checks = []
    for filter in handler.filters:
        try:
            checks.append(Check(repr(filter), await check(filter, client, packet)))
        except Exception as error:
            checks.append(Check(repr(filter), passed=False, reason=f"{type(error).__name__}: {escape_for_log(error)}"))
    return tuple(checks)
