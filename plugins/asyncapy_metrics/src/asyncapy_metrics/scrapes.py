"""`serve_scrapes`: the port for scrapes, and the connections on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.errors import BindError
from asyncapy_metrics.exposition import CONTENT_TYPE, Exposition
from asyncapy_metrics.http import Answer, Respond, answer

if TYPE_CHECKING:
    from asyncapy_core import Server

MAX_CONNECTIONS: Final = 16
"""The most connections; a further one takes the place of the oldest, so that silent peers keep out no scrape."""

SECONDS: Final = 10.0
"""The time for a whole connection."""


async def serve_scrapes(
    server: Server, address: str, port: int, path: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer scrapes of the metrics of a server until this is cancelled.

    Args:
        server: the server.
        address: the host name or the IP address to listen on.
        port: the TCP port; 0 picks a free one, which is logged.
        path: the path of the metrics.
        task_status: called when the port is open.

    Raises:
        BindError: the address or the port is not available.
        OSError: the process has no file left for a connection.
    """
    listeners = await _listen(address, port)
    try:
        for listener in listeners:
            server.log.info("{Server} Metrics on http://%s%s", _endpoint(listener), path)
        async with trio.open_nursery() as nursery:
            connections = _Connections(nursery, _responding(Exposition(server), path))
            for listener in listeners:
                nursery.start_soon(connections.accept, listener)
            task_status.started()
    finally:
        for listener in listeners:
            listener.socket.close()


async def _listen(address: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=address)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise BindError(
            f"cannot listen on {address}:{port}: {reason}; give the plugin 'metrics' another port or address"
        ) from error


def _endpoint(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _responding(exposition: Exposition, path: str) -> Respond:
    """Return the function that answers requests."""

    async def respond(method: str, asked: str) -> Answer:
        if asked != path:
            return Answer(404, f"The metrics are at {path}\n".encode())
        if method not in {"GET", "HEAD"}:
            return Answer(405, b"Use GET or HEAD.\n", headers=(("Allow", "GET, HEAD"),))
        return Answer(200, await exposition.text(), CONTENT_TYPE)

    return respond


class _Connections:
    """The open connections, the oldest first.

    Args:
        nursery: runs them.
        respond: answers their requests.
    """

    def __init__(self, nursery: trio.Nursery, respond: Respond) -> None:
        self._nursery = nursery
        self._respond = respond
        self._scopes: dict[trio.SocketStream, trio.CancelScope] = {}

    async def accept(self, listener: trio.SocketListener) -> None:
        """Accept connections until this is cancelled."""
        while True:
            stream = await listener.accept()
            if len(self._scopes) >= MAX_CONNECTIONS:
                self._scopes.pop(next(iter(self._scopes))).cancel()
            scope = self._scopes[stream] = trio.CancelScope(deadline=trio.current_time() + SECONDS)
            self._nursery.start_soon(self._run, stream, scope)

    async def _run(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await answer(stream, self._respond)
        except trio.BrokenResourceError:
            pass  # the peer has left
        finally:
            self._scopes.pop(stream, None)
            stream.socket.close()
