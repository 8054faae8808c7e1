"""`AsyncClient`: requests of many trio tasks, pipelined over one connection, which is reopened when it is lost.

Does the I/O; `ReplyDecoder` decodes replies, and `Pipeline` matches them to requests.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import trio

from asyncapy_core import defaults
from asyncapy_core.addresses import endpoint
from asyncapy_core.client.connecting import TlsOptions, check_port, check_timeout, client_encodings, unreachable
from asyncapy_core.client.failures import closes_connection, failure
from asyncapy_core.client.idle import END_WITHIN
from asyncapy_core.client.pipeline import Pipeline
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.client.streams import connect
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected
from asyncapy_core.event_loops import REMEDY, require_trio
from asyncapy_core.logs import RateLimited
from asyncapy_core.plugins.manager import PluginManager
from asyncapy_core.protocol.packet import parse_fields
from asyncapy_core.protocol.wire import ByteOrder

if TYPE_CHECKING:
    import ssl

log: logging.Logger = logging.getLogger("asyncapy.client")

READ: Final = 64 * 1024
FIRST_PAUSE: Final = 0.05
NOT_CONNECTED_YET: Final = "there was no connection in time"
ELSEWHERE: Final = f"{REMEDY}; or call the synchronous Client in a thread, with asyncio.to_thread"
"""The remedy for programs with another event loop."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to connect: doubled each time, and half of it left to chance."""

PUSHED: Final = (
    "The connection to %s was given up: the server sent a packet that answers no request. AsyncClient and Pool match "
    "replies by their order, so handlers must answer each packet once and push no packets; the synchronous Client "
    "receives pushed packets"
)


class AsyncClient:
    """A client for any number of tasks: ``async with AsyncClient(host, port) as client``, then `request`.

    Requests are sent in the order in which they are made, without waiting for earlier replies. When the connection is
    lost, requests that were sent fail, as the server may or may not have handled them. For the others, the client
    connects again, at growing intervals. If the server closes an idle connection with ERR_TIMED_OUT before it has read
    a request, the request is sent again, once.

    Replies are matched by their order alone (docs/protocol.md, "A session"), so the server's handlers must answer each
    packet exactly once. A connection is given up if a request on it is not answered in time or is cancelled, or if an
    unrequested packet arrives: the requests after it fail, and later ones use a new connection.

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
        open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        if open_stream is None:
            check_port(port)
            open_stream = functools.partial(trio.open_tcp_stream, hostname, port)
        self._open_stream = open_stream
        self._tls = TlsOptions(tls, ssl_context, ca_file)
        check_timeout(timeout)
        self._encodings = client_encodings(plugins, header_size, byteorder, max_packet)
        self._encoding = self._encodings.by_name(encoding)
        self.hostname = hostname
        self.port = port
        self.encoding = encoding
        self.timeout = timeout
        self.raise_failures = raise_failures
        self._unsent = trio.Event()
        self._pipeline = Pipeline(self._request_added, trio.current_time)
        self._should_log_push = RateLimited(60)
        self._connection_scope = trio.CancelScope()
        self._not_ready = NOT_CONNECTED_YET
        self._stack: AsyncExitStack | None = None
        self._open = False

    @property
    def pending(self) -> int:
        """The number of requests without a reply."""
        return len(self._pipeline)

    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # a late reply raises an exception of its own
    ) -> dict[str, Any]:
        """Send a packet and return the fields of its reply.

        Args:
            payload: the fields, or a JSON object as text.
            timeout: the most seconds for this request; the client's ``timeout`` by default.

        Raises:
            EncodeError, TypeError, ValueError: the payload cannot be encoded.
            ReplyTimeout: no whole reply came in time; the connection is given up.
            ServerDisconnected: the connection was lost, given up or closed after the request was sent; the server may
                or may not have handled it.
            NotConnected: the request was not handled: there was no connection in time, the server accepted no more
                data, or the client is not open.
            FailureReply: the reply is an error reply, and ``raise_failures`` is set.
            RemoteError: the certificate of the server is not trusted, or the server sent an invalid reply.
        """
        require_trio("AsyncClient", ELSEWHERE)
        if not self._open:
            raise NotConnected(
                "this client is not open, or was closed; use it within 'async with AsyncClient(...) as client:'"
            )
        seconds = self.timeout if timeout is None else timeout
        check_timeout(seconds)
        done = trio.Event()
        request = self._pipeline.add(self._encoding.pack(parse_fields(payload)), done.set)
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await done.wait()
            if self._pipeline.is_unsent(request):
                sent = "timed out on an idle connection, and not sent again" if request.repeated else "never sent"
                raise NotConnected(f"{sent} within {seconds:g} s: {self._not_ready}")
            if self._pipeline.holds_reply_to(request):
                self._pipeline.deliver_held()
            if not done.is_set():
                raise ReplyTimeout(f"no whole reply within {seconds:g} s")
        finally:
            if not done.is_set():
                self._pipeline.forget(request)
                if self._pipeline.finished:
                    self._connection_scope.cancel()
        answer = request.answer
        if isinstance(answer, Exception):
            raise copy.copy(answer) from answer.__cause__  # other tasks may raise the same exception
        assert answer is not None
        if self.raise_failures and (failed := failure(answer)) is not None:
            raise failed
        return answer

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
        self._pipeline.fail_sent(ServerDisconnected("the client was closed before the reply came"))
        self._pipeline.fail_unsent(NotConnected("the client was closed before the request was sent"))

    async def _keep_connected(self) -> None:
        """Connect when a request is to be sent, and again when the connection is lost."""
        try:
            pause = FIRST_PAUSE
            while True:
                await self._until_unsent()
                try:
                    stream = await self._connect_in_time()
                except NotConnected as error:
                    self._not_ready = str(error)
                    await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # so that clients do not reconnect all at once
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                except RemoteError as error:  # another attempt would fail as well
                    self._pipeline.fail_unsent(error)
                    continue
                pause = FIRST_PAUSE
                self._not_ready = "the server accepts no more data, as it has not answered earlier requests"
                reason = await self._exchange(stream)
                self._not_ready = NOT_CONNECTED_YET
                self._pipeline.fail_sent(reason)
        finally:
            self._close()

    def _request_added(self) -> None:
        self._unsent.set()

    async def _until_unsent(self) -> None:
        """Wait until a request is to be sent."""
        while not self._pipeline.has_unsent:
            self._unsent = trio.Event()
            await self._unsent.wait()

    async def _connect_in_time(self) -> trio.abc.Stream:
        with trio.move_on_after(math.inf if self.timeout is None else self.timeout):
            return await connect(self._open_stream, self._tls, self.hostname, self.port)
        raise unreachable(TimeoutError(f"no answer within {self.timeout:g} s"), self.hostname, self.port)

    async def _exchange(self, stream: trio.abc.Stream) -> RemoteError:
        """Send requests and read replies until the connection is lost; return the reason."""
        replies = ReplyDecoder(self._encodings)
        reason: RemoteError = ServerDisconnected("the connection was given up")
        self._pipeline.connected()
        async with stream, trio.open_nursery() as nursery:
            self._connection_scope = nursery.cancel_scope
            nursery.start_soon(self._send_all, stream)
            try:
                await self._read(stream, replies)
            except RemoteError as error:
                reason = error
            except trio.BrokenResourceError as error:
                cause = error.__cause__ or error
                reason = ServerDisconnected(f"the connection was lost {replies.state}: {cause}")
                reason.__cause__ = cause
            self._pipeline.given_up = True  # the sender may run once more before it is cancelled
            nursery.cancel_scope.cancel()
        return reason

    async def _send_all(self, stream: trio.abc.Stream) -> None:
        """Send the requests in their order, all that wait in one batch."""
        while not self._pipeline.given_up:
            if batch := self._pipeline.next_batch():
                try:
                    await stream.send_all(batch)
                except trio.BrokenResourceError:
                    return  # the reader finds the reason, perhaps after a last reply
            else:
                await self._until_unsent()

    async def _read(self, stream: trio.abc.Stream, replies: ReplyDecoder) -> None:
        """Settle requests with replies until the connection is given up.

        Raises:
            ServerDisconnected: the server closed the connection, or sent an unrequested packet.
            InvalidReply: the server sent an invalid packet.
        """
        pipeline = self._pipeline
        while True:
            if pipeline.holds_reply:
                data = await self._end_or_data(stream, replies)
                if pipeline.finished:
                    return
                if data is None:
                    continue
            else:
                data = await stream.receive_some(READ)
            if not data:
                raise ServerDisconnected(f"the server closed the connection {replies.state}")
            replies.feed(bytes(data))
            while (frame := replies.next_frame()) is not None:
                reply = replies.fields(frame)
                if not pipeline.answer(reply):  # for example ERR_TIMED_OUT
                    self._log_push(reply)
                    meaning = failure(reply)
                    raise ServerDisconnected(f"the server sent an unrequested packet ({meaning or 'not a failure'})")
                if pipeline.finished:
                    return

    async def _end_or_data(self, stream: trio.abc.Stream, replies: ReplyDecoder) -> bytes | bytearray | None:
        """Wait for the end of the connection, and settle or repeat the request whose reply is held back.

        Returns:
            Received bytes, ``b""`` if the connection has ended, or None if neither happens in time.
        """
        data: bytes | bytearray | None = None
        with trio.move_on_after(END_WITHIN):
            try:
                data = await stream.receive_some(READ)
            except trio.BrokenResourceError:  # closed with unread requests, which resets the connection
                data = b""
        if self._pipeline.holds_reply:  # if not, the request has timed out or was cancelled
            if data == b"" and not replies.buffered:
                self._pipeline.repeat()
            else:
                self._pipeline.deliver_held()
        return data

    def _log_push(self, packet: Mapping[str, Any]) -> None:
        """Log that the server has sent a packet that answers no request, unless it closes the connection with it."""
        if not self._pipeline.given_up and not closes_connection(packet) and self._should_log_push():
            log.warning(PUSHED, endpoint(self.hostname, self.port))
