"""The trio client: requests from many tasks at once, pipelined over one connection that is made anew when it is lost.

Knows streams and deadlines; what comes over them is `ReplyDecoder`'s business, and who waits for what `Pipeline`'s.
"""

from __future__ import annotations

import copy
import functools
import math
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import trio

from asyncapy_core import defaults
from asyncapy_core.client.connecting import (
    TlsOptions,
    check_port,
    check_timeout,
    client_encodings,
    handshake_failed,
    unreachable,
)
from asyncapy_core.client.failures import failure
from asyncapy_core.client.pipeline import Pipeline
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected
from asyncapy_core.plugins.manager import PluginManager
from asyncapy_core.protocol.packet import parse_fields
from asyncapy_core.protocol.wire import ByteOrder

READ: Final = 64 * 1024
FIRST_PAUSE: Final = 0.05
NOT_CONNECTED_YET: Final = "there was no connection in time"
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to connect: doubled each time, and half of it left to chance."""


class AsyncClient:
    """Talks to a server from any number of tasks: ``async with AsyncClient(host, port) as client``, then `request`.

    Requests go out in the order in which they are made, without waiting for the replies to those before them, and each
    gets the reply that is its own. When the connection is lost, it is made anew, at growing intervals, for the requests
    that were never sent; those that were sent fail, as nobody knows what the server did with them.

    Replies are matched by their order alone (docs/protocol.md, "A session"), so the server's handlers have to answer
    each packet once. A connection on which one is not answered in time, or is no longer waited for, is given up: the
    requests behind it fail, and the next ones go over a new connection. So is one on which a packet comes that nobody
    asked for.

    Args:
        hostname: the name or the IP address of the server.
        port: its TCP port.
        byteorder: the order of the bytes of Content-Length, ``"big"`` or ``"little"``; as the server has it.
        header_size: bytes of Content-Length, 1 to 8; as the server has it.
        tls: speak TLS, and verify the server's certificate and name.
        encoding: the encoding of the session, the name of an installed codec.
        timeout: seconds that a request may take, connecting included; None waits for ever.
        ssl_context: what to verify with, in place of the system's certificates.
        ca_file: a file of CA certificates in PEM form, in place of the system's.
        max_packet: the largest reply accepted, in bytes; as large as the header can say unless given.
        raise_failures: raise a `FailureReply` for a reply that is a failure of the server's own making.
        plugins: where codecs are from; those installed unless given.
        open_stream: what opens a stream to the server, in place of TCP to ``hostname`` and ``port``; such as
            ``functools.partial(trio.open_unix_socket, path)``.

    Raises:
        UnknownCodec: no codec has the name ``encoding``.
        TypeError, ValueError: another argument is wrong, or TLS is set up and switched off.
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
        max_packet: int | None = None,
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
        self._pipeline = Pipeline(self._request_added)
        self._talking = trio.CancelScope()
        self._not_ready = NOT_CONNECTED_YET
        self._stack: AsyncExitStack | None = None
        self._open = False

    @property
    def pending(self) -> int:
        """How many requests have no reply yet."""
        return len(self._pipeline)

    async def request(
        self,
        payload: Mapping[str, Any] | str | bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # what is too late is an error of its own kind
    ) -> dict[str, Any]:
        """Send a packet and return the fields of its reply.

        Args:
            payload: its fields, or a JSON object as text.
            timeout: seconds that this request may take, if not as long as the others.

        Raises:
            EncodeError, TypeError, ValueError: the payload cannot be sent.
            ReplyTimeout: there was no whole reply in time, and the connection is given up.
            ServerDisconnected: the connection was lost, given up or closed after this was sent, so that nobody knows
                what became of it.
            NotConnected: this was never sent, as there was no connection in time, or the server took nothing more, or
                the client is not open, or was closed before.
            FailureReply: the server made a failure of it, and ``raise_failures`` is set.
            RemoteError: the server cannot be trusted, or speaks something else.
        """
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
                raise NotConnected(f"never sent within {seconds:g} s: {self._not_ready}")
            if not done.is_set():
                raise ReplyTimeout(f"no whole reply within {seconds:g} s")
        finally:
            if not done.is_set():
                self._pipeline.forget(request)
                if self._pipeline.finished:
                    self._talking.cancel()
        answer = request.answer
        if isinstance(answer, Exception):
            raise copy.copy(answer) from answer.__cause__  # others may wait for the same, and raise their own
        assert answer is not None
        if self.raise_failures and (failed := failure(answer)) is not None:
            raise failed
        return answer

    async def __aenter__(self) -> Self:
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
        """Take no more requests, and end those that wait."""
        self._open = False
        self._pipeline.fail_sent(ServerDisconnected("the client was closed before the reply to what it had sent came"))
        self._pipeline.fail_unsent(NotConnected("the client was closed before this was sent"))

    async def _keep_connected(self) -> None:
        """Connect when there is something to send, and again when the connection is lost."""
        try:
            pause = FIRST_PAUSE
            while True:
                await self._until_unsent()
                try:
                    stream = await self._connect_in_time()
                except NotConnected as error:
                    self._not_ready = str(error)
                    await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # so that not all come back at once
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                except RemoteError as error:  # trying again would not help
                    self._pipeline.fail_unsent(error)
                    continue
                pause = FIRST_PAUSE
                self._not_ready = "the server took no more, as it has not answered what was sent before"
                reason = await self._converse(stream)
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
            return await self._connect()
        raise unreachable(TimeoutError(f"no answer within {self.timeout:g} s"), self.hostname, self.port)

    async def _connect(self) -> trio.abc.Stream:
        try:
            plain = await self._open_stream()
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise unreachable(error, self.hostname, self.port) from error
        if not self._tls.tls:
            return plain
        try:
            stream = trio.SSLStream(plain, self._tls.context(), server_hostname=self.hostname, https_compatible=True)
            await stream.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            await trio.aclose_forcefully(plain)
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error))
            raise handshake_failed(cause, self.hostname, self.port) from cause
        except BaseException:  # whatever it is, it goes on, and the connection does not stay open
            await trio.aclose_forcefully(plain)
            raise
        return stream

    async def _converse(self, stream: trio.abc.Stream) -> RemoteError:
        """Send what is wanted and read what comes, until the connection is lost; return what is to be said of that."""
        replies = ReplyDecoder(self._encodings)
        reason: RemoteError = ServerDisconnected("the connection was given up")
        async with stream, trio.open_nursery() as nursery:
            self._talking = nursery.cancel_scope
            nursery.start_soon(self._send_all, stream)
            try:
                await self._read(stream, replies)
            except RemoteError as error:
                reason = error
            except trio.BrokenResourceError as error:
                cause = error.__cause__ or error
                reason = ServerDisconnected(f"the connection was lost {replies.state}: {cause}")
                reason.__cause__ = cause
            nursery.cancel_scope.cancel()
        return reason

    async def _send_all(self, stream: trio.abc.Stream) -> None:
        """Send requests in the order in which they were made; those that came together go out in one piece."""
        while not self._pipeline.given_up:
            if batch := self._pipeline.next_batch():
                try:
                    await stream.send_all(batch)
                except trio.BrokenResourceError:
                    return  # the reader finds the reason, which may be a last reply
            else:
                await self._until_unsent()

    async def _read(self, stream: trio.abc.Stream, replies: ReplyDecoder) -> None:
        """Give each reply to the request that it is for, until the connection is given up.

        Raises:
            ServerDisconnected: the server closed the connection, or sent what nobody asked for.
            InvalidReply: it sent what is no reply.
        """
        while data := await stream.receive_some(READ):
            replies.feed(bytes(data))
            while (frame := replies.next_frame()) is not None:
                reply = replies.fields(frame)
                if not self._pipeline.answer(reply):  # such as that the session has timed out
                    meaning = failure(reply)
                    raise ServerDisconnected(f"the server sent what nobody asked for ({meaning or 'a packet'})")
                if self._pipeline.finished:
                    return
        raise ServerDisconnected(f"the server closed the connection {replies.state}")
