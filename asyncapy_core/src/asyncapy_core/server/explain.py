"""Explains why a packet does or does not reach a handler: checks all filters, and calls no handler.

A packet is a mapping, or the bytes that a client sends, of either version of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from asyncapy_core.errors import Failure, MalformedPacket
from asyncapy_core.foreign.inspection import class_name, is_a
from asyncapy_core.logs import escape_for_log
from asyncapy_core.protocol.detection import DetectingDecoder
from asyncapy_core.protocol.encoding import EncodingRegistry
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION, WireFormat
from asyncapy_core.routing import filter as filters
from asyncapy_core.routing.filter import ask, is_async
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
        answer: the code of the `Failure` with which a filter answers the packet, so that no later handler gets it; or
            nothing.
    """

    handler: str
    group: int | None
    checks: tuple[Check, ...]
    passes: bool
    runs: bool
    answer: str = ""

    @property
    def guard(self) -> bool:
        """Whether this is a guard."""
        return self.group is None


@dataclass(frozen=True, slots=True)
class SentPacket:
    """One packet as a client sends it.

    Attributes:
        version: the version of the protocol, 22 or 23.
        kind: the kind, in version 22 that of a request.
        number: the number, in version 22 always 0.
        encoding: the name of the codec; nothing without fields.
        fields: the fields; None if the kind has none.
    """

    version: int
    kind: Kind
    number: int = 0
    encoding: str = ""
    fields: dict[str, Any] | None = None


def decode_packet(server: Server, data: bytes) -> SentPacket | None:
    """Decode the bytes of one packet as a server does at the beginning of a session.

    Args:
        server: the server; it need not be running.
        data: the bytes, perhaps those of a JSON object.

    Returns:
        The packet, or None if the bytes do not begin with a header that has version 22 or 23. JSON text never does.

    Raises:
        ProtocolError: the server would answer the packet with this error.
        ValueError: the bytes are not one packet.
    """
    config = server.config
    if data[config.header_size : config.header_size + 1] not in (
        bytes((PROTOCOL_VERSION,)),
        bytes((NUMBERED_VERSION,)),
    ):
        return None
    wire = WireFormat(config.header_size, config.byteorder, config.max_packet)
    codecs = server.plugins.codecs(server._options)  # noqa: SLF001  # nothing else needs them without a run
    encodings = EncodingRegistry(codecs, wire).by_id
    decoder = DetectingDecoder(wire, encodings)
    decoder.feed(data)
    frames = [(Kind.REQUEST, 0, wire_id, payload) for wire_id, payload in decoder.frames(2)]
    rest = decoder.buffered
    if decoder.version == NUMBERED_VERSION:
        numbered = decoder.numbered()
        frames = numbered.frames(2)
        rest = numbered.buffered
    if rest or len(frames) > 1:
        raise ValueError(f"these {len(data)} bytes are not one packet; explain takes one whole packet at a time")
    if not frames:
        raise ValueError("servers skip a packet of this kind")
    kind, number, wire_id, payload = frames[0]
    version = NUMBERED_VERSION if decoder.version == NUMBERED_VERSION else PROTOCOL_VERSION
    if kind is not Kind.REQUEST:
        return SentPacket(version, kind, number)
    encoding = encodings.get(wire_id)
    if encoding is None:  # the encoding of an empty payload is not checked
        raise MalformedPacket("the packet has no payload; its kind needs one", number=number)
    try:
        packet = encoding.unpack_numbered(payload)
    except MalformedPacket as error:
        raise MalformedPacket(*error.args, number=number) from error
    return SentPacket(version, kind, number, encoding.name, packet.fields)


class _Silent(Detached):
    """A client to which a filter cannot send."""

    def post(self, packet: Packet) -> NoReturn:
        raise RuntimeError("a filter sent a packet; a filter may only return whether a packet passes")


async def explain_packet(
    server: Server, fields: Any, address: str = "127.0.0.1", encoding: str = "json"
) -> list[Verdict]:
    """Check a packet with all guards and filters of a server, the guards first, then the groups in their order.

    Args:
        server: the server; it need not be running.
        fields: a mapping, or a JSON object as text.
        address: the IP address of the sender.
        encoding: the encoding of the packet.

    Raises:
        ValueError: the text is not a JSON object.
    """
    detached = _Silent(address, server=server, encoding=encoding)
    client, packet = detached.client, detached.packet(fields)
    verdicts: list[Verdict] = []
    over = False  # a guard has refused the packet, or a filter has answered it
    for guard in server.guards:
        checks, found, answer = await _check_all(guard, _beside(client) if over else client, packet)
        passes = found is not None
        verdicts.append(Verdict(checks[0].filter, None, checks, passes, runs=False, answer="" if over else answer))
        over = over or not passes
        packet.context.update(found or {})
    for group, handlers in server.handlers.items():
        taken = over
        for handler in handlers:
            checks, found, answer = await _check_all(handler, _beside(client) if taken else client, packet)
            passes, answer = found is not None, "" if taken else answer
            verdicts.append(Verdict(handler.name, group, checks, passes, runs=passes and not taken, answer=answer))
            if not taken:
                packet.context.update(found or {})
            over = over or bool(answer)
            taken = taken or passes or over
    return verdicts


def _beside(client: Client) -> Client:
    """Return a client for filters that a server would not ask: if they log a session in, it is another one."""
    other = _Silent(client.address, server=client.server).client
    other.session.memo.update(client.session.memo)
    return other


async def _check_all(
    handler: Handler, client: Client, packet: Packet
) -> tuple[tuple[Check, ...], Mapping[str, Any] | None, str]:
    """Check all filters of a handler, also those after one that does not pass.

    Returns:
        The results; the findings of the filters, or None if one does not pass; and the code of the `Failure` of the
        first that does not, or nothing.
    """
    checks: list[Check] = []
    found: dict[str, Any] | None = {}
    answer = ""
    for filter in handler.filters:
        verdict: filters.Verdict = False
        reason = ""
        try:
            verdict = await ask(filter.check, is_async(filter), client, packet)
        except Exception as error:
            reason = f"{class_name(error)}: {escape_for_log(error)}"
            if found is not None and is_a(error, Failure):
                answer = error.code
        checks.append(Check(repr(filter), verdict is not False, reason))
        if verdict is False:
            found, client = None, _beside(client)
        elif found is not None and verdict is not True:
            found.update(verdict)
    return tuple(checks), found, answer
