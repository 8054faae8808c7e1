"""`IdleTime`: recognizes a time-out of an idle connection that crossed the next request, without I/O.

A server that has waited for ``timeout`` sends ERR_TIMED_OUT and closes the connection (docs/protocol.md, "A session").
If a request is sent at that moment, the server does not read it, and it may be sent again. The same reply has other
causes: it comes ``timeout`` after a request whose handler has sent no answer, and a handler may answer with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

LONGEST_DELAY: Final = 2.0
"""The most seconds between a request and a reply that was sent before the server had read the request."""

END_WITHIN: Final = 0.25
"""The seconds within which the connection ends behind ERR_TIMED_OUT. The server sends the reply and the end together;
only the reply of a handler is followed by nothing."""


class IdleTime:
    """Compares the idle time of a connection with the time from the next request to its reply.

    After a request that it has handled, a server waits for its whole ``timeout`` before it sends ERR_TIMED_OUT. The
    idle time before the request was shorter than ``timeout``, or the server would have timed out during it. So the
    server had not read the request if its reply comes sooner than the idle time was long. A server whose last handler
    went on after its reply begins to wait later; this makes no difference if its ``timeout`` exceeds `LONGEST_DELAY`.

    Args:
        clock: returns the time in seconds, which does not run backwards.
    """

    __slots__ = ("_clock", "_limit", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = math.inf
        self._limit = -math.inf

    def begin(self) -> None:
        """Note that the connection is idle from now on."""
        self._since = self._clock()
        self._limit = -math.inf

    def end(self) -> None:
        """Note that a request is about to be sent on the idle connection."""
        now = self._clock()
        self._limit = now + min(now - self._since, LONGEST_DELAY)

    def forget(self) -> None:
        """Note that this request has its reply, and that others are in flight."""
        self._limit = -math.inf

    def lasts(self, seconds: float) -> bool:
        """Return True if the connection has been idle for this time."""
        return self._clock() - self._since >= seconds

    def unread_until_now(self) -> bool:
        """Return True if the server had not read the request, given that it has just sent ERR_TIMED_OUT."""
        return self._clock() < self._limit
