"""``asyncapy explain``: why a packet reaches a handler or not (FAQ 1.3.2 of the documentation)."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

import click
import trio

from asyncapy_cli.target import Target
from asyncapy_core.addresses import peer_address
from asyncapy_core.server.explain import Verdict, explain_packet


@click.command()
@click.argument("target")
@click.argument("packet", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--from", "address", default="127.0.0.1", show_default=True, help="The IP address of the client.")
def explain(*, target: str, packet: str, address: str) -> None:
    """Show which handlers of TARGET a packet would reach, and which filters reject it for the others.

    TARGET is module:server or path/to/file.py:server. PACKET is a file with a JSON object, or - for standard input. The
    program runs until it would start the server, and no handler is called. The exit status is 1 if no handler would
    run.
    """
    fields = sys.stdin.buffer.read() if packet == "-" else Path(packet).read_bytes()
    server = Target(target).load()
    try:
        ipaddress.ip_address(address)
        verdicts = trio.run(explain_packet, server, fields, peer_address(address))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    refused = any(verdict.guard and not verdict.passes for verdict in verdicts)
    for verdict in verdicts:
        click.echo(_line(verdict, "a guard refuses it" if refused else "an earlier handler of the group runs"))
    running = [verdict.handler for verdict in verdicts if verdict.runs]
    if running:
        click.echo(f"The packet would reach {', then '.join(running)}.")
        return
    click.echo("A guard refuses it: no handler would run." if refused else "No handler would run (ERR_NO_HANDLER).")
    sys.exit(1)


def _line(verdict: Verdict, hindrance: str) -> str:
    where = "guard" if verdict.guard else f"group {verdict.group}"
    if verdict.runs:
        state = "runs"
    elif verdict.passes:
        state = "passes" if verdict.guard else f"would match, but {hindrance}"
    else:
        state = "does not match"
    lines = [f"{where}: {verdict.handler} {state}"]
    for check in verdict.checks:
        reason = f" ({check.reason})" if check.reason else ""
        lines.append(f"    {'passed' if check.passed else 'FAILED'}  {check.filter}{reason}")
    return "\n".join(lines)
