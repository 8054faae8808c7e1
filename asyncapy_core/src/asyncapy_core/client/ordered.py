"""`OrderedRequests`: the requests of `AsyncClient` in version 22, pipelined over one connection after the other.

Does the I/O; `ReplyDecoder` decodes replies, and `Pipeline` matches them to requests by their order.
"""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Mapping
from typing import Any, Final

import trio

from asyncapy_core.client.connecting import within
from asyncapy_core.client.failures import closes_connection, failure
from asyncapy_core.client.idle import END_WITHIN
from asyncapy_core.client.pipeline import Pipeline
from asyncapy_core.client.replies import ReplyDecoder
from asyncapy_core.client.streams import Connector
from asyncapy_core.errors import NotConnected, RemoteError, ReplyTimeout, ServerDisconnected
from asyncapy_core.logs import RateLimited
from asyncapy_core.protocol.encoding import EncodingRegistry

log: logging.Logger = logging.getLogger("asyncapy.client")

READ: Final = 64 * 1024
FIRST_PAUSE: Final = 0.05
NOT_CONNECTED_YET: Final = "there was no connection in time"
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to connect: doubled each time, and half of it left to chance."""

PUSHED: Final = (
    "The connection to %s was given up: the server sent a packet that answers no request. AsyncClient and Pool match "
    "replies by their order, so handlers must answer each packet once and push no packets; the synchronous Client "
    "receives pushed packets"
)


class OrderedRequests:
    """The requests of one client, to whose server it connects again when the connection is lost.

    Args:
        connector: opens the connections.
        encodings: the encodings of the client.
    """

    def __init__(self, connector: Connector, encodings: EncodingRegistry) -> None:
        self._connector = connector
        self._encodings = encodings
        self._unsent = trio.Event()
        self._pipeline = Pipeline(self._request_added, trio.current_time)
        self._should_log_push = RateLimited(60)
        self._connection_scope = trio.CancelScope()
        self._not_ready = NOT_CONNECTED_YET

    def __len__(self) -> int:
        """Return the number of requests without a reply."""
        return len(self._pipeline)

    async def request(self, packet: bytes, seconds: float | None) -> dict[str, Any]:
        """Send a packet and return the fields of its reply; see `AsyncClient.request`.

        Args:
            packet: a packet of version 22.
            seconds: the most seconds until the reply; None for no limit.
        """
        done = trio.Event()
        request = self._pipeline.add(packet, done.set)
        try:
            with trio.move_on_after(math.inf if seconds is None else seconds):
                await done.wait()
            if self._pipeline.is_unsent(request):
                sent = "timed out on an idle connection, and not sent again" if request.repeated else "never sent"
                raise NotConnected(f"{sent} {within(seconds)}: {self._not_ready}")
            if self._pipeline.holds_reply_to(request):
                self._pipeline.deliver_held()
            if not done.is_set():
                raise ReplyTimeout(f"no whole reply {within(seconds)}")
        finally:
            if not done.is_set():
                self._pipeline.forget(request)
                if self._pipeline.finished:
                    self._connection_scope.cancel()
        answer = request.answer
        if isinstance(answer, Exception):
            raise copy.copy(answer) from answer.__cause__  # other tasks may raise the same exception
        assert answer is not None
        return answer

    def close(self) -> None:
        """Fail the requests that have no reply."""
        self._pipeline.fail_sent(ServerDisconnected("the client was closed before the reply came"))
        self._pipeline.fail_unsent(NotConnected("the client was closed before the request was sent"))

    async def run(self) -> None:
        """Connect when a request is to be sent, and again when the connection is lost."""
        try:
            pause = FIRST_PAUSE
            while True:
                await self._until_unsent()
                try:
                    stream = await self._connector.connect()
                except NotConnected as error:
                    if not self._connector.patient:
                        self._pipeline.fail_unsent(error)
                        continue
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
            self.close()

    def _request_added(self) -> None:
        self._unsent.set()

    async def _until_unsent(self) -> None:
        """Wait until a request is to be sent."""
        while not self._pipeline.has_unsent:
            self._unsent = trio.Event()
            await self._unsent.wait()

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
            log.warning(PUSHED, self._connector.where)
