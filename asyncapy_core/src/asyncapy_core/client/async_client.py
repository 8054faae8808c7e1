"""`AsyncClient`: requests of many trio tasks over one connection, in version 22 or 23 of the protocol.

`OrderedRequests` and `NumberedRequests` do the I/O of these versions.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import trio

from asyncapy_core import defaults
from asyncapy_core.client.calls import MaybeNone
from asyncapy_core.client.connecting import TlsOptions, check_hostname, check_port, check_timeout, client_encodings
from asyncapy_core.client.failures import failure
from asyncapy_core.client.numbered import NumberedRequests
from asyncapy_core.client.ordered import OrderedRequests
from asyncapy_core.client.streams import Connector
from asyncapy_core.client.typed_calls import TypedCalls
from asyncapy_core.client.versions import ServerVersion
from asyncapy_core.errors import NotConnected, RemoteError, ServerDisconnected, VersionTooOld
from asyncapy_core.event_loops import REMEDY, require_trio
from asyncapy_core.plugins.manager import PluginManager
from asyncapy_core.protocol.kinds import Kind
from asyncapy_core.protocol.packet import parse_fields
from asyncapy_core.protocol.wire import NUMBERED_VERSION, PROTOCOL_VERSION, ByteOrder

if TYPE_CHECKING:
    import ssl

    from asyncapy_core.client.events import EventStream
    from asyncapy_core.client.streaming import ReplyStream

ELSEWHERE: Final = f"{REMEDY}; or call the synchronous Client in a thread, with asyncio.to_thread"
"""The remedy for programs with another event loop."""

MAX_REPEATS: Final = 3
"""How often an idempotent request is sent again; a request that makes each server fail must end."""


class AsyncClient(TypedCalls):
    """A client for any number of tasks: ``async with AsyncClient(host, port) as client``, then `request`.

    Requests are sent in the order in which they are made, without waiting for earlier replies. When the connection is
    lost, requests that were sent fail, as the server may or may not have handled them. For the others, the client
    connects again, at growing intervals.

    In version 22, replies are matched by their order alone (docs/protocol.md, "A session"), so the server's handlers
    must answer each packet exactly once. A connection is given up if a request on it is not answered in time or is
    cancelled, or if an unrequested packet arrives: the requests after it fail, and later ones use a new connection. If
    the server closes an idle connection with ERR_TIMED_OUT before it has read a request, the request is sent again,
    once.

    In version 23, answers are matched by numbers. A request that is not answered in time or is cancelled costs nothing
    else, and the server stops its handler. Requests that the server has not begun when it leaves are sent again.

    Args:
        hostname: the host name or IP address of the server.
        port: its TCP port.
        byteorder: the byte order of Content-Length, ``"big"`` or ``"little"``; the same as the server's.
        header_size: the size of Content-Length in bytes, 1 to 8; the same as the server's.
        tls: use TLS, and verify the server's certificate and name.
        encoding: the name of an installed codec, the encoding of the session.
        timeout: the most seconds for a request, including the connection; None for no limit.
        ssl_context: a TLS context to use instead of one with the system's CA certificates.
        ca_file: a PEM file of CA certificates to use instead of the system's.
        max_packet: the largest Content-Length of a reply accepted, in bytes, 16 MiB by default; None for all that the
            header can express. Memory is allocated for bytes that have arrived, not for those announced.
        raise_failures: raise a `FailureReply` for an error reply of the server.
        plugins: the source of codecs; the installed plugins by default.
        version: the version of the protocol: 22, or 23 for answers in any order, streams and events. With None, the
            client asks the server with a PING, and remembers the result for an hour.
        open_stream: opens a stream to the server, instead of TCP to ``hostname`` and ``port``; for example
            ``functools.partial(trio.open_unix_socket, path)``.

    Raises:
        UnknownCodec: no codec has the name ``encoding``.
        TypeError, ValueError: another argument is wrong, or a TLS option is given with ``tls=False``.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        *,
        byteorder: ByteOrder = defaults.BYTEORDER,
        header_size: int = defaults.HEADER_SIZE,
        tls: bool = True,
        encoding: str = "json",
        timeout: float | None = defaults.TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        max_packet: int | None = defaults.MAX_REPLY,
        raise_failures: bool = False,
        plugins: PluginManager | None = None,
        version: Literal[22, 23] | None = 22,
        open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        check_hostname(hostname)
        if open_stream is None:
            check_port(port)
            open_stream = functools.partial(trio.open_tcp_stream, hostname, port)
        tls_options = TlsOptions(tls, ssl_context, ca_file)
        check_timeout(timeout)
        self._encodings = client_encodings(plugins, header_size, byteorder, max_packet)
        self._encoding = self._encodings.by_name(encoding)
        self._connector = Connector(open_stream, tls_options, hostname, port, timeout)
        self._version = ServerVersion(version, trio.current_time)
        self._fixed = version
        self._ordered = OrderedRequests(self._connector, self._encodings)
        self._numbered = NumberedRequests(self._connector, self._encodings, self._version)
        self.hostname = hostname
        self.port = port
        self.encoding = encoding
        self.raise_failures = raise_failures
        self._stack: AsyncExitStack | None = None
        self._open = False

    @property
    def timeout(self) -> float | None:
        """The most seconds for a request, as given."""
        return self._connector.timeout

    @timeout.setter
    def timeout(self, timeout: float | None) -> None:
        check_timeout(timeout)
        self._connector.timeout = timeout

    @property
    def pending(self) -> int:
        """The number of requests without a reply."""
        return len(self._ordered) + len(self._numbered)

    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # a late reply raises an exception of its own
        idempotent: bool = False,
    ) -> dict[str, Any] | MaybeNone:
        """Send a packet and return the fields of its reply.

        Args:
            payload: the fields, or a JSON object as text.
            timeout: the most seconds for this request; the client's ``timeout`` by default.
            idempotent: the request may be handled more than once: where `ServerDisconnected` would be raised, it is
                sent again, at most three times, within the same time.

        Returns:
            The fields of the reply; in version 23 of the last answer, or None if the handler has sent no answer.

        Raises:
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
            ReplyTimeout: no whole reply came in time. In version 22, the connection is given up.
            ServerDisconnected: the connection was lost, given up or closed after the request was sent; the server may
                or may not have handled it.
            NotConnected: the request was not handled: there was no connection in time, the server accepted no more
                data, or the client is not open.
            FailureReply: the reply is an error reply, and ``raise_failures`` is set.
            RemoteError: the certificate of the server is not trusted, or the server sent an invalid reply.
        """
        seconds = self._begin(timeout)
        fields = parse_fields(payload)
        deadline = math.inf if seconds is None else trio.current_time() + seconds
        lost: ServerDisconnected | None = None
        for repeats in range(MAX_REPEATS if idempotent else 0, -1, -1):
            try:
                answer = await self._ask(fields, seconds, deadline)
                break
            except ServerDisconnected as error:
                if not (repeats and self._open and deadline > trio.current_time()):
                    raise
                lost, seconds = error, remaining(deadline)
            except NotConnected:
                if lost is not None:  # an earlier attempt may have been handled
                    raise lost from None
                raise
        if answer is not None and self.raise_failures and (failed := failure(answer)) is not None:
            raise failed
        return answer

    def stream(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,
    ) -> ReplyStream:
        """Send a packet, and iterate over all its answers: ``async for part in client.stream({…})``; version 23 only.

        The packet is sent when the loop begins. A loop that is left early cancels the request. At most 10,000 answers,
        or ``max_packet`` bytes of them, are held for a loop that takes them slowly. Then the client reads nothing more
        until half of them are taken; after 5 seconds, the request is cancelled.

        Args:
            payload: the fields, or a JSON object as text.
            timeout: the most seconds until the first answer, and from one answer to the next; the client's ``timeout``
                by default.

        Returns:
            An asynchronous iterator over the fields of the answers, which raises:

            - `StreamOverflow`: the answers were not taken quickly enough; raised behind those that are held.
            - `FailureReply`: the last answer is a failure.
            - the other exceptions of `request`.

        Raises:
            VersionTooOld: the connection has version 22. For ``version=None``, the loop may raise it.
            NotConnected: the client is not open.
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
        """
        seconds = self._begin(timeout)
        self._require_numbered("stream()")
        return self._numbered.stream(*self._packed(parse_fields(payload)), seconds)

    def events(self) -> EventStream:
        """Iterate over the packets that the server pushes: ``async for event in client.events()``; version 23 only.

        Events are received from this call on, and the client keeps a connection for them. At most 10,000 events, or
        ``max_packet`` bytes of them, are held for a loop that takes them slowly; then the oldest ones are dropped, and
        ``lost`` of the result counts them.

        Returns:
            An asynchronous iterator over the fields of the events. It raises `ServerDisconnected` at the end of the
            session, as events may be missing: call `events` again, and subscribe again if the server requires it.

        Raises:
            VersionTooOld: the connection has version 22. For ``version=None``, the loop may raise it.
            NotConnected: the client is not open.
        """
        self._begin(None)
        self._require_numbered("events()")
        return self._numbered.events()

    async def __aenter__(self) -> Self:
        require_trio("AsyncClient", ELSEWHERE)
        if self._stack is not None:
            raise RemoteError("this client is open already; make another for another connection")
        async with AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(self._keep_connected)
            stack.callback(nursery.cancel_scope.cancel)
            self._stack = stack.pop_all()
            self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            self._close()
            await stack.aclose()

    def _close(self) -> None:
        """Refuse further requests, and fail those that wait."""
        self._open = False
        self._ordered.close()
        self._numbered.close()

    async def _keep_connected(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                if self._fixed != NUMBERED_VERSION:
                    nursery.start_soon(self._ordered.run)
                if self._fixed != PROTOCOL_VERSION:
                    nursery.start_soon(self._numbered.run)
        finally:
            self._close()

    def _begin(self, timeout: float | None) -> float | None:
        """Return the timeout of a request.

        Raises:
            NotConnected: the client is not open.
            ValueError: the timeout is out of range.
        """
        require_trio("AsyncClient", ELSEWHERE)
        if not self._open:
            raise NotConnected(
                "this client is not open, or was closed; use it within 'async with AsyncClient(...) as client:'"
            )
        seconds = self.timeout if timeout is None else timeout
        check_timeout(seconds)
        return seconds

    def _require_numbered(self, name: str) -> None:
        if self._version.known == PROTOCOL_VERSION:
            raise VersionTooOld(f"{name} needs version 23 of the protocol, and this connection has version 22")

    async def _ask(self, fields: dict[str, Any], seconds: float | None, deadline: float) -> dict[str, Any] | None:
        """Send a request in the version of the server, which the first one finds out."""
        if self._version.known != PROTOCOL_VERSION:
            try:
                return await self._numbered.request(*self._packed(fields), seconds)
            except VersionTooOld:
                if self._version.known != PROTOCOL_VERSION:
                    raise
            self._begin(None)  # it may have been closed meanwhile
            seconds = remaining(deadline)
        return await self._ordered.request(self._encoding.pack(fields), seconds)

    def _packed(self, fields: dict[str, Any]) -> tuple[bytes, int]:
        """Return a REQUEST with any number, and the wire id of its codec."""
        return self._encoding.pack_numbered(Kind.REQUEST, 1, fields), self._encoding.wire_id


def remaining(deadline: float) -> float | None:
    """Return the seconds until a time, more than 0; None if it never comes."""
    return None if deadline == math.inf else max(deadline - trio.current_time(), 0.001)
