"""Requests of a client: which of them wait to be sent, which for their replies, and what became of the others.

Does no I/O. Which reply is whose is told by their order alone (docs/protocol.md, "A session").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import trio

from asyncapy_core.errors import NotConnected, ServerDisconnected

BATCH: Final = 64 * 1024
"""Bytes that go out in one piece at most, unless one packet is larger; only so much is in doubt when it fails."""


class Request:
    """A packet, and what became of it.

    Attributes:
        answer: the fields of its reply, or why there is none, once it is ``done``.
    """

    __slots__ = ("answer", "data", "done")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.done = trio.Event()
        self.answer: dict[str, Any] | Exception | None = None

    def settle(self, answer: dict[str, Any] | Exception) -> None:
        """Say what came of it; only the first word counts."""
        if not self.done.is_set():
            self.answer = answer
            self.done.set()


class Pipeline:
    """The requests of one client, over one connection after the other.

    Attributes:
        given_up: nothing more is to be sent over this connection, as a reply on it may never come.
    """

    def __init__(self) -> None:
        self._unsent: dict[Request, None] = {}
        self._sent: deque[Request] = deque()
        self._wanted = trio.Event()
        self.given_up = False

    def __len__(self) -> int:
        """How many requests have no reply yet."""
        return len(self._unsent) + len(self._sent)

    def add(self, data: bytes) -> Request:
        """Have a packet sent behind those that wait already."""
        request = Request(data)
        self._unsent[request] = None
        self._wanted.set()
        return request

    def is_unsent(self, request: Request) -> bool:
        """Say whether a request waits to be sent."""
        return request in self._unsent

    async def until_wanted(self) -> None:
        """Wait until something is to be sent."""
        while not self._unsent:
            self._wanted = trio.Event()
            await self._wanted.wait()

    def next_batch(self) -> bytes:
        """Return what is to be sent next, in one piece; from now on it counts as sent."""
        batch: list[bytes] = []
        size = 0
        while self._unsent and size < BATCH:
            request = next(iter(self._unsent))
            del self._unsent[request]
            self._sent.append(request)
            batch.append(request.data)
            size += len(request.data)
        return b"".join(batch)

    def answer(self, reply: dict[str, Any]) -> bool:
        """Give a reply to the request that it is for; say whether there was one."""
        if not self._sent:
            return False
        self._sent.popleft().settle(reply)
        return True

    @property
    def finished(self) -> bool:
        """Whether the connection was given up, and no reply is waited for on it any more."""
        return self.given_up and not self._sent

    def forget(self, request: Request) -> None:
        """Nobody waits for this any more. If it was sent, its reply may never come: the connection is given up.

        Those behind it fail; replies to what was sent before it are still waited for.
        """
        request.settle(NotConnected("nobody waits for this any more"))
        if request in self._unsent:
            del self._unsent[request]
        elif request in self._sent:
            behind = deque[Request]()
            while (last := self._sent.pop()) is not request:
                behind.append(last)
            _fail(behind, ServerDisconnected("the connection was given up: a request before this had no reply in time"))
            self.given_up = True

    def fail_sent(self, error: Exception) -> None:
        """No reply will come: the connection was lost. The next one begins anew."""
        _fail(self._sent, error)
        self._sent.clear()
        self.given_up = False

    def fail_unsent(self, error: Exception) -> None:
        """Nothing that waits will be sent."""
        _fail(self._unsent, error)
        self._unsent.clear()


def _fail(requests: Iterable[Request], error: Exception) -> None:
    for request in requests:
        request.settle(error)
