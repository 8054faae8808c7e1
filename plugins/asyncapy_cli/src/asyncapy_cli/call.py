"""``asyncapy call``: send packets to a server and print what comes back."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from asyncapy_cli.output import print_coloured
from asyncapy_core.client import Client
from asyncapy_core.client.connecting import client_encodings
from asyncapy_core.client.failures import failure
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.errors import EncodeError, RemoteError, ServerDisconnected, UnknownCodec

FAILED, UNUSABLE, UNREACHABLE = 1, 2, 3
"""Exit statuses: an error reply; a payload that cannot be sent; no connection, or no reply."""


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in later releases of click only
    """``HOST:PORT``, an IPv6 address in brackets."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, separator, port = str(value).rpartition(":")
        if not separator or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536 or not host:
            self.fail(f"{value!r} is no HOST:PORT, such as localhost:8081 or [::1]:8081", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


@click.command()
@click.argument("address", type=_Address(), metavar="HOST:PORT")
@click.argument("payload")
@click.option("--ziproto", "encoding", flag_value="ziproto", help="Speak ZiProto rather than JSON.")
@click.option("--encoding", "encoding", default="json", help="Speak this encoding, which a plugin brings.")
@click.option("--tls", is_flag=True, help="Speak TLS, and verify the server's certificate.")
@click.option(
    "--ca-file", type=click.Path(exists=True, dir_okay=False), help="CA certificates, instead of the system's."
)
@click.option("--header-size", type=click.IntRange(1, 8), default=4, show_default=True, help="As the server has it.")
@click.option("--byteorder", type=click.Choice(["big", "little"]), default="big", show_default=True, help="Likewise.")
@click.option("--timeout", type=float, default=60, show_default=True, help="Seconds to wait for a reply.")
@click.option("--raw", is_flag=True, help="Print replies as bytes, headers included.")
def call(*, address: tuple[str, int], payload: str, raw: bool, tls: bool, ca_file: str | None, **settings: Any) -> None:
    """Send PAYLOAD, a JSON object, to a server and print its reply; - reads packets from standard input, one a line.

    The status is 0 after replies, 1 when one was a failure, 2 for a payload that cannot be sent, and 3 without a
    connection or a reply.
    """
    failed = False
    try:
        with Client(tls=tls or ca_file is not None, ca_file=ca_file, **settings) as client:
            client.connect(*address)
            replies = ReplyDecoder(client_encodings(None, settings["header_size"], settings["byteorder"], None))
            for text in _payloads(payload):
                client.send(text)
                reply = _receive_raw(client, replies) if raw else _receive(client)
                failed |= _is_failure(reply)
    except (UnknownCodec, EncodeError, TypeError, ValueError) as error:
        _complain(error, UNUSABLE)
    except RemoteError as error:
        _complain(error, UNREACHABLE)
    sys.exit(FAILED if failed else 0)


def _payloads(payload: str) -> Iterator[str]:
    if payload != "-":
        yield payload
        return
    yield from (line for line in sys.stdin if line.strip())


def _receive(client: Client) -> dict[str, Any]:
    """Print a reply: on several coloured lines on a terminal, on one line elsewhere."""
    reply = client.receive()
    if sys.stdout.isatty():
        print_coloured(json.dumps(reply, default=_text, indent=2, ensure_ascii=False))
    else:
        click.echo(json.dumps(reply, default=_text))
    return reply


def _receive_raw(client: Client, replies: ReplyDecoder) -> dict[str, Any]:
    """Print a reply as the bytes that came."""
    data = client.receive_raw()
    if not data:
        raise ServerDisconnected("the server closed the connection without a reply")
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        click.echo(f"{start:08x}  {row.hex(' '):47}  {shown}")
    replies.feed(data)
    frame = replies.next_frame()
    assert frame is not None
    return replies.fields(frame)


def _is_failure(reply: dict[str, Any]) -> bool:
    """Say whether a reply is a failure of the server's own making, and what it means."""
    failed = failure(reply)
    if failed is not None:
        click.echo(f"asyncapy: {failed}", err=True)
    return failed is not None


def _text(value: object) -> str:
    """Return what JSON does not have, bytes, in base64, as the JSON codec does."""
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


def _complain(error: Exception, status: int) -> None:
    click.echo(f"asyncapy: {error}", err=True)
    sys.exit(status)
