"""`Pipeline`: the requests of a client, in the order in which they were made, without I/O.

Replies are matched to requests by their order alone (docs/protocol.md, "A session").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from asyncapy_core.client.failures import is_refusal, is_time_out
from asyncapy_core.client.idle import IdleTime
from asyncapy_core.errors import NotConnected, ServerDisconnected

BATCH: Final = 64 * 1024
"""The most bytes of one batch, unless one packet is larger. If the send fails, all its requests are in doubt."""


class Request:
    """A packet to send, and its answer.

    Args:
        data: the packet.
        on_done: called once, when the answer is known.

    Attributes:
        answer: the fields of the reply, or the reason why there is none; None before it is known.
        repeated: whether the request is sent for the second time, as the server had not read it.
    """

    __slots__ = ("_on_done", "answer", "data", "repeated")

    def __init__(self, data: bytes, on_done: Callable[[], object]) -> None:
        self.data: bytes = data
        self._on_done = on_done
        self.answer: dict[str, Any] | Exception | None = None
        self.repeated: bool = False

    def settle(self, answer: dict[str, Any] | Exception) -> None:
        """Set the answer, unless it is set already."""
        if self.answer is None:
            self.answer = answer
            self._on_done()


class Pipeline:
    """The requests of one client, over one connection after the other.

    If the first reply after an idle time is ERR_TIMED_OUT, and `IdleTime` shows that the server had not read the
    request, the reply is held back. If the connection ends behind it, `repeat` makes the requests on it unsent again.
    If not, it is the answer of a handler, and `deliver_held` settles its request.

    Args:
        on_unsent: called when a request is added.
        clock: returns the time in seconds, which does not run backwards.

    Attributes:
        given_up: whether this connection sends no more requests, as a reply on it may never come.
    """

    def __init__(self, on_unsent: Callable[[], object], clock: Callable[[], float]) -> None:
        self._on_unsent = on_unsent
        self._idle_time = IdleTime(clock)
        self._unsent: dict[Request, None] = {}
        self._sent: deque[Request] = deque()
        self.given_up: bool = False
        self._has_reply = False
        self._refusal: dict[str, Any] | None = None
        self._held: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Return the number of requests without an answer."""
        return len(self._unsent) + len(self._sent)

    @property
    def has_unsent(self) -> bool:
        """Whether a request waits to be sent."""
        return bool(self._unsent)

    def add(self, data: bytes, on_done: Callable[[], object]) -> Request:
        """Add a packet to send after those before it; see `Request`."""
        request = Request(data, on_done)
        self._unsent[request] = None
        self._on_unsent()
        return request

    def is_unsent(self, request: Request) -> bool:
        """Return True if a request waits to be sent."""
        return request in self._unsent

    def next_batch(self) -> bytes:
        """Return the next packets to send, joined, and mark their requests as sent; ``b""`` if there is none."""
        batch: list[bytes] = []
        size = 0
        while self._unsent and size < BATCH:
            if not self._sent:
                self._idle_time.end()
            request = next(iter(self._unsent))
            del self._unsent[request]
            self._sent.append(request)
            batch.append(request.data)
            size += len(request.data)
        return b"".join(batch)

    def connected(self) -> None:
        """Note that there is a new connection."""
        self._idle_time.begin()

    def answer(self, reply: dict[str, Any]) -> bool:
        """Settle the oldest sent request with a reply, or hold the reply back; return False if there is no request.

        If the reply refuses the connection before a request was sent, it settles the unsent requests.
        """
        if self._held is not None:
            self.deliver_held()
        self._refusal = reply if not self._has_reply and is_refusal(reply) else None
        self._has_reply = True
        if self._sent:
            if is_time_out(reply) and self._idle_time.unread_until_now() and not self._sent[0].repeated:
                self._held = reply
            else:
                self._settle_oldest(reply)
            return True
        if self._refusal is not None:
            _settle(self._unsent, reply)
            self._unsent.clear()
            self.given_up = True
        return False

    @property
    def holds_reply(self) -> bool:
        """Whether a reply is held back until it is known whether the connection ends behind it."""
        return self._held is not None

    def holds_reply_to(self, request: Request) -> bool:
        """Return True if the reply to a request is held back."""
        return self._held is not None and self._sent[0] is request

    def deliver_held(self) -> None:
        """Settle the oldest sent request with the reply that is held back: a handler has sent it."""
        assert self._held is not None
        reply, self._held = self._held, None
        self._settle_oldest(reply)

    def repeat(self) -> None:
        """Make the sent requests unsent again, before all others: the server has closed the connection unread.

        None of them was sent before: requests that are sent again are the first on their connection.
        """
        for request in self._sent:
            request.repeated = True
        self._unsent = dict.fromkeys(self._sent) | self._unsent
        self._sent.clear()
        self._held = None
        self.given_up = True

    def _settle_oldest(self, reply: dict[str, Any]) -> None:
        self._sent.popleft().settle(reply)
        if self._sent:
            self._idle_time.forget()
        else:
            self._idle_time.begin()

    @property
    def finished(self) -> bool:
        """Whether the connection was given up, and no request waits for a reply on it."""
        return self.given_up and not self._sent

    def forget(self, request: Request) -> None:
        """Remove a request that its caller no longer waits for.

        If it was sent, its reply may never come, so the connection is given up: the requests after it fail, while those
        before it still get their replies.
        """
        request.settle(NotConnected("the caller no longer waits for this request"))
        if request in self._unsent:
            del self._unsent[request]
        elif request in self._sent:
            behind = deque[Request]()
            while (last := self._sent.pop()) is not request:
                behind.append(last)
            _fail(behind, ServerDisconnected("the connection was given up: a request before this had no reply in time"))
            self.given_up = True
            if not self._sent:
                self._held = None

    def fail_sent(self, error: Exception) -> None:
        """Fail the requests without a reply, as the connection was lost; the next connection starts without them.

        If the only reply on this connection refused it, the server has handled none of them: they get this reply.
        """
        if self._held is not None:
            self.deliver_held()
        if self._refusal is not None:
            _settle(self._sent, self._refusal)
        _fail(self._sent, error)
        self._sent.clear()
        self.given_up = False
        self._has_reply = False
        self._refusal = None

    def fail_unsent(self, error: Exception) -> None:
        """Fail the requests that wait to be sent."""
        _fail(self._unsent, error)
        self._unsent.clear()


def _settle(requests: Iterable[Request], reply: dict[str, Any]) -> None:
    for request in tuple(requests):
        request.settle(dict(reply))


def _fail(requests: Iterable[Request], error: Exception) -> None:
    for request in tuple(requests):
        request.settle(error)
