"""``asyncapy call``: send packets to a server and print the replies."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal

import click

from asyncapy_cli.output import echo, note, print_coloured
from asyncapy_core import defaults
from asyncapy_core.client import Client
from asyncapy_core.client.connecting import client_encodings
from asyncapy_core.client.failures import failure
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.errors import EncodeError, FailureReply, RemoteError, ServerDisconnected, UnknownCodec

FAILED, UNUSABLE, UNREACHABLE = 1, 2, 3
"""Exit statuses: an error reply; a payload that cannot be sent; no connection, or no reply."""

_VERSIONS: Final[dict[str, Literal[22, 23]]] = {"22": 22, "23": 23}


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in later releases of click only
    """``HOST:PORT``, with an IPv6 address in brackets."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, separator, port = str(value).rpartition(":")
        if not separator or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536 or not host:
            self.fail(f"{value!r} is not an address; write HOST:PORT, such as localhost:8081 or [::1]:8081", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


@click.command()
@click.argument("address", type=_Address(), metavar="HOST:PORT")
@click.argument("payload")
@click.option("--ziproto", is_flag=True, help="Use ZiProto instead of JSON.")
@click.option("--encoding", metavar="NAME", help="Use the encoding of this name, which a plugin brings.")
@click.option("--tls", is_flag=True, help="Use TLS, and verify the server's certificate.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="CA certificates to use instead of the system's; implies --tls.",
)
@click.option(
    "--header-size",
    type=click.IntRange(1, 8),
    default=defaults.HEADER_SIZE,
    show_default=True,
    help="Bytes of the Content-Length header, as set on the server.",
)
@click.option(
    "--byteorder",
    type=click.Choice(["big", "little"]),
    default=defaults.BYTEORDER,
    show_default=True,
    help="The byte order of the Content-Length header, as set on the server.",
)
@click.option("--timeout", type=float, default=defaults.TIMEOUT, show_default=True, help="Seconds to wait for a reply.")
@click.option(
    "--max-packet",
    type=click.IntRange(defaults.MIN_PACKET),
    default=defaults.MAX_REPLY,
    show_default=True,
    help="The largest Content-Length of a reply in bytes.",
)
@click.option("--raw", is_flag=True, help="Print replies as bytes, headers included; version 22 only.")
@click.option(
    "--version",
    type=click.Choice(["22", "23"]),
    default="22",
    show_default=True,
    help="The version of the protocol. In version 23, all answers to a packet are printed.",
)
def call(
    *,
    address: tuple[str, int],
    payload: str,
    ziproto: bool,
    encoding: str | None,
    tls: bool,
    ca_file: str | None,
    raw: bool,
    version: str,
    **settings: Any,
) -> None:
    """Send PAYLOAD, a JSON object, to a server and print the reply.

    With - as PAYLOAD, read one JSON object per line from standard input. The exit status is 0 if no reply is a failure,
    1 if one is, 2 if a payload cannot be sent, and 3 if there is no connection or no reply.
    """
    if ziproto and encoding not in (None, "ziproto"):
        raise click.UsageError(f"--ziproto and --encoding {encoding} exclude each other; leave one out")
    if raw and version != "22":
        raise click.UsageError("--raw prints packets of version 22; leave it or --version 23 out")
    settings["encoding"] = "ziproto" if ziproto else encoding or "json"
    failed = False
    try:
        with Client(tls=tls or ca_file is not None, ca_file=ca_file, version=_VERSIONS[version], **settings) as client:
            client.connect(*address)
            wire = (settings[name] for name in ("header_size", "byteorder", "max_packet"))
            replies = ReplyDecoder(client_encodings(None, *wire))
            for text in _payloads(payload):
                if version != "22":
                    for answer in _answers(client, text):
                        _print(answer)
                        failed |= _is_failure(answer)
                    continue
                client.send(text)
                reply = _receive_raw(client, replies) if raw else _receive(client)
                failed |= _is_failure(reply)
    except (UnknownCodec, EncodeError, TypeError, ValueError) as error:
        _complain(error, UNUSABLE)
    except RemoteError as error:
        _complain(error, UNREACHABLE)
    sys.exit(FAILED if failed else 0)


def _payloads(payload: str) -> Iterator[str | bytes]:
    """Yield the payload, or the lines of standard input, which are UTF-8 in any locale."""
    if payload != "-":
        yield payload
    elif sys.stdin is not None:
        yield from (line for line in sys.stdin.buffer if line.strip())


def _answers(client: Client, payload: str | bytes) -> Iterator[dict[str, Any]]:
    """Yield the answers to a packet of version 23; a failure is the last one."""
    try:
        yield from client.stream(payload)
    except FailureReply as error:
        yield {"status": "failure", "error": error.code, **error.fields}


def _receive(client: Client) -> dict[str, Any]:
    """Receive a reply and print it."""
    reply = client.receive()
    _print(reply)
    return reply


def _print(reply: dict[str, Any]) -> None:
    """Print a reply: coloured and indented on a terminal, on one line elsewhere."""
    if sys.stdout.isatty():
        print_coloured(json.dumps(reply, default=_text, indent=2, ensure_ascii=False))
    else:
        echo(json.dumps(reply, default=_text))


def _receive_raw(client: Client, replies: ReplyDecoder) -> dict[str, Any]:
    """Receive a reply and print its bytes, the header included."""
    data = client.receive_raw()
    if not data:
        raise ServerDisconnected("the server closed the connection without a reply")
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        echo(f"{start:08x}  {row.hex(' '):47}  {shown}")
    replies.feed(data)
    frame = replies.next_frame()
    assert frame is not None
    return replies.fields(frame)


def _is_failure(reply: dict[str, Any]) -> bool:
    """Return whether a reply is a failure, and print the meaning of its code."""
    failed = failure(reply)
    if failed is not None:
        note(f"asyncapy: {failed}")
    return failed is not None


def _text(value: object) -> str:
    """Return bytes in base64, as the JSON codec sends them."""
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


def _complain(error: Exception, status: int) -> None:
    note(f"asyncapy: {error}")
    sys.exit(status)
