"""`NumberedConnection`: one connection of `AsyncClient` in version 23, from its stream to the end of its requests.

`Exchange` matches answers to requests. `NumberedRequests` connects, and sends requests again.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

import trio

from asyncapy_core.client.calls import PartsCall
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.ordered import READ
from asyncapy_core.client.streaming import Signal
from asyncapy_core.errors import RemoteError, ServerDisconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncapy_core.client.events import Listeners

SILENCE: Final = 30.0
"""The seconds within which the server has to send anything after a PING; if not, the connection is given up."""

TURNS: Final = 10
"""The turns of the event loop within which the loop over a full stream has to take an answer."""

CLOSING: Final = 1.0
"""The most seconds to cancel the requests in flight when the client is closed."""

KEEP_ALIVE: Final = 60.0
"""The seconds without a packet after which the server gets a PING, if answers or events are expected."""


class NumberedConnection:
    """One connection, until it is lost or of no more use.

    Args:
        stream: the stream.
        exchange: the requests on it.
        where: the server, for messages.
        listeners: the event streams for its events.

    Attributes:
        exchange, listeners: as given.
        left: set when the connection takes no more requests.
    """

    def __init__(self, stream: trio.abc.Stream, exchange: Exchange, where: str, listeners: Listeners) -> None:
        self._stream = stream
        self._where = where
        self._output = Signal()
        self._scope = trio.CancelScope()
        self._sending = False
        self.exchange: Exchange = exchange
        self.listeners: Listeners = listeners
        self.left: trio.Event = trio.Event()

    def wake(self) -> None:
        """Send the output of the exchange, and close the connection if it is of no more use."""
        self._output.set()
        if self.exchange.finished:
            self._scope.cancel()

    def ping(self) -> None:
        """Ask the server for a sign of life, and give up the connection if none comes."""
        self.exchange.ping()
        self._output.set()
        self._watch()

    async def run(self, on_useful: Callable[[], object]) -> RemoteError:
        """Send requests and read answers until the connection ends; fail the requests in flight, and return the reason.

        Args:
            on_useful: called when the first packet of version 23 has arrived.
        """
        exchange = self.exchange
        reason: RemoteError | None = None
        self._watch()
        try:
            with self._scope:
                async with self._stream:
                    try:
                        reason = await self._read_and_send(on_useful)
                    finally:
                        await self._send_cancels()
        finally:
            if trio.current_time() >= self._scope.deadline:
                reason = ServerDisconnected(f"{self._where} has sent nothing for {SILENCE:g} s, and no PONG to a PING")
            exchange.end(reason)
        return exchange.reason

    def _watch(self) -> None:
        """Give up the connection in time if the server does not answer a PING."""
        if self.exchange.silent:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + SILENCE)

    async def _read_and_send(self, on_useful: Callable[[], object]) -> RemoteError | None:
        """Do as `_read`, while requests are sent."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            nursery.start_soon(self._keep_alive)
            try:
                reason = await self._read(on_useful)
            finally:
                self.exchange.leaving = True  # the sender may run once more before it is cancelled
                nursery.cancel_scope.cancel()
        return reason

    async def _send_cancels(self) -> None:
        """Cancel the requests in flight on the server, which cannot tell a closed client from a half-closed one."""
        if self.exchange.has_output and not self._sending:
            with trio.move_on_after(CLOSING) as scope, contextlib.suppress(trio.BrokenResourceError):
                scope.shield = True
                await self._stream.send_all(self.exchange.next_batch())

    async def _send_all(self) -> None:
        exchange = self.exchange
        if not exchange.has_output:  # its request was cancelled; without a packet, the server would end the session
            self.ping()
        while True:
            if batch := exchange.next_batch():
                if exchange.leaving:
                    self.left.set()
                self._sending = True
                try:
                    await self._stream.send_all(batch)
                except trio.BrokenResourceError:
                    return  # the reader finds the reason, perhaps after a last answer
                self._sending = False
            else:
                await self._output.wait()

    async def _keep_alive(self) -> None:
        """Send a PING from time to time, as a server that has vanished sends no answers and no events."""
        exchange = self.exchange
        while True:
            received = exchange.received
            await trio.sleep(KEEP_ALIVE)
            if received == exchange.received and (exchange or self.listeners):
                self.ping()

    async def _read(self, on_useful: Callable[[], object]) -> RemoteError | None:
        """Process the packets of the server, until the connection is of no more use.

        Returns:
            The reason of the end; None at the end of the stream.
        """
        exchange, useful = self.exchange, False
        while not exchange.finished:
            try:
                if exchange.full is not None:
                    await self._yield_to_loop(exchange.full)
                    exchange.proceed()
                elif data := await self._stream.receive_some(READ):
                    silent = exchange.silent
                    exchange.receive(bytes(data))
                    if silent and not exchange.silent:
                        self._scope.deadline = math.inf
                else:
                    return None
            except trio.BrokenResourceError as error:
                cause = error.__cause__ or error
                reason = ServerDisconnected(f"the connection was lost {exchange.answers.state}: {cause}")
                reason.__cause__ = cause
                return reason
            except RemoteError as error:
                return error
            if exchange.useful and not useful:
                useful = True
                on_useful()
            if exchange.leaving:
                self.left.set()
            if exchange.has_output:
                self._output.set()
        return None

    async def _yield_to_loop(self, call: PartsCall) -> None:
        """Let the loop over a full stream take answers; cancel the stream if its loop waits for something else.

        The answers to other requests are behind the next one of this stream, so they wait for a few turns only.
        """
        held = len(call.parts)
        for _ in range(TURNS):
            await trio.lowlevel.checkpoint()
            if len(call.parts) < held or call.ended:
                return
        call.overflow("the answers to other requests are behind the next one")
        self.exchange.cancel(call)
