"""``asyncapy explain``: why a packet reaches a handler or not (FAQ 1.3.2 of the documentation)."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any, Final

import click
import trio

from asyncapy_cli.output import echo, note
from asyncapy_cli.plugins_dir import with_plugins_dir
from asyncapy_cli.setups import unseen
from asyncapy_cli.target import Target
from asyncapy_core import Server
from asyncapy_core.addresses import peer_address
from asyncapy_core.errors import AsyncAPYError, ProtocolError
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.wire import PROTOCOL_VERSION
from asyncapy_core.server.explain import SentPacket, Verdict, decode_packet, explain_packet

_MEANINGS: Final = {
    Kind.CANCEL: "the server cancels the request with this number, if it is in flight",
    Kind.PING: "the server answers with a PONG",
    Kind.PONG: "it is the answer to a PING of the server",
}


@click.command()
@click.argument("target")
@click.argument("packet", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@with_plugins_dir
@click.option("--from", "address", default="127.0.0.1", show_default=True, help="The IP address of the client.")
@click.option("--setup", "with_setup", is_flag=True, help="Set up plugins and the server first; no port is opened.")
def explain(*, target: str, packet: str, address: str, with_setup: bool) -> None:
    """Show which handlers of TARGET a packet would reach, and which filters reject it for the others.

    TARGET is module:server or path/to/file.py:server. PACKET is a file with a JSON object, or with the bytes of one
    packet of version 22 or 23, as a client sends it; - is standard input. The program runs until it would start the
    server, and no handler is called. Handlers that a setup registers are seen with --setup only, which also runs the
    shutdown. The exit status is 1 if no handler would run.
    """
    data = sys.stdin.buffer.read() if packet == "-" else Path(packet).read_bytes()
    server = Target(target).load()
    fields: bytes | dict[str, Any] = data
    encoding = "json"
    try:
        ipaddress.ip_address(address)
        if (sent := decode_packet(server, data)) is not None:
            echo(_title(sent))
            if sent.fields is None:
                echo(f"No handler gets it: {_MEANINGS[sent.kind]}.")
                sys.exit(1)
            fields, encoding = sent.fields, sent.encoding
        run = _explain_set_up if with_setup else explain_packet
        verdicts = trio.run(run, server, fields, peer_address(address), encoding)
    except ProtocolError as error:
        raise click.ClickException(f"the server would answer with {error.code.value}: {error}") from error
    except AsyncAPYError:
        raise
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    missing = "" if with_setup else unseen(server)
    if missing:
        note(missing)
    refused = any(verdict.guard and not verdict.passes for verdict in verdicts)
    answers = [verdict.answer for verdict in verdicts if verdict.answer]
    hindrance = "an earlier handler of the group runs"
    for verdict in verdicts:
        echo(_line(verdict, "a guard refuses it" if refused else hindrance))
        if verdict.answer:
            hindrance = "a filter has answered"
    running = [verdict.handler for verdict in verdicts if verdict.runs]
    if running:
        echo(f"The packet would reach {', then '.join(running)}.")
        return
    known = " that is registered before the start" if missing else ""
    code = answers[0] if answers else "ERR_NO_HANDLER"
    echo(f"A guard refuses it: no handler would run ({code})." if refused else f"No handler{known} would run ({code}).")
    sys.exit(1)


def _title(sent: SentPacket) -> str:
    """Return a line about a packet as it was sent."""
    if sent.version == PROTOCOL_VERSION:
        return f"version {sent.version}: a packet in {sent.encoding}"
    return f"version {sent.version}: {sent.kind.name} {sent.number}{sent.encoding and f' in {sent.encoding}'}"


async def _explain_set_up(server: Server, fields: bytes | dict[str, Any], address: str, encoding: str) -> list[Verdict]:
    """Explain a packet while the server serves without a port."""
    from asyncapy_core.testing import serving  # noqa: PLC0415  # it imports the clients

    async with serving(server):
        return await explain_packet(server, fields, address, encoding)


def _line(verdict: Verdict, hindrance: str) -> str:
    where = "guard" if verdict.guard else f"group {verdict.group}"
    if verdict.runs:
        state = "runs"
    elif verdict.passes:
        state = "passes" if verdict.guard else f"would match, but {hindrance}"
    else:
        state = f"answers with {verdict.answer}" if verdict.answer else "does not match"
    lines = [f"{where}: {verdict.handler} {state}"]
    for check in verdict.checks:
        reason = f" ({check.reason})" if check.reason else ""
        lines.append(f"    {'passed' if check.passed else 'FAILED'}  {check.filter}{reason}")
    return "\n".join(lines)
