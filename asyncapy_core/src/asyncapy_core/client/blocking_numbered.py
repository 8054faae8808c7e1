"""`BlockingExchange`: one connection of the synchronous client in version 23, from its socket to whole answers.

It does not connect, and repeats no request: `Client` does, after asking `has_ended`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from asyncapy_core.client.blocking import IDLE, MAX_READ
from asyncapy_core.client.calls import Call, Unsent
from asyncapy_core.client.exchange import Exchange
from asyncapy_core.client.sockets import has_expired, remaining
from asyncapy_core.errors import NotConnected, RemoteError, ServerDisconnected
from asyncapy_core.interrupts import is_from_signal

if TYPE_CHECKING:
    import socket

    from asyncapy_core.protocol.encoding import EncodingRegistry

CLOSING: Final = 1.0
"""The most seconds to cancel requests on the server."""

MOST_PARTS: Final = 10_000
"""The most answers to a stream that are held while its loop waits for the answer to another request."""

MAX_READS: Final = 64
"""How often `BlockingExchange.has_ended` reads, so that a server that sends without end does not hold it up."""


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
        self._interrupted = False
        self._fault: OSError | None = None
        self._in_use = threading.Lock()
        self._forgotten: deque[tuple[Call, bool]] = deque()

    @property
    def has_streams(self) -> bool:
        """Whether a request waits for answers that may still come."""
        return len(self._exchange) > 0

    def has_ended(self) -> bool:
        """Return True if no request can be sent on this connection.

        If it was idle, packets that have arrived are processed first, so that the end of the session is noticed. This
        does not wait.

        Raises:
            RemoteError: another thread uses the connection.
        """
        with self._exclusively():
            if not self._broken and time.monotonic() - self._last_used >= IDLE:
                self._read_early()
            return self._broken or self._interrupted or self._exchange.leaving

    def ask(self, call: Call, deadline: float | None) -> bool:
        """Send a request, and do as `wait`.

        Raises:
            RemoteError: another thread uses the connection.
            TimeoutError: the server did not accept the request, or sent no answer, in time.
        """
        with self._exclusively():
            self._unsent.add(call)
            return self._wait(call, deadline)

    def wait(self, call: Call, deadline: float | None) -> bool:
        """Wait until a request that was sent has an answer to take, or its last one.

        Args:
            call: the request.
            deadline: the time of `time.monotonic` at which to give up; None for never.

        Returns:
            False if the server has not handled the request, and never will.

        Raises:
            RemoteError: another thread uses the connection.
            TimeoutError: there is no answer in time.
        """
        with self._exclusively():
            return self._wait(call, deadline)

    def cancel(self, call: Call, *, late: bool) -> None:
        """Cancel a request, unless it has ended.

        This may be called by a finalizer, while the connection is used; then the request is cancelled a little later.

        Args:
            call: the request.
            late: whether it has no answer in time. If the server has sent nothing since an earlier such request, the
                connection is given up.
        """
        if self.process != os.getpid():
            return  # the request is that of the other process
        self._forgotten.append((call, late))
        if self._in_use.locked():
            return
        with self._exclusively():
            if self._interrupted:
                reason = "the connection was given up: an exception has interrupted a read, and bytes may be lost"
                self._exchange.abandon(ServerDisconnected(reason))
            self._send_in_time()
            if self._exchange.finished:
                self._socket.close()

    def close(self) -> None:
        """Close the connection, and cancel its requests: the server cannot tell a closed client from a half-closed one.

        If another thread uses the connection, or another process has made it, the requests are not cancelled.
        """
        if self.process == os.getpid() and not self._in_use.locked():
            with self._exclusively():
                self._exchange.abandon(NotConnected("the client has disconnected"))
                self._send_in_time()
        self._socket.close()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Use the connection in this thread only.

        Raises:
            RemoteError: another thread uses it.
        """
        if not self._in_use.acquire(blocking=False):
            raise RemoteError("another thread uses this client at the moment; use a client for each thread")
        try:
            yield
        finally:
            self._in_use.release()

    def _wait(self, call: Call, deadline: float | None) -> bool:
        self._send(deadline)
        while not (call.ready or call in self._unsent):
            if self._exchange.full is None:
                self._receive(remaining(deadline))
            else:
                self._process(self._exchange.proceed)
            full = self._exchange.full
            if full not in (None, call) and not call.ready:  # its loop goes on after this request only
                full.overflow("another request waits for an answer behind the next part")
                self._exchange.cancel(full)
            self._send(deadline)
        self._last_used = time.monotonic()
        if self._exchange.finished:
            self._socket.close()
        return call.ready

    def _read_early(self) -> None:
        """Process packets that have arrived."""
        for _ in range(MAX_READS):
            if self._exchange.leaving or self._exchange.full is not None:
                return
            try:
                self._receive(0)
            except (BlockingIOError, ssl.SSLWantReadError):
                return

    def _send_in_time(self) -> None:
        """Send the output of the exchange, within a time of its own."""
        try:
            self._send(time.monotonic() + CLOSING)
        except TimeoutError:
            self._broken = True

    def _send(self, deadline: float | None) -> None:
        """Send the output of the exchange.

        Raises:
            TimeoutError: the server did not accept it in time; a part of it may have been sent.
        """
        while self._forgotten:
            self._forget(*self._forgotten.popleft())
        while not self._broken and (batch := self._exchange.next_batch()):
            data = memoryview(batch)
            self._broken = True  # if it is sent in part, nothing may follow
            try:
                while data:
                    self._socket.settimeout(remaining(deadline))
                    data = data[self._socket.send(data) :]
            except OSError as error:
                if has_expired(error):
                    raise
                self._fault = error  # perhaps there is a last answer to receive
                return
            self._broken = False

    def _forget(self, call: Call, late: bool) -> None:  # noqa: FBT001  # stored with the call
        """Cancel a request, and ask for a sign of life if it is late; see `cancel`."""
        self._unsent.discard(call)
        if self._exchange.cancel(call) and late:
            self._broken = self._broken or self._exchange.silent  # since the PING of an earlier late request
            self._exchange.ping()

    def _receive(self, seconds: float | None) -> None:
        """Receive bytes and process them; at the end of the stream, fail the requests."""
        self._interrupted = True  # if a signal handler raises an exception now, received bytes may be lost
        try:
            self._socket.settimeout(seconds)
            data = self._socket.recv(MAX_READ)
        except OSError as error:
            expired = has_expired(error)
            self._interrupted = expired and is_from_signal(error)  # for example that of signal.alarm
            if expired or isinstance(error, (BlockingIOError, ssl.SSLWantReadError)):
                raise
            self._end(self._lost(error))
        else:
            if data:
                self._process(functools.partial(self._exchange.receive, data))
            else:
                self._end(None if self._fault is None else self._lost(self._fault))
        self._interrupted = False

    def _lost(self, error: OSError) -> ServerDisconnected:
        """Return the exception for an error of the socket."""
        lost = ServerDisconnected(f"the connection was lost {self._exchange.answers.state}: {error}")
        lost.__cause__ = error
        return lost

    def _process(self, step: Callable[[], None]) -> None:
        """Process received bytes by a method of the exchange; end the connection if they are invalid."""
        self._interrupted = True
        try:
            step()
        except RemoteError as error:
            self._end(error)
        self._interrupted = False

    def _end(self, error: RemoteError | None) -> None:
        """Fail all requests, as nothing more can be received; None is the end of the stream."""
        self._broken = True
        self._exchange.end(error)


def _ignore(*arguments: Any) -> None:
    """Do nothing."""
