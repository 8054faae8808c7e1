"""A command for AsyncAPY: ``asyncapy timings HOST PORT`` prints the timings of a server that has acme-timing."""

from __future__ import annotations

import click

from asyncapy_core.client import Client


@click.command()
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--encoding", default="json", show_default=True, help="The encoding of the request.")
def command(*, host: str, port: int, encoding: str) -> None:
    """Print the timings of the server at HOST and PORT."""
    with Client(tls=False, timeout=10, encoding=encoding) as client:
        client.connect(host, port)
        for name, numbers in sorted(client.request({"op": "timings"}).items()):
            click.echo(f"{name}: {numbers['calls']} calls, {numbers['seconds']} s")
