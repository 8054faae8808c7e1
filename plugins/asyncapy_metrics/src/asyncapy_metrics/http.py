"""`answer`: one HTTP request on one connection, with limits, by h11. The connection ends with its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11
import trio

MAX_HEAD: Final = 16 * 1024
"""The most bytes of the head of a request."""

READ: Final = 4096

LINGER_SECONDS: Final = 1.0
"""How long a connection is read after the answer: a close with unread bytes would reset it, and destroy the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: the status code.
        body: the body.
        content_type: its type.
        headers: further headers.
    """

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Respond = Callable[[str, str], Awaitable[Answer]]
"""``async (method, path)``: returns the answer to a request. The path is without its query."""


async def answer(stream: trio.SocketStream, respond: Respond) -> None:
    """Read a request, send its answer, and read until the peer closes the connection.

    Args:
        stream: the connection; it is not closed.
        respond: called if the request is valid.

    Raises:
        trio.BrokenResourceError: the peer has left.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        request = await _receive(stream, connection)
    except h11.RemoteProtocolError as error:
        await _send(stream, connection, Answer(error.error_status_hint, f"{error}\n".encode()))
    else:
        if request is None:
            return
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        await _send(
            stream, connection, await respond(method, target.partition("?")[0]), has_body=request.method != b"HEAD"
        )
    with trio.move_on_after(LINGER_SECONDS):
        await stream.send_eof()
        while await stream.receive_some(READ):
            pass


async def _receive(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """Return the request, or None if the peer has closed the connection without one.

    Raises:
        h11.RemoteProtocolError: the request is invalid or too long.
    """
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(READ))
    return event if isinstance(event, h11.Request) else None


async def _send(
    stream: trio.SocketStream, connection: h11.Connection, response: Answer, *, has_body: bool = True
) -> None:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
        *response.headers,
    ]
    reason = HTTPStatus(response.status).phrase
    events: list[h11.Event] = [
        h11.Response(status_code=response.status, headers=headers, reason=reason),
        *([h11.Data(response.body)] if has_body else []),
        h11.EndOfMessage(),
    ]
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
