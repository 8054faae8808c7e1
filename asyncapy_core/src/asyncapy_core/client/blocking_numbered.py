"""`BlockingExchange`: one connection of the synchronous client in version 23, from its socket to whole answers.

It does not connect, and repeats no request: `Client` does, after asking `has_ended`.
"""

from __future__ import annotations

import os
import ssl
import time
from typing import TYPE_CHECKING, Any

from asyncapy_core.client.blocking import IDLE, MAX_READ
from asyncapy_core.client.calls import Call, Unsent
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.sockets import remaining
from asyncapy_core.errors import RemoteError, ServerDisconnected

if TYPE_CHECKING:
    import socket

    from asyncapy_core.protocol.encoding import EncodingRegistry


class BlockingExchange:
    """Sends requests and reads their answers; packets that the server pushes are dropped.

    Args:
        connected: the socket.
        encodings: the encodings of the client.

    Attributes:
        process: the id of the process that has connected.
    """

    def __init__(self, connected: socket.socket, encodings: EncodingRegistry) -> None:
        self.process: int = os.getpid()
        self._socket = connected
        self._unsent = Unsent(_ignore)
        self._exchange = Exchange(self._unsent, encodings, _ignore)
        self._last_used = time.monotonic()
        self._broken = False

    def has_ended(self) -> bool:
        """Return True if no request can be sent on this connection.

        If it was idle, packets that have arrived are processed first, so that the end of the session is noticed. This
        does not wait.
        """
        if not self._broken and time.monotonic() - self._last_used >= IDLE:
            while not self._exchange.leaving:
                try:
                    self._receive(0)
                except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
                    break
        return self._broken or self._exchange.leaving

    def begin(self, call: Call, deadline: float | None) -> None:
        """Send a request.

        Raises:
            TimeoutError: the server did not accept it in time.
        """
        self._unsent.add(call)
        self._send(deadline)

    def wait(self, call: Call, deadline: float | None) -> bool:
        """Wait until a request has an answer to take, or its last one.

        Args:
            call: the request.
            deadline: the time of `time.monotonic` at which to give up; None for never.

        Returns:
            False if the server has not handled the request, and never will.

        Raises:
            TimeoutError: there is no answer in time.
        """
        while not (call.ready or call in self._unsent):
            self._receive(remaining(deadline))
            self._send(deadline)
        self._last_used = time.monotonic()
        return call.ready

    def cancel(self, call: Call, *, late: bool) -> None:
        """Cancel a request, unless it has ended.

        Args:
            call: the request.
            late: whether it has no answer in time. If the server has sent nothing since an earlier such request, the
                connection is given up.
        """
        self._unsent.discard(call)
        if self._exchange.cancel(call) and late:
            self._broken = self._broken or self._exchange.silent  # since the PING of an earlier late request
            self._exchange.ping()
        if not self._broken:
            try:
                self._send(time.monotonic() + 1)
            except TimeoutError:
                self._broken = True

    def _send(self, deadline: float | None) -> None:
        """Send the output of the exchange.

        Raises:
            TimeoutError: the server did not accept it in time; a part of it may have been sent.
        """
        while not self._broken and (batch := self._exchange.next_batch()):
            data = memoryview(batch)
            self._broken = True  # if it is sent in part, nothing may follow
            try:
                while data:
                    self._socket.settimeout(remaining(deadline))
                    data = data[self._socket.send(data) :]
            except TimeoutError:
                raise
            except OSError:
                return  # `_receive` finds the reason, perhaps after a last answer
            self._broken = False

    def _receive(self, seconds: float | None) -> None:
        """Receive bytes and process them; at the end of the stream, fail the request."""
        error: RemoteError | None = None
        try:
            self._socket.settimeout(seconds)
            data = self._socket.recv(MAX_READ)
            if data:
                self._exchange.receive(data)
                return
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            raise
        except OSError as reason:
            error = ServerDisconnected(f"the connection was lost {self._exchange.answers.state}: {reason}")
            error.__cause__ = reason
        except RemoteError as reason:
            error = reason
        self._broken = True
        self._exchange.end(error)


def _ignore(*arguments: Any) -> None:
    """Do nothing."""
